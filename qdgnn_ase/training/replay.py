"""Frames of an earlier training, to be trained along so that a model does not forget them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from qdgnn_ase.data.io import labels, read_structures
from qdgnn_ase.data.splits import folds_of, reduced_formula
from qdgnn_ase.quantum.references import composition_matrix

Array = NDArray[np.float64]


def replay_frames(
    files: Sequence[str | Path],
    train_config: Mapping[str, Any],
    change: Array,
    n: int,
    seed: int = 0,
) -> list[Atoms]:
    """Random frames of the training fold of an earlier run, on the energy scale of a new one.

    Args:
        files: Files of the earlier run.
        train_config: Its config as its checkpoint holds it: split and limit of size.
        change: (95,), new minus old reference energy of each element, eV.
        n: Frames to take, or all if there are fewer.
        seed: Of the choice.
    """
    frames: list[Atoms] = []
    for name in files:
        every = read_structures(name)
        folds = folds_of(
            [reduced_formula(atoms) for atoms in every],
            val=train_config["val"],
            test=train_config["test"],
            seed=train_config["split_seed"],
            by=train_config.get("split_by", "formula"),
        )
        frames += [
            atoms
            for atoms, fold in zip(every, folds, strict=True)
            if fold == "train" and len(atoms) <= train_config["max_atoms"]
        ]
    chosen = np.random.default_rng(seed).permutation(len(frames))[:n]
    return [_moved(frames[index], change) for index in sorted(chosen)]


def _moved(atoms: Atoms, change: Array) -> Atoms:
    """Bare copy with the known labels; the energy follows the references."""
    values = labels(atoms)
    shift = float((composition_matrix([atoms.numbers]) @ change)[0])
    moved = {
        "energy": values["energy"] + shift,
        "forces": values["forces"],
        "stress": full_3x3_to_voigt_6_stress(values["stress"]),
    }
    known: dict[str, Any] = {k: v for k, v in moved.items() if np.isfinite(v).all()}
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.calc = SinglePointCalculator(bare, **known)
    return bare
