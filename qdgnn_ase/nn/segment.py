"""Every sum over edges goes through here: ``Edges`` and ``segment_sum``.

Two implementations with the same numbers. DGL's fused kernels (``dgl.ops``, right at second order)
win on large graphs; plain torch (gather, multiply, ``index_add``) wins on small ones, and serves
where DGL is absent or the step is compiled. DGL's own backward passes are slow (its
``u_mul_e_sum`` takes 1.7 ms back and 0.13 ms forth for 29,000 edges of width 32) and its
``edge_softmax`` has wrong second derivatives (1.1.3, CPU): neither is used. Gather and sum are each
other's transpose, which is all their derivatives need, to any order.
"""

from __future__ import annotations

import copy
import os
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

DGL_MIN_EDGES = 4_000
"""Below this many edges the torch path is faster."""


class Edges:
    """Edges of one batch as the sums need them: source, destination, and DGL's handle if used.

    Args:
        edge_index: (2, n_edges) int64, [source, destination].
        n_atoms: Number of atoms, the length of every sum.
    """

    def __init__(self, edge_index: Tensor, n_atoms: int) -> None:
        self.source, self.destination = edge_index.unbind(0)
        self.n_atoms = n_atoms
        # a traced or fake tensor is a subclass; DGL's wheels know the CPU only
        plain = type(edge_index) is Tensor and edge_index.device.type == "cpu"
        use_dgl = plain and edge_index.shape[1] >= DGL_MIN_EDGES and has_dgl()
        self.dgl = _dgl_graph(edge_index, n_atoms) if use_dgl else None
        self._dgl_back = _dgl_graph(edge_index.flip(0), n_atoms) if use_dgl else None

    @cached_property
    def reversed(self) -> Edges:
        """The same edges, source and destination swapped."""
        other = copy.copy(self)
        other.source, other.destination = self.destination, self.source
        other.dgl, other._dgl_back = self._dgl_back, self.dgl
        return other

    def gather(self, values: Tensor) -> Tensor:
        """x_j of the source of each edge; (n_atoms, width) -> (n_edges, width)."""
        values = values.contiguous()  # 6 times as fast as from a view
        if self.dgl is None:
            return values.index_select(0, self.source)
        gathered: Tensor = _Gather.apply(values, self)
        return gathered

    def sum(self, values: Tensor) -> Tensor:
        """sum_j y_ij over the edges into each atom i; (n_edges, width) -> (n_atoms, width)."""
        if self.dgl is None:
            return segment_sum(values, self.destination, self.n_atoms)
        total: Tensor = _Sum.apply(values, self)
        return total

    def sum_messages(self, source_values: Tensor, weights: Tensor) -> Tensor:
        """sum_j w_ij * x_j over the neighbours j of each atom i, (n_atoms, width).

        Args:
            source_values: (n_atoms, width), x.
            weights: (n_edges, width), w.
        """
        if self.dgl is None:
            return self.sum(self.gather(source_values) * weights)
        total: Tensor = _Messages.apply(source_values, weights, self)
        return total

    def sum_with_messages(self, values: Tensor, source_values: Tensor, weights: Tensor) -> Tensor:
        """``sum(values) + sum_messages(source_values, weights)``, in one sum where it is faster."""
        if self.dgl is None:
            return self.sum(torch.addcmul(values, self.gather(source_values), weights))
        return self.sum(values) + self.sum_messages(source_values, weights)


class _Gather(torch.autograd.Function):
    """Rows of the sources; its derivative is DGL's sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        return values.index_select(0, edges.source)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.edges.reversed.sum(gradient), None


class _Sum(torch.autograd.Function):
    """DGL's sum over the edges into an atom."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: Edges) -> Tensor:
        from dgl import ops

        ctx.edges = edges
        total: Tensor = ops.copy_e_sum(edges.dgl, values)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.edges.reversed.gather(gradient), None


class _Messages(torch.autograd.Function):
    """DGL's fused sum, which never stores a message."""

    @staticmethod
    def forward(ctx: Any, source_values: Tensor, weights: Tensor, edges: Edges) -> Tensor:
        from dgl import ops

        ctx.edges = edges
        ctx.save_for_backward(source_values, weights)
        total: Tensor = ops.u_mul_e_sum(edges.dgl, source_values, weights)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        source_values, weights = ctx.saved_tensors
        back = ctx.edges.reversed
        return (
            back.sum_messages(gradient, weights),
            back.gather(gradient) * ctx.edges.gather(source_values),
            None,
        )


def segment_sum(values: Tensor, destination: Tensor, n: int) -> Tensor:
    """Sum rows of ``values`` by ``destination``: (n_rows, ...) -> (n, ...)."""
    return values.new_zeros((n, *values.shape[1:])).index_add(0, destination, values)


def has_dgl() -> bool:
    """True where DGL is installed and not blocked."""
    os.environ.setdefault("DGLBACKEND", "pytorch")
    try:
        import dgl  # noqa: F401
    except ImportError:
        return False
    return True


def _dgl_graph(edge_index: Tensor, n_atoms: int) -> Any:
    import dgl

    return dgl.graph((edge_index[0], edge_index[1]), num_nodes=n_atoms)
