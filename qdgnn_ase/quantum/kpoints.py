"""Even meshes of k-points around Gamma, of equal density in reciprocal space.

A mesh of n points along an axis stands for n cells: bands of the cell at the mesh are the levels of
its n-fold supercell at Gamma. Odd meshes miss the zone boundary, where many band edges lie; an even
mesh around Gamma has both.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor

Mesh = tuple[int, int, int]

MESH_LENGTH = 10.0
"""Å. Axes at least this long (60 atoms or so) get Gamma only; shorter ones an even number of points
for as many cells as reach this length."""


def kpoint_mesh(cell: Tensor, pbc: Tensor, length: float = MESH_LENGTH) -> Mesh:
    """Points along each axis; 1 along axes that are not periodic.

    Args:
        cell: (3, 3), Å, rows are lattice vectors.
        pbc: (3,) bool, periodic axes.
        length: Å, that cells of a mesh reach together.
    """
    mesh = [1, 1, 1]
    axes = torch.nonzero(pbc).flatten().tolist()
    if axes:
        heights = 1 / torch.linalg.pinv(cell.detach().double()[axes]).norm(dim=0)
        for axis, height in zip(axes, heights.tolist(), strict=True):
            # 1e-3: rounding must not decide about a cell of just that height
            mesh[axis] = 1 if height > length - 1e-3 else 2 * ceil(length / (2 * height) - 1e-3)
    return mesh[0], mesh[1], mesh[2]


def kpoints(mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Half of a mesh around Gamma; the other half has the same levels (time reversal).

    Returns:
        (n_k, 3) fractional coordinates as integers over ``mesh``, and weights (n_k,) with sum 1.

    Raises:
        ValueError: If the mesh is not three positive integers.
    """
    mesh = checked_mesh(mesh)
    points = torch.cartesian_prod(*(torch.arange(n) for n in mesh))
    size = torch.tensor(mesh)
    rank = _rank(points, size)
    partner = _rank(-points % size, size)
    kept = rank <= partner
    weights = torch.where(rank == partner, 1.0, 2.0)[kept].double()
    return points[kept], weights / len(points)


def checked_mesh(mesh: Sequence[int]) -> Mesh:
    """The mesh as a tuple.

    Raises:
        ValueError: If it is not three positive integers.
    """
    if len(mesh) != 3 or any(n < 1 or n != int(n) for n in mesh):
        raise ValueError(f"mesh must hold at least one k-point along each of 3 axes, got {mesh}")
    return int(mesh[0]), int(mesh[1]), int(mesh[2])


def _rank(points: Tensor, size: Tensor) -> Tensor:
    return (points[:, 0] * size[1] + points[:, 1]) * size[2] + points[:, 2]
