"""Every sum over edges goes through here: ``segment_sum``.

Two implementations with the same numbers. DGL's fused kernel (``dgl.ops.u_mul_e_sum``, right at
second order) never stores a message and wins on large graphs; plain torch (gather, multiply,
``index_add``) wins on small ones, and serves where DGL is absent or the step is compiled.
DGL's ``edge_softmax`` has wrong second derivatives (1.1.3, CPU) and is never used.
"""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor

DGL_MIN_EDGES = 4_000
"""Below this many edges the torch path is faster."""


class Edges:
    """Edges of one batch as the sums need them: source, destination, and DGL's handle if used.

    Args:
        edge_index: (2, n_edges) int64, [source, destination], sorted by destination.
        n_atoms: Number of atoms, the length of every sum.
    """

    def __init__(self, edge_index: Tensor, n_atoms: int) -> None:
        self.source, self.destination = edge_index.unbind(0)
        self.n_atoms = n_atoms
        # a traced or fake tensor is a subclass; DGL's wheels know the CPU only
        plain = type(edge_index) is Tensor and edge_index.device.type == "cpu"
        use_dgl = plain and edge_index.shape[1] >= DGL_MIN_EDGES and has_dgl()
        self.dgl = _dgl_graph(edge_index, n_atoms) if use_dgl else None

    def sum_messages(self, source_values: Tensor, weights: Tensor) -> Tensor:
        """sum_j w_ij * x_j over the neighbours j of each atom i, (n_atoms, width).

        Args:
            source_values: (n_atoms, width), x.
            weights: (n_edges, width), w.
        """
        if self.dgl is not None:
            from dgl import ops

            total: Tensor = ops.u_mul_e_sum(self.dgl, source_values, weights)
            return total
        messages = source_values.index_select(0, self.source) * weights
        return segment_sum(messages, self.destination, self.n_atoms)

    def sum(self, values: Tensor) -> Tensor:
        """sum_j y_ij over the edges into each atom i; (n_edges, width) -> (n_atoms, width)."""
        if self.dgl is not None:
            from dgl import ops

            total: Tensor = ops.copy_e_sum(self.dgl, values)
            return total
        return segment_sum(values, self.destination, self.n_atoms)


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
