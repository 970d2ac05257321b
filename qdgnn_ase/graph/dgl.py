"""AtomGraph <-> DGL graph. Only this file and ``nn/segment.py`` import DGL, both lazily."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from qdgnn_ase.graph.atom_graph import AtomGraph

if TYPE_CHECKING:
    from dgl import DGLGraph

_NODE_DATA = ("numbers", "positions", "cell", "pbc")


def to_dgl(graph: AtomGraph) -> DGLGraph:
    """DGL graph with node data numbers, positions, cell, pbc and edge data edge_shift.

    Occupancies and conditions, where there are any, are node data too.

    ``cell``, ``pbc`` and conditions are repeated on every atom, so that ``dgl.batch`` keeps them.

    Raises:
        ImportError: If DGL is not installed.
    """
    os.environ.setdefault("DGLBACKEND", "pytorch")
    import dgl

    source, destination = graph.edge_index
    result = dgl.graph((source, destination), num_nodes=len(graph.numbers))
    result.set_batch_num_nodes(graph.n_atoms)
    edge_graph = graph.batch.index_select(0, destination)
    result.set_batch_num_edges(torch.bincount(edge_graph, minlength=graph.n_graphs))
    result.ndata["numbers"] = graph.numbers
    result.ndata["positions"] = graph.positions
    result.ndata["cell"] = graph.cell.index_select(0, graph.batch)
    result.ndata["pbc"] = graph.pbc.index_select(0, graph.batch)
    if graph.occupancies is not None:
        result.ndata["occupancies"] = graph.occupancies
    if graph.conditions is not None:
        result.ndata["conditions"] = graph.conditions.index_select(0, graph.batch)
    result.edata["edge_shift"] = graph.edge_shift
    return result


def from_dgl(graph: DGLGraph) -> AtomGraph:
    """Inverse of :func:`to_dgl`; also takes the output of ``dgl.batch``.

    Raises:
        ValueError: If node or edge data is missing.
    """
    missing = [key for key in _NODE_DATA if key not in graph.ndata]
    missing += ["edge_shift"] if "edge_shift" not in graph.edata else []
    if missing:
        raise ValueError(
            f"DGL graph must carry {_NODE_DATA} and edge_shift, got none of {missing}; "
            "make it with AtomGraph.to_dgl()"
        )
    source, destination = graph.edges(order="eid")
    order = torch.argsort(destination, stable=True)
    n_atoms = graph.batch_num_nodes().long()
    first = torch.cumsum(n_atoms, dim=0) - n_atoms
    conditions = graph.ndata.get("conditions")
    return AtomGraph(
        numbers=graph.ndata["numbers"],
        positions=graph.ndata["positions"],
        cell=graph.ndata["cell"][first],
        edge_index=torch.stack([source, destination]).long()[:, order],
        edge_shift=graph.edata["edge_shift"][order],
        batch=torch.repeat_interleave(torch.arange(len(n_atoms), device=n_atoms.device), n_atoms),
        pbc=graph.ndata["pbc"][first],
        n_atoms=n_atoms,
        occupancies=graph.ndata.get("occupancies"),
        conditions=None if conditions is None else conditions[first],
    )
