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

MIN_DOMAIN = 30
"""Structures that a domain is taken from, at least."""


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

    Buffers that training sets: ``counts`` (95,) atoms of each element in training; ``center``
    (hidden,), ``whitening`` (hidden, hidden) and ``limit`` () of the embedding.

    Args:
        config: Architecture.
        neighbors: Mean number of neighbours in training.
    """

    counts: Tensor
    center: Tensor
    whitening: Tensor
    limit: Tensor

    def __init__(self, config: PropertyConfig, *, neighbors: float = 40.0) -> None:
        super().__init__()
        self.config = config
        self.neighbors = neighbors
        self.trunk = Trunk(config.trunk, neighbors)
        width = config.trunk.hidden
        self.norm = nn.LayerNorm(width)
        self.register_buffer("counts", torch.zeros(len(self.trunk.quantum), dtype=torch.int64))
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("whitening", torch.zeros(width, width))
        self.register_buffer("limit", torch.ones(()))
        self.heads = nn.ModuleDict(
            {name: _head(name)(width, config.n_members) for name in config.targets}
        )

    def forward(self, graph: AtomGraph, strength: Tensor | None = None) -> dict[str, Tensor]:
        """Values of a batch.

        Args:
            graph: Batch; a ``dgl.DGLGraph`` made by ``AtomGraph.to_dgl`` works too.
            strength: (n_edges, 1), of each edge from 0 (absent) to 1 (whole, if not given).

        Returns:
            ``values`` (n_graphs, n_targets, n_members) in the units of the scaler; ``embedding``
            (n_graphs, hidden), mean features of the atoms.
        """
        graph = batch_of(graph)
        vector = graph.edge_vectors()
        edges = Edges(graph.edge_index, graph.numbers.shape[0])
        distance = vector.norm(dim=1, keepdim=True)
        atoms = self.norm(self.trunk(graph.numbers, vector, distance, edges, strength))
        values = [head(atoms, graph.batch, graph.n_atoms) for head in self.heads.values()]
        embedding = segment_sum(atoms, graph.batch, graph.n_graphs) / graph.n_atoms[:, None]
        return {"values": torch.stack(values, dim=1), "embedding": embedding}

    def set_domain(self, embedding: Tensor, share: float = 0.99, shrinkage: float = 0.1) -> None:
        """Take the domain from embeddings of structures like those of training.

        With fewer than `MIN_DOMAIN` structures nothing is called far away.

        Args:
            embedding: (n_structures, hidden).
            share: Part of them that is in the domain.
            shrinkage: Of the covariance towards its mean diagonal.
        """
        if len(embedding) < MIN_DOMAIN:
            self.limit.fill_(torch.inf)
            return
        self.center.copy_(embedding.mean(dim=0))
        covariance = torch.cov(embedding.T.double())
        width = covariance.diagonal().mean()
        identity = torch.eye(len(covariance), dtype=covariance.dtype)
        covariance = (1 - shrinkage) * covariance + shrinkage * width * identity
        self.whitening.copy_(torch.linalg.cholesky(torch.linalg.inv(covariance)))
        self.limit.copy_(self.domain_distance(embedding).quantile(share))

    def domain_distance(self, embedding: Tensor) -> Tensor:
        """Mahalanobis distance from the training data, (n_structures,)."""
        distance: Tensor = ((embedding - self.center) @ self.whitening).norm(dim=1)
        return distance

    def in_domain(self, embedding: Tensor) -> Tensor:
        """Whether structures are within the distance that nearly all of training are, bool."""
        return self.domain_distance(embedding) <= self.limit


def _head(name: str) -> type[AtomMeanHead] | type[PooledHead]:
    return AtomMeanHead if learned_property(name).pooling == "atoms" else PooledHead
