"""AtomGraph <-> DGL: round trips, dgl.batch, a model at DGL's public edge."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from ase import Atoms

from qdgnn_ase.graph import AtomGraph, collate, from_atoms, site_graph
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.segment import has_dgl

needs_dgl = pytest.mark.skipif(not has_dgl(), reason="DGL has no wheel for this Python")


def assert_equal(got: AtomGraph, expected: AtomGraph) -> None:
    assert got.tensors().keys() == expected.tensors().keys()
    for name, b in expected.tensors().items():
        a = got.tensors()[name]
        assert torch.equal(a, b), name
        assert a.dtype == b.dtype, name


@needs_dgl
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(structures: dict[str, Atoms], dtype: torch.dtype) -> None:
    for atoms in structures.values():
        graph = from_atoms(atoms, 4.0, dtype)
        assert_equal(AtomGraph.from_dgl(graph.to_dgl()), graph)


@needs_dgl
def test_round_trip_of_occupancies(partial: dict[str, Atoms]) -> None:
    graph = collate([site_graph(atoms, 4.0) for atoms in partial.values()])
    assert graph.occupancies is not None
    assert_equal(AtomGraph.from_dgl(graph.to_dgl()), graph)


@needs_dgl
def test_round_trip_of_a_batch(structures: dict[str, Atoms]) -> None:
    graph = collate([from_atoms(atoms, 4.0) for atoms in structures.values()])
    dgl_graph = graph.to_dgl()
    assert dgl_graph.batch_size == graph.n_graphs
    assert_equal(AtomGraph.from_dgl(dgl_graph), graph)


@needs_dgl
def test_dgl_batch_is_collate(structures: dict[str, Atoms]) -> None:
    import dgl

    graphs = [from_atoms(atoms, 4.0) for atoms in structures.values()]
    batch = dgl.batch([graph.to_dgl() for graph in graphs])
    assert_equal(AtomGraph.from_dgl(batch), collate(graphs))
    for part, graph in zip(dgl.unbatch(batch), graphs, strict=True):
        assert_equal(AtomGraph.from_dgl(part), graph)


@needs_dgl
def test_edges_in_another_order_are_sorted(structures: dict[str, Atoms]) -> None:
    import dgl

    graph = from_atoms(structures["skewed"], 4.0)
    mixed = dgl.edge_subgraph(graph.to_dgl(), torch.randperm(graph.n_edges), relabel_nodes=False)
    back = AtomGraph.from_dgl(mixed)
    assert bool((back.edge_index[1].diff() >= 0).all())
    lengths = [g.edge_vectors().norm(dim=1).sort().values for g in (back, graph)]
    torch.testing.assert_close(*lengths)


@needs_dgl
def test_model_takes_a_dgl_graph(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    graph = collate([from_atoms(atoms, 4.5, torch.float64) for atoms in structures.values()])
    with torch.no_grad():
        torch.testing.assert_close(model64(graph.to_dgl())["energy"], model64(graph)["energy"])


@needs_dgl
@pytest.mark.parametrize("name", ["numbers", "cell", "edge_shift"])
def test_missing_data_is_named(structures: dict[str, Atoms], name: str) -> None:
    dgl_graph: Any = from_atoms(structures["rocksalt"], 4.0).to_dgl()
    (dgl_graph.edata if name == "edge_shift" else dgl_graph.ndata).pop(name)
    with pytest.raises(ValueError, match=rf"got none of \['{name}'\]; make it with"):
        AtomGraph.from_dgl(dgl_graph)


def test_without_dgl_the_conversion_raises(
    structures: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dgl", None)
    with pytest.raises(ImportError, match="dgl"):
        from_atoms(structures["water"], 4.0).to_dgl()
