"""PropertyModel: features of each atom -> scaled properties of the structure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.readout import AtomMeanHead, PooledHead
from qdgnn_ase.nn.segment import Edges, segment_sum
from qdgnn_ase.nn.trunk import QDGNNConfig, Trunk, batch_of
from qdgnn_ase.properties import learned_property


@dataclass(frozen=True, kw_only=True)
class PropertyConfig:
    """Architecture of a property model; stored in every checkpoint."""

    targets: tuple[str, ...]
    """Names of `qdgnn_ase.PROPERTIES` that are learned."""
    trunk: QDGNNConfig = field(default_factory=QDGNNConfig)
    """Architecture of the trunk."""
    n_members: int = 8
    """Heads per target; their spread is the uncertainty."""

    def __post_init__(self) -> None:
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets must be distinct and at least one, got {self.targets}")
        for name in self.targets:
            learned_property(name)
        if self.n_members < 2:
            raise ValueError(f"n_members must be at least 2, got {self.n_members}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PropertyConfig:
        """Inverse of :meth:`to_dict`."""
        trunk = QDGNNConfig(**values.get("trunk", {}))
        return cls(**values | {"targets": tuple(values["targets"]), "trunk": trunk})

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON."""
        return asdict(self)


class PropertyModel(nn.Module):
    """Scaled properties of a batch of structures, each by an ensemble of heads on one trunk.

    Buffer that training sets: ``counts`` (95,) atoms of each element in training.

    Args:
        config: Architecture.
        neighbors: Mean number of neighbours in training.
    """

    counts: Tensor

    def __init__(self, config: PropertyConfig, *, neighbors: float = 40.0) -> None:
        super().__init__()
        self.config = config
        self.neighbors = neighbors
        self.trunk = Trunk(config.trunk, neighbors)
        width = config.trunk.hidden
        self.norm = nn.LayerNorm(width)
        self.register_buffer("counts", torch.zeros(len(self.trunk.quantum), dtype=torch.int64))
        self.heads = nn.ModuleDict(
            {name: _head(name)(width, config.n_members) for name in config.targets}
        )

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """Values of a batch.

        Args:
            graph: Batch; a ``dgl.DGLGraph`` made by ``AtomGraph.to_dgl`` works too.

        Returns:
            ``values`` (n_graphs, n_targets, n_members) in the units of the scaler; ``embedding``
            (n_graphs, hidden), mean features of the atoms.
        """
        graph = batch_of(graph)
        vector = graph.edge_vectors()
        edges = Edges(graph.edge_index, graph.numbers.shape[0])
        distance = vector.norm(dim=1, keepdim=True)
        atoms = self.norm(self.trunk(graph.numbers, vector, distance, edges))
        values = [head(atoms, graph.batch, graph.n_atoms) for head in self.heads.values()]
        embedding = segment_sum(atoms, graph.batch, graph.n_graphs) / graph.n_atoms[:, None]
        return {"values": torch.stack(values, dim=1), "embedding": embedding}


def _head(name: str) -> type[AtomMeanHead] | type[PooledHead]:
    return AtomMeanHead if learned_property(name).pooling == "atoms" else PooledHead
