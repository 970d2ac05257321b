"""Changes of a supercell beyond vibrations: strain, vacancies, antisites, solid solutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from ase import Atoms
from numpy.random import Generator

from qdgnn_ase import is_plausible, strain, substitute, swap, vacancy

CHANGES: dict[str, Callable[[Atoms, Generator], Atoms]] = {
    "strain": partial(strain, volume=0.06, shear=0.03),
    "vacancy": vacancy,
    "antisite": swap,
    "solid_solution": partial(substitute, whole_species=False),
}
"""Each changes one site or the cell; solid solutions keep the usual charge of the site, since the
elements of a group of `qdgnn_ase.substitute` replace each other at the same oxidation state."""


def check_changes(changes: Sequence[str]) -> None:
    """Refuse names that are not of `CHANGES`.

    Raises:
        ValueError: With the names that are.
    """
    if unknown := sorted(set(changes) - set(CHANGES)):
        raise ValueError(f"changes must be of {', '.join(CHANGES)}, got {', '.join(unknown)}")


def vary(frames: Sequence[Atoms], changes: Sequence[str], seed: int) -> list[Atoms]:
    """Frames with every change made once, in order; one named twice is made twice.

    Args:
        frames: Displaced supercells; left as they are.
        changes: Names of `CHANGES`.
        seed: Seed; the sites depend on it and on the frame's place.

    Raises:
        ValueError: If a change is unknown or impossible.
    """
    check_changes(changes)
    varied = []
    for index, frame in enumerate(frames):
        rng = np.random.default_rng([seed, index])
        atoms = frame
        for name in changes:
            atoms = CHANGES[name](atoms, rng)
        label = "+".join(changes)
        notes = {"changes": label, "change_seed": seed}
        atoms.info = frame.info | notes
        if "key" in frame.info:
            atoms.info["key"] = f"{frame.info['key']}-{label}-s{seed}"
        varied.append(atoms)
    return varied


def plausible(frames: Sequence[Atoms]) -> list[Atoms]:
    """Frames whose atoms keep their distance, see `qdgnn_ase.is_plausible`."""
    return [atoms for atoms in frames if is_plausible(atoms)]
