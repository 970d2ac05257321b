"""PropertyModel: features of each atom -> scaled properties of the structure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.fusion import TERMS, ConditionFusion, Term
from qdgnn_ase.nn.readout import AtomMeanHead, Pool, PooledHead
from qdgnn_ase.nn.segment import Edges
from qdgnn_ase.nn.trunk import QDGNNConfig, Trunk, batch_of
from qdgnn_ase.properties import PROPERTIES, Property, learned_property
from qdgnn_ase.quantum.atomic import N_ELEMENTS

MIN_DOMAIN = 30
"""Structures that a domain is taken from, at least."""


@dataclass(frozen=True, kw_only=True)
class PropertyConfig:
    """Architecture of a property model; stored in every checkpoint."""

    targets: tuple[str, ...]
    """Names of what is learned, of `qdgnn_ase.PROPERTIES` or ``own``."""
    trunk: QDGNNConfig = field(default_factory=QDGNNConfig)
    """Architecture of the trunk."""
    n_members: int = 8
    """Heads per target; their spread is the uncertainty."""
    own: tuple[Property, ...] = ()
    """Targets that `qdgnn_ase.PROPERTIES` does not hold."""
    conditions: tuple[str, ...] = ()
    """Names of scalars that are given with a structure, such as "temperature"."""
    condition_terms: tuple[Term, ...] = TERMS
    """How conditions are fused with the structure."""

    def __post_init__(self) -> None:
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets must be distinct and at least one, got {self.targets}")
        for row in self.own:
            if row.name in PROPERTIES or row.name not in self.targets or row.derived:
                raise ValueError(
                    f"own must hold learned targets that PROPERTIES does not, got {row.name!r} "
                    f"beside targets {self.targets}"
                )
            if not row.name or "." in row.name or hasattr(nn.ModuleDict(), row.name):
                raise ValueError(
                    f"own target must have a name without a dot that torch does not use, got "
                    f"{row.name!r}"
                )
        _ = self.properties  # raises where a name is unknown
        if len(set(self.conditions)) < len(self.conditions) or "" in self.conditions:
            raise ValueError(f"conditions must have distinct names, got {self.conditions}")
        if not self.condition_terms or not set(self.condition_terms) <= set(TERMS):
            raise ValueError(
                f"condition_terms must be at least one of {TERMS}, got {self.condition_terms}"
            )
        if self.n_members < 2:
            raise ValueError(f"n_members must be at least 2, got {self.n_members}")

    @property
    def properties(self) -> tuple[Property, ...]:
        """What each target stands for."""
        own = {row.name: row for row in self.own}
        return tuple(own.get(name) or learned_property(name) for name in self.targets)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PropertyConfig:
        """Inverse of :meth:`to_dict`."""
        trunk = QDGNNConfig(**values.get("trunk", {}))
        own = tuple(Property(**row) for row in values.get("own", ()))
        values = values | {"trunk": trunk, "own": own}
        for name in ("targets", "conditions", "condition_terms"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON."""
        values = asdict(self) | {"own": [_without_defaults(row) for row in self.own]}
        unused = set() if self.own else {"own"}
        unused |= set() if self.conditions else {"conditions", "condition_terms"}
        return {key: value for key, value in values.items() if key not in unused}


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
        self.conditions, self.condition_norm = None, None
        if config.conditions:
            self.conditions = ConditionFusion(len(config.conditions), width, config.condition_terms)
            self.condition_norm = nn.LayerNorm(width)
        self.register_buffer("counts", torch.zeros(len(self.trunk.quantum), dtype=torch.int64))
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("whitening", torch.zeros(width, width))
        self.register_buffer("limit", torch.ones(()))
        self.heads = nn.ModuleDict(
            {row.name: _head(row)(width, config.n_members) for row in config.properties}
        )

    def set_neighbors(self, neighbors: float) -> None:
        """Take over the mean number of neighbours of other training data."""
        self.neighbors = neighbors
        self.trunk.set_neighbors(neighbors)

    def forward(self, graph: AtomGraph, strength: Tensor | None = None) -> dict[str, Tensor]:
        """Values of a batch.

        Args:
            graph: Batch, of `qdgnn_ase.site_graph` too; a ``dgl.DGLGraph`` made by
                ``AtomGraph.to_dgl`` works as well.
            strength: (n_edges, 1), of each edge from 0 (absent) to 1 (whole, if not given).

        Returns:
            ``values`` (n_graphs, n_targets, n_members) in the units of the scaler; ``embedding``
            (n_graphs, hidden), mean features of the atoms, whatever the conditions.
        """
        graph = batch_of(graph)
        vector = graph.edge_vectors()
        edges = Edges(graph.edge_index, graph.numbers.shape[0])
        distance = vector.norm(dim=1, keepdim=True)
        pool, fractions = Pool(graph), None
        if graph.occupancies is not None and pool.weight is not None:
            fractions = graph.occupancies[:, 1 : N_ELEMENTS + 1] / pool.weight
            there = edges.gather(pool.weight)  # a neighbour that is there half of the time
            strength = there if strength is None else there * strength
        atoms = self.norm(self.trunk(graph.numbers, vector, distance, edges, strength, fractions))
        embedding = pool.mean(atoms)
        if self.conditions is not None and self.condition_norm is not None:
            fused = self.conditions(embedding, self.conditions_of(graph))
            atoms = self.condition_norm(atoms + fused.index_select(0, graph.batch))
        values = [head(atoms, pool) for head in self.heads.values()]
        return {"values": torch.stack(values, dim=1), "embedding": embedding}

    def conditions_of(self, graph: AtomGraph) -> Tensor:
        """(n_graphs, n_conditions), NaN where a condition is absent.

        Raises:
            ValueError: If the graph has another number of conditions than the model.
        """
        shape = (graph.n_graphs, len(self.config.conditions))
        if graph.conditions is None:
            return graph.positions.new_full(shape, torch.nan)
        if graph.conditions.shape[1] != shape[1]:
            raise ValueError(
                f"graph must have the conditions {self.config.conditions}, got "
                f"{graph.conditions.shape[1]} of them"
            )
        return graph.conditions

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


def _head(row: Property) -> type[AtomMeanHead] | type[PooledHead]:
    return AtomMeanHead if row.pooling == "atoms" else PooledHead


def _without_defaults(row: Property) -> dict[str, Any]:
    """Fields that differ from their defaults: JSON knows no infinity."""
    return {f.name: v for f in fields(row) if (v := getattr(row, f.name)) != f.default}
