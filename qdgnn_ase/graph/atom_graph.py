"""The one data type that flows through the package: a batch of periodic atom graphs.

Convention: ``r_ij = positions[j] - positions[i] + edge_shift @ cell`` for an edge from source j to
destination i; rows of ``cell`` are lattice vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import one_hot

if TYPE_CHECKING:
    from dgl import DGLGraph


N_COLUMNS = 119
"""Columns of occupancies: the atomic numbers 1 to 118, and 0, which is empty."""


@dataclass(frozen=True, slots=True, eq=False)
class AtomGraph:
    """A batch of atom graphs; one structure is a batch of one."""

    numbers: Tensor
    """(n_atoms,) int64, atomic numbers."""
    positions: Tensor
    """(n_atoms, 3) float, Å; wrapped into the cell along periodic axes."""
    cell: Tensor
    """(n_graphs, 3, 3) float, Å, rows are lattice vectors (zero where there is none)."""
    edge_index: Tensor
    """(2, n_edges) int64, [source j, destination i], sorted by destination."""
    edge_shift: Tensor
    """(n_edges, 3) float, integer image S of the source atom."""
    batch: Tensor
    """(n_atoms,) int64, graph of each atom."""
    pbc: Tensor
    """(n_graphs, 3) bool, periodic axes."""
    n_atoms: Tensor
    """(n_graphs,) int64, atoms of each graph."""
    occupancies: Tensor | None = None
    """(n_atoms, 119) float, share of each element (column = atomic number) on each site; None where
    every site is one element. See `qdgnn_ase.graph.sites`."""
    conditions: Tensor | None = None
    """(n_graphs, n_conditions) float, such as a temperature in K, in the order of the model's
    config; NaN = absent. None where there are none."""

    @property
    def n_graphs(self) -> int:
        """Number of structures in the batch."""
        return self.n_atoms.shape[0]

    @property
    def n_edges(self) -> int:
        """Number of directed edges in the batch."""
        return self.edge_index.shape[1]

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> AtomGraph:
        """Copy with all tensors on ``device`` and the floating-point ones as ``dtype``."""
        moved = {
            name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            for name, value in self.tensors().items()
        }
        return replace(self, **moved)

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are there, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def with_occupancies(self) -> AtomGraph:
        """The same graph with ``occupancies``, 1 for the element of each site if it had none."""
        if self.occupancies is not None:
            return self
        whole = one_hot(self.numbers, N_COLUMNS).to(self.positions.dtype)
        return replace(self, occupancies=whole)

    def edge_vectors(self) -> Tensor:
        """Vectors r_ij in Å from destination i to the image of source j, (n_edges, 3)."""
        source, destination = self.edge_index
        if self.n_graphs == 1:
            image = self.edge_shift @ self.cell[0]
        else:
            cell = self.cell.index_select(0, self.batch.index_select(0, destination))
            image = torch.einsum("es,esc->ec", self.edge_shift, cell)
        return (
            self.positions.index_select(0, source)
            - self.positions.index_select(0, destination)
            + image
        )

    def volumes(self) -> Tensor:
        """Cell volumes in Å^3, (n_graphs,); NaN where the lattice vectors span none."""
        volume: Tensor = torch.linalg.det(self.cell).abs()
        rounding = 1e-6 * self.cell.norm(dim=2).prod(dim=1)
        return volume.masked_fill(volume <= rounding, torch.nan)

    def to_dgl(self) -> DGLGraph:
        """The same batch as a DGL graph (see ``qdgnn_ase.graph.dgl``)."""
        from qdgnn_ase.graph.dgl import to_dgl

        return to_dgl(self)

    @staticmethod
    def from_dgl(graph: DGLGraph) -> AtomGraph:
        """Inverse of :meth:`to_dgl`."""
        from qdgnn_ase.graph.dgl import from_dgl

        return from_dgl(graph)


def collate(graphs: Sequence[AtomGraph]) -> AtomGraph:
    """Join graphs into one batch, keeping their order.

    Raises:
        ValueError: If ``graphs`` is empty.
    """
    if not graphs:
        raise ValueError("collate needs at least one graph, got none; skip empty batches")
    n_atoms = torch.cat([graph.n_atoms for graph in graphs])
    sizes = [len(graph.numbers) for graph in graphs]
    starts = accumulate(sizes[:-1], initial=0)
    edges = [graph.edge_index + start for graph, start in zip(graphs, starts, strict=True)]
    ids = torch.arange(len(n_atoms), device=n_atoms.device)
    return AtomGraph(
        numbers=torch.cat([graph.numbers for graph in graphs]),
        positions=torch.cat([graph.positions for graph in graphs]),
        cell=torch.cat([graph.cell for graph in graphs]),
        edge_index=torch.cat(edges, dim=1),
        edge_shift=torch.cat([graph.edge_shift for graph in graphs]),
        batch=torch.repeat_interleave(ids, n_atoms),
        pbc=torch.cat([graph.pbc for graph in graphs]),
        n_atoms=n_atoms,
        occupancies=_occupancies(graphs),
        conditions=_conditions(graphs),
    )


def _occupancies(graphs: Sequence[AtomGraph]) -> Tensor | None:
    if all(graph.occupancies is None for graph in graphs):
        return None
    rows = [graph.with_occupancies().occupancies for graph in graphs]
    return torch.cat([row for row in rows if row is not None])


def _conditions(graphs: Sequence[AtomGraph]) -> Tensor | None:
    known = [graph.conditions for graph in graphs if graph.conditions is not None]
    if not known:
        return None
    width = known[0].shape[1]
    return torch.cat(
        [
            known[0].new_full((graph.n_graphs, width), torch.nan)
            if graph.conditions is None
            else graph.conditions
            for graph in graphs
        ]
    )
