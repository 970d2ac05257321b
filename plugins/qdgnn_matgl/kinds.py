"""Kinds of frames: crystals strained, rattled, squeezed, substituted, relaxing, in hot dynamics."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.neighborlist import neighbor_list
from ase.optimize import FIRE2
from numpy.random import Generator

from qdgnn_ase import (
    ExtrapolationWarning,
    QDGNNCalculator,
    molecular_dynamics,
    rattle,
    scale_volume,
    size_ratio,
    strain,
    substitute,
)

_CLOSE_CUTOFF = 4.0
"""Å. An atom without a neighbour this near stays where it is in `close`."""


def strained(atoms: Atoms, rng: Generator) -> Atoms:
    """Strained alone, volume within 8 % and shear up to 0.03: elastic constants."""
    return strain(atoms, rng, 0.08, 0.03)


def near(atoms: Atoms, rng: Generator) -> Atoms:
    """Rattled by up to 0.05 Å and strained by up to 2 % in volume."""
    return rattle(strain(atoms, rng, 0.02, 0.01), rng, rng.uniform(0.0, 0.05))


def rattled(atoms: Atoms, rng: Generator) -> Atoms:
    """Rattled by 0.05-0.25 Å, volume within 10 %, shear up to 0.05."""
    return rattle(strain(atoms, rng, 0.10, 0.05), rng, rng.uniform(0.05, 0.25))


def hot(atoms: Atoms, rng: Generator) -> Atoms:
    """Rattled by 0.1-0.35 Å at 65-108 % of the volume: forces and pressures as in hot MD."""
    squeezed = scale_volume(atoms, rng.uniform(0.65, 1.08))
    return rattle(strain(squeezed, rng, 0.0, 0.08), rng, rng.uniform(0.10, 0.35))


def substituted(atoms: Atoms, rng: Generator) -> Atoms:
    """One element or one site replaced, volume by covalent radii within 5 %, then `near`."""
    changed = substitute(atoms, rng, whole_species=bool(rng.random() < 0.7))
    changed = scale_volume(changed, size_ratio(changed, atoms))
    return rattle(strain(changed, rng, 0.05, 0.02), rng, rng.uniform(0.0, 0.15))


def relaxing(atoms: Atoms, rng: Generator) -> Atoms:
    """A `substituted` crystal after 2-15 steps of relaxation, cell included.

    The default weights drive it: frames as in the relaxations that databases are made of.
    """
    frame = substituted(atoms, rng)
    frame.calc = driver()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        FIRE2(FrechetCellFilter(frame), logfile=None).run(fmax=0.02, steps=int(rng.integers(2, 16)))
    frame.calc = None
    return frame


def squeezed(atoms: Atoms, rng: Generator) -> Atoms:
    """Compressed to 60-90 % along a random direction, up to 20 % wider across, then rattled."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    across = rng.uniform(1.0, 1.2)
    deformation = across * np.eye(3) + (rng.uniform(0.6, 0.9) - across) * np.outer(axis, axis)
    changed = atoms.copy()
    changed.set_cell(atoms.cell @ deformation, scale_atoms=True)
    return rattle(changed, rng, rng.uniform(0.0, 0.1))


def close(atoms: Atoms, rng: Generator) -> Atoms:
    """As `near`, but one to three atoms moved to 50-85 % of their shortest distance."""
    changed = near(atoms, rng)
    for i in rng.choice(len(atoms), size=min(len(atoms), int(rng.integers(1, 4))), replace=False):
        first, lengths, vectors = neighbor_list("idD", changed, _CLOSE_CUTOFF)
        if (mine := np.flatnonzero(first == i)).size:
            to_nearest = vectors[mine[lengths[mine].argmin()]]
            changed.positions[i] += (1 - rng.uniform(0.5, 0.85)) * to_nearest
    return changed


def dynamics(atoms: Atoms, rng: Generator) -> Atoms:
    """After 80 fs of constant-energy dynamics at 300-2000 K, at 85-110 % of the volume.

    The forces are those of the default weights: frames of hot crystals, not labels.
    """
    frame = strain(scale_volume(atoms, rng.uniform(0.85, 1.10)), rng, 0.0, 0.03)
    frame.calc = driver()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        molecular_dynamics(
            frame,
            temperature=2 * rng.uniform(300.0, 2000.0),  # half of it becomes potential energy
            steps=40,
            timestep_fs=2.0,
            ensemble="nve",
            interval=40,
            seed=int(rng.integers(2**31)),
        )
    frame.calc = None
    del frame.arrays["momenta"]
    return frame


@cache
def driver() -> Calculator:
    """The default weights."""
    return QDGNNCalculator()


KINDS: dict[str, Callable[[Atoms, Generator], Atoms]] = {
    "strained": strained,
    "near": near,
    "rattled": rattled,
    "hot": hot,
    "substituted": substituted,
    "dynamics": dynamics,
    "squeezed": squeezed,
    "close": close,
    "relaxing": relaxing,
}
