"""Crystals of the study of arms: covalent, ionic, and two soft perovskites.

The lattice constants are starting points; the calculator relaxes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from qdgnn_phonons.stability import Policy


@dataclass(frozen=True, slots=True)
class Family:
    """A crystal and the supercell in which it is displaced."""

    atoms: Atoms
    supercell: tuple[int, int, int] | None
    """Multiples; None is at least 10 Å."""
    policy: Policy
    """What to do with modes without a restoring force; the soft crystals have them."""
    cutoff: float = 4.0
    """Å, of the models; in the perovskites anions meet beyond 4 Å."""


def families() -> dict[str, Family]:
    """Silicon, rock salt, a cubic anti-perovskite and a cubic perovskite."""
    silver = _cubic(["S", "Br", "Ag"], [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0.5, 0)], 4.85)
    cesium = _cubic(["Cs", "Pb", "I"], [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0)], 6.29)
    return {
        "Si": Family(bulk("Si", a=5.43), (2, 2, 2), "refuse"),
        "NaCl": Family(bulk("NaCl", "rocksalt", a=5.64), (2, 2, 2), "refuse"),
        "Ag3SBr": Family(silver, (2, 2, 2), "absolute", cutoff=4.5),
        "CsPbI3": Family(cesium, (2, 2, 2), "absolute", cutoff=5.0),
    }


def _cubic(symbols: list[str], sites: list[tuple[float, float, float]], a: float) -> Atoms:
    """Crystal of space group Pm-3m."""
    atoms: Atoms = crystal(symbols, sites, spacegroup=221, cellpar=[a, a, a, 90, 90, 90])
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
