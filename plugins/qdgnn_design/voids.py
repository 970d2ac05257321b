"""Interstitial sites: vertices of the Voronoi diagram of the atoms."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.geometry import get_distances
from numpy.typing import NDArray

Array = NDArray[np.float64]


def voronoi_voids(atoms: Atoms, merge: float = 0.5) -> tuple[Array, Array]:
    """Places that are locally as far from the atoms as can be, widest first.

    Args:
        atoms: Structure with three cell vectors, periodic in all directions.
        merge: Å; of vertices closer than this the widest stays.

    Returns:
        Positions (n_voids, 3) and distances to the nearest atom (n_voids,), Å.

    Raises:
        ValueError: If the structure is not periodic in three directions.
    """
    if atoms.cell.rank < 3 or not atoms.pbc.all():
        raise ValueError(f"voids need a cell periodic in 3 directions, got pbc {atoms.pbc}")
    from scipy.spatial import Voronoi

    shifts = np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T
    images = (atoms.get_scaled_positions()[None] + shifts[:, None]).reshape(-1, 3)
    vertices = Voronoi(images @ atoms.cell.array).vertices
    fractional = np.linalg.solve(atoms.cell.array.T, vertices.T).T
    inside = ((fractional > -1e-6) & (fractional < 1 - 1e-6)).all(axis=1)
    positions = np.round(fractional[inside], 6) @ atoms.cell.array
    radii = _distances(positions, atoms.positions, atoms).min(axis=1)
    order = np.lexsort((*np.round(positions, 4).T, -np.round(radii, 4)))
    return _merged(positions[order], radii[order], atoms, merge)


def _merged(positions: Array, radii: Array, atoms: Atoms, merge: float) -> tuple[Array, Array]:
    kept: list[int] = []
    between = _distances(positions, positions, atoms)
    for index in range(len(positions)):
        if not kept or between[index, kept].min() > merge:
            kept.append(index)
    return positions[kept], radii[kept]


def _distances(first: Array, second: Array, atoms: Atoms) -> Array:
    lengths: Array = get_distances(first, second, cell=atoms.cell, pbc=atoms.pbc)[1]
    return lengths
