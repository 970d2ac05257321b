"""A family of crystals with the same sites, as numbers: elements on sites, lattice, displacements.

| part | shape | content |
|---|---|---|
| species | (n, n_sites) int64 | index of each site's element in `Prototype.elements` |
| geometry | (n, 6 + 3 n_sites) | ln lengths, cosines of the angles, fractional displacements |

The geometry is centred and scaled to unit variance. A shift of the origin is taken out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_SHIFT = 0.25
"""Largest fractional displacement of a site of a member of the family."""
_ROUNDS = 3
"""Of taking the mean of the members as the reference of the next round."""


@dataclass(frozen=True, slots=True, eq=False)
class Prototype:
    """What the members of a family have in common."""

    elements: tuple[str, ...]
    allowed: NDArray[np.bool_]
    """(n_sites, n_elements), which elements the members have on each site."""
    sites: Array
    """(n_sites, 3), mean fractional coordinates."""
    mean: Array
    """(n_geometry,), of the geometry before scaling."""
    width: Array
    """(n_geometry,), its standard deviation; 1 where it does not vary."""

    def encode(self, structures: Sequence[Atoms]) -> tuple[Integers, Array]:
        """Species and geometry of structures.

        Raises:
            KeyError: If an element is not one of the family's.
        """
        places = {symbol: k for k, symbol in enumerate(self.elements)}
        species = np.array([[places[s] for s in atoms.symbols] for atoms in structures])
        return species, (_geometry(structures, self.sites) - self.mean) / self.width

    def decode(self, species: Integers, geometry: Array) -> list[Atoms]:
        """Structures of species (n, n_sites) and scaled geometry (n, n_geometry)."""
        names = np.array(self.elements)
        values = geometry * self.width + self.mean
        return [_atoms(names[row], self.sites, v) for row, v in zip(species, values, strict=True)]


def find_prototype(structures: Sequence[Atoms]) -> tuple[Prototype, list[int]]:
    """The family that most structures belong to, and the indices of its members.

    The first structure gives number and order of the sites; members have as many, in the same
    order, each within `MAX_SHIFT` of its place.

    Raises:
        ValueError: If fewer than half of the structures belong to it.
    """
    if not structures:
        raise ValueError("structures must hold at least one, got none")
    n_sites = len(structures[0])
    same = [k for k, atoms in enumerate(structures) if len(atoms) == n_sites and atoms.pbc.all()]
    sites = structures[0].get_scaled_positions()
    members = same
    for _ in range(_ROUNDS):
        shifts = _displacements([structures[k] for k in same], sites)
        near = np.abs(shifts).max(axis=(1, 2)) < MAX_SHIFT
        members = [k for k, is_near in zip(same, near, strict=True) if is_near]
        if 2 * len(members) < len(structures):
            raise ValueError(
                f"at least half of the structures must have the {n_sites} sites of the first one, "
                f"in its order, got {len(members)} of {len(structures)}"
            )
        sites = (sites + shifts[near].mean(axis=0)) % 1.0
    chosen = [structures[k] for k in members]
    elements = tuple(sorted({symbol for atoms in chosen for symbol in atoms.symbols}))
    symbols = np.array([list(atoms.symbols) for atoms in chosen])
    allowed = (symbols[:, :, None] == np.array(elements)).any(axis=0)
    geometry = _geometry(chosen, sites)
    width = geometry.std(axis=0)
    width = np.where(width > 1e-6, width, 1.0)
    return Prototype(elements, allowed, sites, geometry.mean(axis=0), width), members


def _geometry(structures: Sequence[Atoms], sites: Array) -> Array:
    cells = np.array([atoms.cell.cellpar() for atoms in structures])
    angles = np.cos(np.radians(cells[:, 3:]))
    shifts = _displacements(structures, sites).reshape(len(structures), -1)
    return np.concatenate([np.log(cells[:, :3]), angles, shifts], axis=1)


def _displacements(structures: Sequence[Atoms], sites: Array) -> Array:
    """Fractional displacements from the sites, (n, n_sites, 3), mean 0 for each structure."""
    scaled = np.array([atoms.get_scaled_positions() for atoms in structures])
    shifts = scaled - sites
    # the first atom stands in for the origin, so that wrapping is not torn by a common shift
    shifts -= shifts[:, :1]
    shifts -= np.round(shifts)
    centred: Array = shifts - shifts.mean(axis=1, keepdims=True)
    return centred


def _atoms(symbols: Sequence[str], sites: Array, values: Array) -> Atoms:
    angles = np.degrees(np.arccos(np.clip(values[3:6], -0.9, 0.9)))
    cell = cellpar_to_cell([*np.exp(values[:3]), *angles])
    scaled = sites + values[6:].reshape(-1, 3)
    return Atoms(list(symbols), scaled_positions=scaled % 1.0, cell=cell, pbc=True)
