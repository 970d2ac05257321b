"""Splits grouped by reduced formula: no composition is in two folds.

The fold of a formula depends on the formula and the seed alone, not on which other structures are
present, so that two data sets split with one seed never leak into each other.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Literal

from ase import Atoms
from pymatgen.core import Composition

Fold = Literal["train", "val", "test"]


def reduced_formula(atoms: Atoms) -> str:
    """Reduced formula as pymatgen spells it, e.g. LiFePO4.

    Raises:
        ValueError: If there are no atoms.
    """
    if len(atoms) == 0:
        raise ValueError("structure must hold at least one atom, got an empty Atoms object")
    with warnings.catch_warnings():  # noble gases have no electronegativity to sort by
        warnings.filterwarnings("ignore", "No Pauling electronegativity")
        return str(Composition(atoms.get_chemical_formula()).reduced_formula)


def fold_of(formula: str, *, val: float = 0.05, test: float = 0.10, seed: int = 0) -> Fold:
    """Fold of a reduced formula.

    Args:
        formula: Reduced formula.
        val: Share of formulas for validation.
        test: Share of formulas for the test.
        seed: Another seed is another split.

    Raises:
        ValueError: If the shares are negative or leave nothing to train on.
    """
    if val < 0 or test < 0 or val + test >= 1:
        raise ValueError(f"val and test must be >= 0 with a sum below 1, got {val} and {test}")
    digest = hashlib.sha256(f"{seed}|{formula}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < test:
        return "test"
    return "val" if share < test + val else "train"


def split_indices(
    frames: Sequence[Atoms], *, val: float, test: float, seed: int
) -> dict[Fold, list[int]]:
    """Indices of the frames of each fold, in order; same formula, same fold."""
    folds: dict[Fold, list[int]] = {"train": [], "val": [], "test": []}
    for index, atoms in enumerate(frames):
        folds[fold_of(reduced_formula(atoms), val=val, test=test, seed=seed)].append(index)
    return folds
