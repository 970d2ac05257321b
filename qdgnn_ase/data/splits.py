"""Splits grouped by reduced formula: no composition is in two folds.

The fold of a formula depends on the formula and the seed alone, not on which other structures are
present, so that two data sets split with one seed never leak into each other.

Frames of one material have one formula. They are split by frame: the frames of each formula of a
file, in the file's order, are cut into stretches, and each stretch into a block for training, one
for validation and one for the test. Neighbouring frames of a trajectory are nearly equal; blocks
keep them in one fold, where a random choice would test on what was trained. Several stretches see
to it that every part of a file (heating, strains, surfaces) is in every fold.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from ase import Atoms
from pymatgen.core import Composition

from qdgnn_ase.data.partial import integer_formula
from qdgnn_ase.graph import basis

Fold = Literal["train", "val", "test"]
SplitBy = Literal["formula", "frame"]
_STRETCHES = 5
_SHORTEST_STRETCH = 10


def reduced_formula(atoms: Atoms) -> str:
    """Reduced formula as pymatgen spells it, e.g. LiFePO4.

    With shared sites, or for a composition, numbers of atoms are rounded to 0.02.

    Raises:
        ValueError: If there are no atoms.
    """
    if len(atoms) == 0:
        raise ValueError("structure must hold at least one atom, got an empty Atoms object")
    ordered = basis(atoms) == "structure"
    formula = atoms.get_chemical_formula() if ordered else integer_formula(atoms)
    with warnings.catch_warnings():  # noble gases have no electronegativity to sort by
        warnings.filterwarnings("ignore", "No Pauling electronegativity")
        return str(Composition(formula).reduced_formula)


def fold_of(
    formula: str, *, val: float = 0.05, test: float = 0.10, seed: int = 0, turn: float = 0.0
) -> Fold:
    """Fold of a reduced formula.

    Args:
        formula: Reduced formula.
        val: Share of formulas for validation.
        test: Share of formulas for the test.
        seed: Another seed is another split.
        turn: Where the test's share begins on the circle of all formulas, in [0, 1): the tests of
            turns k / n with test = 1 / n hold every formula once.

    Raises:
        ValueError: If the shares are negative or leave nothing to train on.
    """
    _check_shares(val, test)
    digest = hashlib.sha256(f"{seed}|{formula}".encode()).digest()
    share = (int.from_bytes(digest[:8], "big") / 2**64 - turn) % 1.0
    if share < test:
        return "test"
    return "val" if share < test + val else "train"


def folds_of(
    formulas: Sequence[str],
    *,
    val: float,
    test: float,
    seed: int,
    by: SplitBy = "formula",
    turn: float = 0.0,
) -> list[Fold]:
    """Fold of each frame of a file.

    Args:
        formulas: Reduced formula of every frame, in the file's order.
        val: Share of the formulas, or of the frames of each formula, for validation.
        test: The same for the test.
        seed: Seed of the split by formula.
        by: "formula", or "frame" for blocks of the frames of each formula. A share above 0 is at
            least a frame; where that leaves none for training, all are for training.
        turn: Of the split by formula, see `fold_of`.

    Raises:
        ValueError: If the shares are negative or leave nothing to train on.
    """
    if by == "formula":
        shares = {"val": val, "test": test, "turn": turn}
        known = {name: fold_of(name, seed=seed, **shares) for name in set(formulas)}
        return [known[name] for name in formulas]
    _check_shares(val, test)
    places = defaultdict(list)
    for index, name in enumerate(formulas):
        places[name].append(index)
    folds: list[Fold] = ["train"] * len(formulas)
    for indices in places.values():
        for index, fold in zip(indices, _blocks(len(indices), val, test), strict=True):
            folds[index] = fold
    return folds


def _blocks(n: int, val: float, test: float) -> list[Fold]:
    """Folds of n frames in order."""
    n_stretches = min(_STRETCHES, max(1, n // _SHORTEST_STRETCH))
    edges = [round(k * n / n_stretches) for k in range(n_stretches + 1)]
    return [fold for a, b in pairwise(edges) for fold in _stretch(b - a, val, test)]


def _stretch(n: int, val: float, test: float) -> list[Fold]:
    n_val, n_test = (max(1, round(share * n)) if share else 0 for share in (val, test))
    if n_val + n_test >= n:
        return ["train"] * n
    sizes: dict[Fold, int] = {"train": n - n_val - n_test, "val": n_val, "test": n_test}
    return [fold for fold, size in sizes.items() for _ in range(size)]


def split_indices(
    frames: Sequence[Atoms], *, val: float, test: float, seed: int, by: SplitBy = "formula"
) -> dict[Fold, list[int]]:
    """Indices of the frames of each fold, in order; see `folds_of`."""
    names = [reduced_formula(atoms) for atoms in frames]
    folds: dict[Fold, list[int]] = {"train": [], "val": [], "test": []}
    for index, fold in enumerate(folds_of(names, val=val, test=test, seed=seed, by=by)):
        folds[fold].append(index)
    return folds


def _check_shares(val: float, test: float) -> None:
    if val < 0 or test < 0 or val + test >= 1:
        raise ValueError(f"val and test must be >= 0 with a sum below 1, got {val} and {test}")
