"""Bonds against ASE's neighbour list."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list

from qdgnn_ase.graph import collate, from_atoms
from qdgnn_ase.inference.explain.bonds import bonds_of

CUTOFF = 4.2


def test_bonds_are_the_pairs_of_ase(structure: Atoms) -> None:
    bonds = bonds_of(from_atoms(structure, CUTOFF, torch.float64))
    i, j, vectors = neighbor_list("ijD", structure, CUTOFF)
    assert 2 * len(bonds) == len(i)
    ours = np.concatenate(
        [
            np.column_stack([bonds.atoms, bonds.vectors]),
            np.column_stack([bonds.atoms[:, ::-1], -bonds.vectors]),
        ]
    )
    theirs = np.column_stack([i, j, vectors])
    order, other = (np.lexsort(rows.round(4).T) for rows in (ours, theirs))
    np.testing.assert_allclose(ours[order], theirs[other], atol=1e-6)


def test_each_bond_is_two_edges(structure: Atoms) -> None:
    graph = from_atoms(structure, CUTOFF, torch.float64)
    bonds = bonds_of(graph)
    assert (np.bincount(bonds.of_edge, minlength=len(bonds)) == 2).all()
    lengths = graph.edge_vectors().norm(dim=1).numpy()
    np.testing.assert_allclose(bonds.lengths[bonds.of_edge], lengths, atol=1e-9)


def test_names_and_halves(structures: dict[str, Atoms]) -> None:
    bonds = bonds_of(from_atoms(structures["rocksalt"], 3.5, torch.float64))
    assert set(bonds.pairs) == {"Cl-Na"}
    scores = np.arange(len(bonds), dtype=float)
    halves = bonds.halves(scores, len(structures["rocksalt"]))
    assert halves.sum() == pytest.approx(scores.sum())
    mine = (bonds.atoms == 3).any(axis=1)
    assert halves[3] == pytest.approx(scores[mine].sum() / 2)


def test_own_image_counts_whole() -> None:
    bonds = bonds_of(from_atoms(Atoms("Po", cell=[3.3] * 3, pbc=True), 3.4, torch.float64))
    assert len(bonds) == 3
    assert bonds.halves(np.ones(3), 1) == pytest.approx([3.0])


def test_a_batch_is_refused(structures: dict[str, Atoms]) -> None:
    graph = from_atoms(structures["hcp"], CUTOFF)
    with pytest.raises(ValueError, match="one structure, got a batch of 2"):
        bonds_of(collate([graph, graph]))
