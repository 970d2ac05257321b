"""Equivalent sites, and keys that are equal for equivalent structures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import spglib
from ase import Atoms
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SYMPREC = 1e-3
"""Å, tolerance of positions."""
_DIGITS = 4
"""Of fractional coordinates and of cell vectors (Å) in keys."""


def orbits(atoms: Atoms) -> list[list[int]]:
    """Sites that the space group maps onto each other, in order of their first site."""
    classes = equivalent_sites(atoms)
    return [np.flatnonzero(classes == first).tolist() for first in np.unique(classes)]


def equivalent_sites(atoms: Atoms) -> Index:
    """First equivalent site of every site, (n_atoms,); itself where spglib finds no symmetry."""
    if not atoms.pbc.all():
        return np.arange(len(atoms))
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    dataset = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
    return np.arange(len(atoms)) if dataset is None else np.array(dataset.equivalent_atoms, int)


def permutations(atoms: Atoms, kinds: Sequence[int]) -> Index:
    """Distinct permutations of the sites by the symmetry of the lattice of ``kinds``.

    Args:
        atoms: Sites and cell; the elements do not matter.
        kinds: Sites of one kind may take the same elements, (n_atoms,).

    Returns:
        (n_operations, n_atoms); ``numbers[row]`` is an equivalent decoration.
    """
    identity = np.arange(len(atoms))[None]
    if not atoms.pbc.all():
        return identity
    fractional = atoms.get_scaled_positions()
    cell = (atoms.cell.array, fractional, np.asarray(kinds) + 1)
    symmetry = spglib.get_symmetry(cell, symprec=SYMPREC)
    if symmetry is None:
        return identity
    rows = [
        _images(fractional, rotation, translation)
        for rotation, translation in zip(
            symmetry["rotations"], symmetry["translations"], strict=True
        )
    ]
    return np.unique(np.array(rows), axis=0)


def _images(fractional: Array, rotation: Array, translation: Array) -> Index:
    """Site that each site is mapped onto."""
    moved = fractional @ rotation.T + translation
    difference = moved[:, None] - fractional[None]
    difference -= np.round(difference)
    nearest: Index = np.linalg.norm(difference, axis=2).argmin(axis=1)
    return nearest


def structure_key(atoms: Atoms, lattice: Atoms | None = None, rows: Index | None = None) -> str:
    """Hash of elements, sites and cell: equal for equivalent decorations of a lattice.

    Order of the atoms, images and rounding do not matter.

    Args:
        atoms: Structure.
        lattice: Where the atoms still stand on these sites in a cell of the same shape, the least
            of the equivalent decorations stands for all of them.
        rows: Permutations of the lattice, from `permutations`.
    """
    numbers, fractional = atoms.numbers, atoms.get_scaled_positions(wrap=False)
    if lattice is not None and rows is not None and _is_decoration(atoms, fractional, lattice):
        decorations = numbers[rows]
        numbers = decorations[np.lexsort(decorations.T[::-1])[0]]
    fractional = _rounded(fractional)
    order = np.lexsort((*fractional.T, numbers))
    cell = np.round(atoms.cell.array, _DIGITS) + 0.0  # no negative zero
    parts = (numbers[order].astype(np.int64), fractional[order], cell, atoms.pbc)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:24]


def _rounded(fractional: Array) -> Array:
    wrapped: Array = np.round(fractional, _DIGITS) % 1.0 + 0.0
    return wrapped


def _is_decoration(atoms: Atoms, fractional: Array, lattice: Atoms) -> bool:
    """Same sites in the same order, in a cell that is scaled but not distorted."""
    if len(atoms) != len(lattice):
        return False
    moved = fractional - lattice.get_scaled_positions(wrap=False)
    scale = (atoms.cell.volume / lattice.cell.volume) ** (1 / 3)
    same_shape = np.allclose(atoms.cell.array, scale * lattice.cell.array, atol=SYMPREC)
    return bool(same_shape and np.abs(moved - np.round(moved)).max() < 10.0**-_DIGITS)
