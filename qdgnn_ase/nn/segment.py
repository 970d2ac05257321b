"""Every sum over edges goes through here: ``Edges`` and ``segment_sum``.

Implementations with the same numbers: DGL's fused kernels (``dgl.ops``, right at second order) win
on large graphs, torch's ``embedding_bag`` sums float32 fastest of all, and gather, multiply,
``index_add`` serve elsewhere: where DGL is absent, or the step is compiled. DGL's own backward
passes are slow (its ``u_mul_e_sum`` takes 1.7 ms back and 0.13 ms forth for 29,000 edges of width
32) and its ``edge_softmax`` has wrong second derivatives (1.1.3, CPU): neither is used. Gather and
sum are each other's transpose, which is all their derivatives need, to any order.
"""

from __future__ import annotations

import copy
import os
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

DGL_MIN_EDGES = 4_000
"""Below this many edges the torch path is faster."""


_FAST_BAGS = "fbgemm" in torch.backends.quantized.supported_engines
"""Whether ``embedding_bag`` has its fast kernel (float32, x86), faster than other sums."""


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
        self.plain = type(edge_index) is Tensor and edge_index.device.type == "cpu"
        use_dgl = self.plain and edge_index.shape[1] >= DGL_MIN_EDGES and has_dgl()
        self.dgl = _dgl_graph(edge_index, n_atoms) if use_dgl else None
        self._dgl_back = _dgl_graph(edge_index.flip(0), n_atoms) if use_dgl else None
        self._bags: list[tuple[Tensor, Tensor]] = []
        self._bags_back: list[tuple[Tensor, Tensor]] = []

    @cached_property
    def reversed(self) -> Edges:
        """The same edges, source and destination swapped."""
        other = copy.copy(self)
        other.source, other.destination = self.destination, self.source
        other.dgl, other._dgl_back = self._dgl_back, self.dgl
        other._bags, other._bags_back = self._bags_back, self._bags
        return other

    def bags(self) -> tuple[Tensor, Tensor]:
        """Edges in the order of their destinations, and where each atom's begin."""
        if not self._bags:  # shared with the reversed edges of the reversed edges
            key = self.destination.numpy()
            # the stable sort of 16-bit numbers is a radix sort
            order = (key.astype(np.uint16) if self.n_atoms < 2**16 else key).argsort(kind="stable")
            counts = np.bincount(key, minlength=self.n_atoms)
            starts = counts.cumsum() - counts
            self._bags.append((torch.from_numpy(order), torch.from_numpy(starts)))
        return self._bags[0]

    def gather(self, values: Tensor) -> Tensor:
        """x_j of the source of each edge; (n_atoms, width) -> (n_edges, width)."""
        values = values.contiguous()  # 6 times as fast as from a view
        if not (self.plain and torch.is_grad_enabled()):
            return values.index_select(0, self.source)
        gathered: Tensor = _Gather.apply(values, self)
        return gathered

    def sum(self, values: Tensor) -> Tensor:
        """sum_j y_ij over the edges into each atom i; (n_edges, width) -> (n_atoms, width)."""
        if not self.plain:
            return segment_sum(values, self.destination, self.n_atoms)
        total: Tensor = (
            _Sum.apply(values, self) if torch.is_grad_enabled() else _total(values, self)
        )
        return total

    def sum_products(self, values: Tensor, weights: Tensor) -> Tensor:
        """sum_j w_ij * x_j, (n_atoms, width), without derivatives; DGL's kernel keeps no product.

        Args:
            values: (n_atoms, width), x.
            weights: (n_edges, width), w.
        """
        if self.dgl is None:
            return self.sum(self.gather(values).mul_(weights))
        from dgl import ops

        total: Tensor = ops.u_mul_e_sum(self.dgl, values, weights)
        return total


class _Gather(torch.autograd.Function):
    """Rows of the sources; its derivative is `_Sum`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        return values.index_select(0, edges.source)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.edges.reversed.sum(gradient), None


class _Sum(torch.autograd.Function):
    """Sum over the edges into an atom by the fastest kernel."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        return _total(values, edges)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.edges.reversed.gather(gradient), None


def _total(values: Tensor, edges: Edges) -> Tensor:
    if _FAST_BAGS and values.dtype == torch.float32:
        order, starts = edges.bags()
        return embedding_bag(order, values, starts, mode="sum")
    if edges.dgl is None:
        return segment_sum(values, edges.destination, edges.n_atoms)
    from dgl import ops

    total: Tensor = ops.copy_e_sum(edges.dgl, values)
    return total


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
