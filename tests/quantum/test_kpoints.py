"""Meshes of k-points: even, by density, half of them by time reversal."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from qdgnn_ase.graph import from_atoms
from qdgnn_ase.quantum.kpoints import Mesh, kpoint_mesh, kpoints


def mesh_of(atoms: Atoms) -> Mesh:
    graph = from_atoms(atoms, 4.0)
    return kpoint_mesh(graph.cell[0], graph.pbc[0])


@pytest.mark.parametrize(
    ("atoms", "mesh"),
    [
        (bulk("Si"), (4, 4, 4)),
        (bulk("NaCl", "rocksalt", a=5.64, cubic=True), (2, 2, 2)),
        (bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 2, 2), (1, 1, 1)),  # 64 atoms
        (bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 1, 1), (1, 2, 2)),
        (fcc111("Al", (1, 1, 3), vacuum=5.0), (6, 6, 1)),
        (molecule("H2O"), (1, 1, 1)),
    ],
)
def test_mesh(atoms: Atoms, mesh: Mesh) -> None:
    assert mesh_of(atoms) == mesh


def test_mesh_of_a_skewed_cell() -> None:
    """Heights count, not lengths: the same lattice gives about the same number of points."""
    atoms = bulk("Cu", cubic=True)
    skewed = atoms.copy()
    skewed.set_cell(np.array([[1, 0, 0], [3, 1, 0], [0, -2, 1]]) @ atoms.cell.array)
    assert mesh_of(skewed) >= mesh_of(atoms) == (4, 4, 4)
    turned = atoms.copy()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    assert mesh_of(turned) == mesh_of(atoms)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2), (4, 2, 1), (3, 4, 5)])
def test_half_a_mesh_and_its_mirror_are_the_mesh(mesh: Mesh) -> None:
    points, weights = kpoints(mesh)
    assert weights.sum().item() == pytest.approx(1.0)
    counts = dict.fromkeys(itertools.product(*(range(n) for n in mesh)), 0.0)
    for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
        mirror = tuple(-x % n for x, n in zip(point, mesh, strict=True))
        counts[tuple(point)] += weight / 2
        counts[mirror] += weight / 2
    np.testing.assert_allclose(list(counts.values()), 1 / np.prod(mesh))
    assert len(points) <= np.prod(mesh) / 2 + 4


@pytest.mark.parametrize("mesh", [(2, 0, 1), (2, 2), (2, 2.5, 2)])
def test_wrong_meshes(mesh: Mesh) -> None:
    with pytest.raises(ValueError, match="at least one k-point"):
        kpoints(mesh)


def test_mesh_ignores_gradients() -> None:
    cell = torch.eye(3).requires_grad_(True)
    assert kpoint_mesh(4 * cell, torch.tensor([True] * 3)) == (4, 4, 4)
