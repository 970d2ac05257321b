"""What an element's energy is taken of: its crystal, or its molecule where that is a gas.

Simple crystals are at their own equilibrium volume in the functional. The others are at the
geometry of experiment (`CRYSTALS`), for want of a relaxation: a uniform strain would stretch bonds
and gaps between molecules or layers alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import atomic_numbers, reference_states
from ase.spacegroup import crystal

MOLECULES = {"H": "H2", "N": "N2", "O": "O2", "F": "F2", "Cl": "Cl2"}
"""Elements whose reference is a molecule of two atoms."""
STRAINS = np.array([-0.03, -0.01, 0.01, 0.03, 0.05])
"""Linear strains of a simple crystal, about the lattice parameter of experiment."""
_LATTICES = ("fcc", "bcc", "hcp", "diamond", "bct", "rhombohedral")
"""Simple ones, which ASE builds."""
_HEXAGONAL = (1.5, 2.0)
"""c/a of hcp; ASE calls other stackings of layers by that name too."""
_RING = (2.055, np.radians(108.0))
"""Å and radians. Bond and angle of the ring S8 (crown, D4d) in the gas."""

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Crystal:
    """A crystal of experiment."""

    space_group: int
    cell: Point
    """a, b, c in Å; gamma is 120 degrees in trigonal and hexagonal groups, else all are 90."""
    sites: tuple[Point, ...]
    """Fractional, of the inequivalent atoms."""


CRYSTALS = {
    "B": Crystal(
        166, (4.908, 4.908, 12.567), ((0.1187, -0.1187, 0.8912), (0.1961, -0.1961, 0.0241))
    ),
    "C": Crystal(194, (2.461, 2.461, 6.709), ((0.0, 0.0, 0.25), (1 / 3, 2 / 3, 0.25))),
    "P": Crystal(64, (3.3136, 10.478, 4.3763), ((0.0, 0.10168, 0.08056),)),
    "Ga": Crystal(64, (4.5192, 7.6586, 4.5258), ((0.0, 0.1549, 0.081),)),
    "Se": Crystal(152, (4.3662, 4.3662, 4.9536), ((0.2254, 0.0, 1 / 3),)),
    "Br": Crystal(64, (6.67, 4.48, 8.72), ((0.0, 0.135, 0.11),)),
    "Te": Crystal(152, (4.4572, 4.4572, 5.929), ((0.2633, 0.0, 1 / 3),)),
    "I": Crystal(64, (7.136, 4.686, 9.784), ((0.0, 0.15434, 0.11741),)),
}
"""alpha-B, graphite, black P, alpha-Ga, chains of Se and Te, molecular Br2 and I2."""


def reference_structures(symbol: str) -> list[Atoms]:
    """The element's molecule, its crystal at several volumes, or that of experiment.

    Raises:
        ValueError: If the element has none here.
    """
    if symbol in MOLECULES:
        return [molecule(MOLECULES[symbol])]
    if symbol == "S":
        return [sulfur_ring()]
    if symbol in CRYSTALS:
        return [crystal_of(symbol)]
    state = reference_states[atomic_numbers[symbol]] or {}
    lattice, low, high = state.get("symmetry"), *_HEXAGONAL
    if lattice not in _LATTICES or (lattice == "hcp" and not low < state["c/a"] < high):
        raise ValueError(
            f"element must be one of {', '.join(MOLECULES)}, S, {', '.join(CRYSTALS)} or "
            f"crystallise as one of {', '.join(_LATTICES)}, got {symbol}; its reference is not "
            "defined here"
        )
    simple = bulk(symbol)
    return [_strained(simple, strain) for strain in STRAINS]


def crystal_of(symbol: str) -> Atoms:
    """Primitive cell of one of `CRYSTALS`."""
    known = CRYSTALS[symbol]
    gamma = 120.0 if 143 <= known.space_group <= 194 else 90.0
    atoms: Atoms = crystal(
        [symbol] * len(known.sites),
        known.sites,
        spacegroup=known.space_group,
        cellpar=[*known.cell, 90.0, 90.0, gamma],
        primitive_cell=True,
    )
    atoms.info.clear()  # the space group
    return atoms


def sulfur_ring() -> Atoms:
    """S8, the crown of eight atoms."""
    bond, angle = _RING
    radius = np.sqrt(2) * bond * np.sin(angle / 2)
    height = np.sqrt(bond**2 - (2 - np.sqrt(2)) * radius**2) / 2
    turns = np.arange(8) * np.pi / 4
    heights = height * (-1.0) ** np.arange(8)
    return Atoms("S8", np.column_stack([radius * np.cos(turns), radius * np.sin(turns), heights]))


def volume_at(symbol: str, strain: float) -> float:
    """Å^3 per atom of a simple crystal."""
    simple = bulk(symbol)
    return float(simple.get_volume() / len(simple) * (1 + strain) ** 3)


def _strained(atoms: Atoms, strain: float) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array * (1 + strain), scale_atoms=True)
    return copy
