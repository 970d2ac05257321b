"""QDGNN: descriptors -> fusion -> quantum attention -> atomic energies.

E = sum_i ( e_ref[Z_i] + scale * e_i(h_i) ) + 1/2 sum_ij ZBL(d_ij) envelope(d_ij / d_min[Z_i, Z_j])
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qdgnn_ase.graph import MIN_DISTANCE, AtomGraph
from qdgnn_ase.nn.attention import Interaction
from qdgnn_ase.nn.fusion import Fusion
from qdgnn_ase.nn.radial import RadialBasis
from qdgnn_ase.nn.readout import AtomicEnergy
from qdgnn_ase.nn.repulsion import repulsion_energy
from qdgnn_ase.nn.segment import Edges, segment_sum
from qdgnn_ase.quantum.atomic import N_ELEMENTS, atomic_features, permuted_features
from qdgnn_ase.quantum.tight_binding import EDGE_FEATURES, NODE_FEATURES, TightBinding

_QUANTUM = ("t0", "t0_hoppings", "t0_moments", "none", "permuted")


@dataclass(frozen=True, kw_only=True)
class QDGNNConfig:
    """Architecture of a model; stored in every checkpoint."""

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


class QDGNN(nn.Module):
    """Potential energy of a batch of structures.

    Buffers that training sets: ``element_energies`` (95,) eV, ``energy_scale`` () eV, ``neighbors``
    () mean neighbours per atom, ``shortest`` (95, 95) Å shortest training distance per element
    pair, larger than 0, ``counts`` (95,) atoms of each element in training.
    """

    element_energies: Tensor
    energy_scale: Tensor
    shortest: Tensor
    counts: Tensor
    quantum: Tensor

    def __init__(self, config: QDGNNConfig, *, neighbors: float = 40.0) -> None:
        super().__init__()
        self.config = config
        self.neighbors = neighbors
        table = _quantum_table(config.quantum)
        self.register_buffer("quantum", table.float())
        self.register_buffer("element_energies", torch.zeros(N_ELEMENTS + 1, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones(()))
        n = N_ELEMENTS + 1
        self.register_buffer("shortest", torch.full((n, n), MIN_DISTANCE))
        self.register_buffer("counts", torch.zeros(N_ELEMENTS + 1, dtype=torch.int64))
        self.radial = RadialBasis(config.n_radial, config.cutoff)
        hoppings = config.quantum in ("t0_hoppings", "t0_moments")
        self.tight_binding = TightBinding() if hoppings else None
        n_edge = len(EDGE_FEATURES) if hoppings else 0
        n_node = len(NODE_FEATURES) if config.quantum == "t0_moments" else 0
        self.fusion = Fusion(table.shape[1] + n_node, config.hidden, N_ELEMENTS + 1)
        self.layers = nn.ModuleList(
            Interaction(
                hidden=config.hidden,
                n_vectors=config.n_vectors,
                n_radial=config.n_radial + n_edge,
                n_pair=config.n_pair,
                n_heads=config.n_heads,
                filters=config.filters,
                neighbors=neighbors,
                first=k == 0,
                last=k == config.n_layers - 1,
            )
            for k in range(config.n_layers)
        )
        self.readout = AtomicEnergy(config.hidden)

    def forward(self, graph: AtomGraph, edge_vector: Tensor | None = None) -> dict[str, Tensor]:
        """Energies of a batch.

        Args:
            graph: Batch; a ``dgl.DGLGraph`` made by ``AtomGraph.to_dgl`` works too.
            edge_vector: (n_edges, 3), Å, to differentiate with respect to; made from the graph if
                not given.

        Returns:
            ``energy`` (n_graphs,) and ``energies`` (n_atoms,) in eV, float64; ``hidden``
            (n_atoms, hidden), the scalar features behind them.
        """
        if not isinstance(graph, AtomGraph):
            graph = AtomGraph.from_dgl(graph)
        vector = graph.edge_vectors() if edge_vector is None else edge_vector
        distance = vector.norm(dim=1, keepdim=True)
        edges = Edges(graph.edge_index, graph.numbers.shape[0])
        hidden = self._features(graph, vector, distance, edges)
        repulsion = self._repulsion(graph, distance.squeeze(1), edges).squeeze(1)
        energies = self.readout(hidden) * self.energy_scale + repulsion
        energies = energies.double() + self.element_energies.double()[graph.numbers]
        energy = segment_sum(energies, graph.batch, graph.n_graphs)
        return {"energy": energy, "energies": energies, "hidden": hidden}

    def _features(self, graph: AtomGraph, vector: Tensor, distance: Tensor, edges: Edges) -> Tensor:
        radial, fc = self.radial(distance)
        unit = (vector / distance).T.contiguous()[:, :, None]
        quantum = self.quantum[graph.numbers]
        if self.tight_binding is not None:
            z_i, z_j = graph.numbers[edges.destination], graph.numbers[edges.source]
            hoppings = self.tight_binding.hoppings(distance, fc, z_i, z_j)
            radial = torch.cat([radial, self.tight_binding.edge_features(hoppings)], dim=1)
            if self.config.quantum == "t0_moments":
                terms = self.tight_binding.edge_terms(hoppings, vector / distance, z_i, z_j)
                moments = self.tight_binding.node_features(edges.sum(terms))
                quantum = torch.cat([quantum, moments], dim=1)
        hidden: Tensor = self.fusion(graph.numbers, quantum)
        vectors = None
        for layer in self.layers:
            hidden, vectors = layer(hidden, vectors, radial, fc, unit, edges)
        return hidden

    def _repulsion(self, graph: AtomGraph, distance: Tensor, edges: Edges) -> Tensor:
        """ZBL energy per atom in eV, (n_atoms, 1)."""
        z_i, z_j = graph.numbers[edges.destination], graph.numbers[edges.source]
        # beyond the cutoff there are no edges: a longer range would end in a jump
        shortest = self.shortest[z_i, z_j].clamp(max=self.config.cutoff)
        return edges.sum(repulsion_energy(distance, z_i, z_j, shortest)[:, None])


def _quantum_table(kind: str) -> Tensor:
    """(95, n_features); row 0 is NaN, so that a missing element cannot pass in silence."""
    if kind == "none":
        return torch.zeros(N_ELEMENTS + 1, 0)
    permuted = kind == "permuted"
    return torch.tensor(permuted_features(seed=0) if permuted else atomic_features())
