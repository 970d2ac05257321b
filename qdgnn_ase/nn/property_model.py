"""PropertyModel: features of each atom -> scaled properties of the structure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.domain import Domain, HeadDomain
from qdgnn_ase.nn.fusion import TERMS, ConditionFusion, Term
from qdgnn_ase.nn.readout import AtomMeanHead, Pool, PooledHead
from qdgnn_ase.nn.segment import Edges
from qdgnn_ase.nn.trunk import QDGNNConfig, Trunk, batch_of
from qdgnn_ase.properties import PROPERTIES, Property, learned_property
from qdgnn_ase.quantum.atomic import N_ELEMENTS


@dataclass(frozen=True, kw_only=True)
class PropertyConfig:
    """Architecture of a property model; stored in every checkpoint."""

    targets: tuple[str, ...]
    """Names of what is learned, of `qdgnn_ase.PROPERTIES` or ``own``."""
    trunk: QDGNNConfig = field(default_factory=QDGNNConfig)
    """Architecture of the trunk."""
    n_members: int = 8
    """Heads per target, which learn quantiles; their spread is the uncertainty."""
    own: tuple[Property, ...] = ()
    """Targets that `qdgnn_ase.PROPERTIES` does not hold."""
    conditions: tuple[str, ...] = ()
    """Names of scalars that are given with a structure, such as "temperature"."""
    condition_terms: tuple[Term, ...] = TERMS
    """How conditions are fused with the structure."""
    added: tuple[str, ...] = ()
    """Targets whose heads were added to the trained model, with a domain of their own."""

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
        if not set(self.added) <= set(self.targets):
            raise ValueError(f"added must be of targets {self.targets}, got {self.added}")
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
        for name in ("targets", "conditions", "condition_terms", "added"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON."""
        values = asdict(self) | {"own": [_without_defaults(row) for row in self.own]}
        unused = set() if self.own else {"own"}
        unused |= set() if self.conditions else {"conditions", "condition_terms"}
        unused |= set() if self.added else {"added"}
        return {key: value for key, value in values.items() if key not in unused}


class PropertyModel(Domain):
    """Scaled properties of a batch of structures, each by an ensemble of heads on one trunk.

    Its buffers are the domain of the heads that were trained with the trunk; ``domains`` holds
    those of heads that were added later.

    Args:
        config: Architecture.
        neighbors: Mean number of neighbours in training.
    """

    def __init__(self, config: PropertyConfig, *, neighbors: float = 40.0) -> None:
        width = config.trunk.hidden
        super().__init__(N_ELEMENTS + 1, width)
        self.config = config
        self.neighbors = neighbors
        self.trunk = Trunk(config.trunk, neighbors)
        self.norm = nn.LayerNorm(width)
        self.conditions, self.condition_norm = None, None
        if config.conditions:
            self.conditions = ConditionFusion(len(config.conditions), width, config.condition_terms)
            self.condition_norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict(
            {row.name: head_of(row)(width, config.n_members) for row in config.properties}
        )
        self.domains = nn.ModuleDict(
            {name: HeadDomain(N_ELEMENTS + 1, width) for name in config.added}
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
            (n_graphs, hidden), mean features of the atoms, and ``atoms`` (n_atoms, hidden), those
            features, whatever the conditions.
        """
        graph = batch_of(graph)
        features, pool = self.features(graph, strength)
        atoms, embedding = features, pool.mean(features)
        if self.conditions is not None and self.condition_norm is not None:
            fused = self.conditions(embedding, self.conditions_of(graph))
            atoms = self.condition_norm(atoms + fused.index_select(0, graph.batch))
        values = [head(atoms, pool) for head in self.heads.values()]
        return {"values": torch.stack(values, dim=1), "embedding": embedding, "atoms": features}

    def features(self, graph: AtomGraph, strength: Tensor | None = None) -> tuple[Tensor, Pool]:
        """Features of the atoms below heads and conditions, (n_atoms, hidden), and their pool.

        Arguments as of :meth:`forward`.
        """
        vector = graph.edge_vectors()
        edges = Edges(graph.edge_index, graph.numbers.shape[0])
        distance = vector.norm(dim=1, keepdim=True)
        pool, fractions = Pool(graph), None
        if graph.occupancies is not None and pool.weight is not None:
            fractions = graph.occupancies[:, 1 : N_ELEMENTS + 1] / pool.weight
            there = edges.gather(pool.weight)  # a neighbour that is there half of the time
            strength = there if strength is None else there * strength
        atoms = self.norm(self.trunk(graph.numbers, vector, distance, edges, strength, fractions))
        return atoms, pool

    def head_domains(self) -> dict[str, HeadDomain]:
        """Domains of the heads that were added."""
        return {k: row for k, row in self.domains.items() if isinstance(row, HeadDomain)}

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


def head_of(row: Property) -> type[AtomMeanHead] | type[PooledHead]:
    """Kind of head that learns a property."""
    return AtomMeanHead if row.pooling == "atoms" else PooledHead


def _without_defaults(row: Property) -> dict[str, Any]:
    """Fields that differ from their defaults: JSON knows no infinity."""
    return {f.name: v for f in fields(row) if (v := getattr(row, f.name)) != f.default}
