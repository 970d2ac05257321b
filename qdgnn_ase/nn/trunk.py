"""Trunk of every model: descriptors -> fusion -> quantum attention -> features of each atom."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.attention import Interaction
from qdgnn_ase.nn.fusion import Fusion
from qdgnn_ase.nn.radial import RadialBasis
from qdgnn_ase.nn.segment import Edges
from qdgnn_ase.quantum.atomic import N_ELEMENTS, atomic_features, permuted_features
from qdgnn_ase.quantum.tight_binding import EDGE_FEATURES, NODE_FEATURES, TightBinding

_QUANTUM = ("t0", "t0_hoppings", "t0_moments", "none", "permuted")


@dataclass(frozen=True, kw_only=True)
class QDGNNConfig:
    """Architecture of a trunk; stored in every checkpoint."""

    cutoff: float = 5.0
    """Radius of the neighbour list in Å."""
    hidden: int = 64
    """Scalar channels per atom, divisible by 2 * n_heads."""
    n_layers: int = 3
    """Message-passing layers."""
    n_vectors: int = 32
    """Equivariant vector channels per atom."""
    n_radial: int = 12
    """Radial basis functions."""
    n_pair: int = 32
    """Width of the pair features behind attention logits and filters."""
    n_heads: int = 8
    """Attention heads."""
    filters: Literal["channel", "head"] = "channel"
    """One filter value per edge and channel, or one per edge and head (then n_heads must divide
    n_vectors)."""
    quantum: Literal["t0", "t0_hoppings", "t0_moments", "none", "permuted"] = "t0"
    """Quantum descriptors: T0 table; T0 and T1 hoppings on edges; those and T1 moments on atoms;
    none; or T0 permuted over elements (negative control)."""

    attention: bool = True
    """False: each neighbour's share is that of its envelope alone."""

    def __post_init__(self) -> None:
        for name in ("cutoff", "hidden", "n_layers", "n_vectors", "n_radial", "n_pair", "n_heads"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be larger than 0, got {getattr(self, name)}")
        if self.hidden % (2 * self.n_heads):
            raise ValueError(
                f"hidden must be divisible by 2 * n_heads = {2 * self.n_heads}, got {self.hidden}"
            )
        if self.filters not in ("channel", "head"):
            raise ValueError(f"filters must be 'channel' or 'head', got {self.filters!r}")
        if self.filters == "head" and self.n_vectors % self.n_heads:
            raise ValueError(
                f"n_vectors must be divisible by n_heads = {self.n_heads} with filters='head', "
                f"got {self.n_vectors}"
            )
        if self.quantum not in _QUANTUM:
            raise ValueError(f"quantum must be one of {_QUANTUM}, got {self.quantum!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON; ``QDGNNConfig(**d)`` is the inverse."""
        return asdict(self)


class Trunk(nn.Module):
    """Scalar features of each atom from its element, its quantum descriptors and its neighbours.

    Args:
        config: Architecture.
        neighbors: Constant that scales plain sums (mean number of neighbours in training).
    """

    quantum: Tensor

    def __init__(self, config: QDGNNConfig, neighbors: float) -> None:
        super().__init__()
        self.with_moments = config.quantum == "t0_moments"
        table = _quantum_table(config.quantum)
        self.register_buffer("quantum", table.float())
        self.radial = RadialBasis(config.n_radial, config.cutoff)
        hoppings = config.quantum in ("t0_hoppings", "t0_moments")
        self.tight_binding = TightBinding() if hoppings else None
        n_edge = len(EDGE_FEATURES) if hoppings else 0
        n_node = len(NODE_FEATURES) if self.with_moments else 0
        self.fusion = Fusion(table.shape[1] + n_node, config.hidden, N_ELEMENTS + 1)
        self.layers = nn.ModuleList(
            Interaction(
                hidden=config.hidden,
                n_vectors=config.n_vectors,
                n_radial=config.n_radial + n_edge,
                n_pair=config.n_pair,
                n_heads=config.n_heads,
                filters=config.filters,
                attends=config.attention,
                neighbors=neighbors,
                first=k == 0,
                last=k == config.n_layers - 1,
            )
            for k in range(config.n_layers)
        )

    def set_neighbors(self, neighbors: float) -> None:
        """Change the constant that scales plain sums."""
        for layer in self.layers:
            if isinstance(layer, Interaction):  # all are; tells the type checker
                layer.scale = neighbors**-0.5

    def forward(
        self,
        numbers: Tensor,
        vector: Tensor,
        distance: Tensor,
        edges: Edges,
        strength: Tensor | None = None,
        fractions: Tensor | None = None,
    ) -> Tensor:
        """Features (n_atoms, hidden).

        Args:
            numbers: (n_atoms,) atomic numbers.
            vector: (n_edges, 3), Å.
            distance: (n_edges, 1), Å, their lengths.
            edges: Edges of the batch.
            strength: (n_edges, 1), factor of the envelope of each edge; 1 if not given. All that an
                edge does goes through its envelope: strength 0 is a graph without that edge.
            fractions: (n_atoms, 94), share of each element in what is on a site, where sites are
                shared (the ``numbers`` do not matter then): embedding, T0 descriptors, amplitudes
                and levels of T1 are the means over the elements of a site (virtual crystal).
        """
        unit = vector / distance
        radial, fc, quantum = self.descriptors(numbers, unit, distance, edges, strength, fractions)
        directions = unit.T.contiguous()[:, :, None].unbind()
        hidden: Tensor = self.fusion(numbers, quantum, fractions)
        vectors = None
        for layer in self.layers:
            hidden, vectors = layer(hidden, vectors, radial, fc, directions, edges)
        return hidden

    def descriptors(
        self,
        numbers: Tensor,
        unit: Tensor,
        distance: Tensor,
        edges: Edges,
        strength: Tensor | None = None,
        fractions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Edge features (n_edges, n), envelope (n_edges, 1), quantum descriptors (n_atoms, n).

        Arguments as in :meth:`forward`, but ``unit`` (n_edges, 3), vectors over distances.
        """
        radial, fc = self.radial(distance)
        if strength is not None:
            radial, fc = radial * strength, fc * strength
        quantum = self.quantum[numbers] if fractions is None else fractions @ self.quantum[1:]
        if self.tight_binding is not None:
            atoms = numbers if fractions is None else self.tight_binding.mixed(fractions)
            z_i = atoms.index_select(0, edges.destination)
            z_j = atoms.index_select(0, edges.source)
            hoppings = self.tight_binding.hoppings(distance, fc, z_i, z_j)
            radial = torch.cat([radial, self.tight_binding.edge_features(hoppings)], dim=1)
            if self.with_moments:
                terms = self.tight_binding.edge_terms(hoppings, unit, z_i, z_j)
                moments = self.tight_binding.node_features(edges.sum(terms))
                quantum = torch.cat([quantum, moments], dim=1)
        return radial, fc, quantum


def quantum_descriptors(graph: AtomGraph, config: QDGNNConfig) -> Tensor:
    """Quantum descriptors of each atom as a trunk of this architecture sees them, (n_atoms, n)."""
    trunk = _descriptor_trunk(config.quantum, config.cutoff)
    vector = graph.edge_vectors()
    edges = Edges(graph.edge_index, graph.numbers.shape[0])
    distance = vector.norm(dim=1, keepdim=True)
    with torch.no_grad():
        return trunk.descriptors(graph.numbers, vector / distance, distance, edges)[2]


@cache
def _descriptor_trunk(quantum: Any, cutoff: float) -> Trunk:
    with torch.random.fork_rng(devices=[]):
        return Trunk(QDGNNConfig(cutoff=cutoff, hidden=16, n_layers=1, quantum=quantum), 1.0)


def batch_of(graph: AtomGraph | Any) -> AtomGraph:
    """The graph itself, or the one that a ``dgl.DGLGraph`` of ``AtomGraph.to_dgl`` holds."""
    return graph if isinstance(graph, AtomGraph) else AtomGraph.from_dgl(graph)


def _quantum_table(kind: str) -> Tensor:
    """(95, n_features); row 0 is NaN, so that a missing element cannot pass in silence."""
    if kind == "none":
        return torch.zeros(N_ELEMENTS + 1, 0)
    permuted = kind == "permuted"
    return torch.tensor(permuted_features(seed=0) if permuted else atomic_features())
