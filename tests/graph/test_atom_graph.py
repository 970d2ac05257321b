"""AtomGraph and collate: a batch is its structures side by side."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from ase import Atoms

from qdgnn_ase.graph import AtomGraph, collate, from_atoms

NAMES = [field.name for field in fields(AtomGraph) if field.default is not None]


@pytest.fixture
def singles(structures: dict[str, Atoms]) -> list[AtomGraph]:
    return [from_atoms(atoms, 4.0, torch.float64) for atoms in structures.values()]


def test_collate_keeps_every_structure(singles: list[AtomGraph]) -> None:
    batch = collate(singles)
    sizes, edges = batch.n_atoms.tolist(), [graph.n_edges for graph in singles]
    assert batch.n_graphs == len(singles)
    assert batch.n_edges == sum(edges)
    starts = torch.cumsum(batch.n_atoms, 0) - batch.n_atoms
    for index, graph in enumerate(singles):
        edge_index = batch.edge_index.split(edges, dim=1)[index] - starts[index]
        assert torch.equal(edge_index, graph.edge_index)
        assert torch.equal(batch.edge_shift.split(edges)[index], graph.edge_shift)
        assert torch.equal(batch.positions.split(sizes)[index], graph.positions)
        assert torch.equal(batch.numbers.split(sizes)[index], graph.numbers)
        assert torch.equal(batch.cell[index], graph.cell[0])
        assert torch.equal(batch.pbc[index], graph.pbc[0])
        assert bool((batch.batch.split(sizes)[index] == index).all())


def test_collate_keeps_vectors_and_order(singles: list[AtomGraph]) -> None:
    batch = collate(singles)
    assert torch.equal(batch.edge_vectors(), torch.cat([g.edge_vectors() for g in singles]))
    assert bool((batch.edge_index[1].diff() >= 0).all())


def test_collate_of_batches_is_one_batch(singles: list[AtomGraph]) -> None:
    nested, flat = collate([collate(singles[:4]), collate(singles[4:])]), collate(singles)
    for name in NAMES:
        assert torch.equal(getattr(nested, name), getattr(flat, name)), name


def test_collate_of_one_is_that_one(singles: list[AtomGraph]) -> None:
    for name in NAMES:
        assert torch.equal(getattr(collate(singles[:1]), name), getattr(singles[0], name)), name


def test_collate_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="needs at least one graph, got none"):
        collate([])


def test_to_changes_floating_point_tensors_only(singles: list[AtomGraph]) -> None:
    graph, moved = singles[0], singles[0].to(dtype=torch.float32)
    for name in NAMES:
        before, after = getattr(graph, name), getattr(moved, name)
        assert after.dtype == (torch.float32 if before.is_floating_point() else before.dtype), name


def test_is_frozen(singles: list[AtomGraph]) -> None:
    with pytest.raises(FrozenInstanceError):
        singles[0].positions = singles[0].positions + 1.0  # type: ignore[misc]


def test_volumes(structures: dict[str, Atoms]) -> None:
    batch = collate([from_atoms(atoms, 2.0, torch.float64) for atoms in structures.values()])
    expected = [
        atoms.get_volume() if atoms.cell.rank == 3 else torch.nan for atoms in structures.values()
    ]
    torch.testing.assert_close(
        batch.volumes(), torch.tensor(expected, dtype=torch.float64), equal_nan=True
    )
