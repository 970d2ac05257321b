"""New heads on the frozen trunk of a property model; what it predicts already stays bit for bit.

The features of the atoms are computed once, only the new heads are trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qdgnn_ase.data.dataset import Sample, Targets
from qdgnn_ase.data.splits import Fold
from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.domain import HeadDomain
from qdgnn_ase.nn.property_model import PropertyModel, head_of
from qdgnn_ase.nn.readout import Pool
from qdgnn_ase.properties import Property
from qdgnn_ase.quantum.atomic import N_ELEMENTS
from qdgnn_ase.training.checkpoint import load_property_model, save_property_model
from qdgnn_ase.training.config import PropertyTrainConfig
from qdgnn_ase.training.folds import Provenance
from qdgnn_ase.training.property_task import PropertyTask, sites_of_elements
from qdgnn_ase.training.scaler import Scaler


class AddedHeads(nn.Module):
    """Heads on features of atoms that another model computed, and their domain.

    Args:
        properties: What each head learns.
        hidden: Width of the features.
        n_members: Members of each head.
    """

    def __init__(self, properties: Sequence[Property], hidden: int, n_members: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {row.name: head_of(row)(hidden, n_members) for row in properties}
        )
        self.domain = HeadDomain(N_ELEMENTS + 1, hidden)

    def forward(self, graph: AtomGraph, atoms: Tensor) -> dict[str, Tensor]:
        """As of `PropertyModel`, from features of the atoms (n_atoms, hidden)."""
        pool = Pool(graph)
        values = [head(atoms, pool) for head in self.heads.values()]
        return {"values": torch.stack(values, dim=1), "embedding": pool.mean(atoms)}


class HeadTask(PropertyTask):
    """Training of new heads for the property model ``config.extend``.

    Args:
        config: Run.

    Raises:
        ValueError: If the model predicts a target already, has conditions, or another architecture
            than the config.
    """

    def __init__(self, config: PropertyTrainConfig) -> None:
        super().__init__(config)
        self.base, self.base_scaler, self.document = load_property_model(str(config.extend))
        _check(config, self.base)
        self.base.requires_grad_(False)

    def load(self) -> tuple[dict[Fold, list[Sample]], Provenance]:
        """Samples with the features of their atoms; as of `PropertyTask`."""
        folds, provenance = super().load()
        self._compare_splits(self.document["training"]["train_config"])
        return {
            fold: [self._with_features(sample) for sample in samples]
            for fold, samples in folds.items()
        }, provenance

    def _with_features(self, sample: Sample) -> Sample:
        atoms, _ = self.base.features(sample.graph)
        return Sample(sample.graph, sample.targets | {"atoms": atoms})

    def start(self, samples: Sequence[Sample]) -> Any:
        """Untrained heads, with the domain of the samples: the trunk has learned none of them."""
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            heads = AddedHeads(
                self.scaler.properties, self.config.trunk.hidden, self.config.n_members
            )
        sites = torch.stack([sites_of_elements(sample.graph) for sample in samples])
        heads.domain.set_elements(sites)
        heads.domain.set_domain(self.predictions(heads, samples)[0]["embedding"])
        return heads

    def outputs(self, forward: Any, graph: Any, targets: Targets) -> dict[str, Tensor]:
        """Values and embedding of a batch."""
        found: dict[str, Tensor] = forward(graph, targets["atoms"])
        return found

    def save(
        self, path: Path, model: Any, samples: Sequence[Sample], provenance: Provenance
    ) -> None:
        """Write the model with the new heads; their uncertainty comes from validation samples."""
        self.calibrate(*self.predictions(model, samples))
        training = self.document["training"]
        run = {"targets": list(self.config.targets), **provenance}
        added = [*training.get("added", ()), run]
        scaler = Scaler([*self.base_scaler.properties, *self.scaler.properties])
        ours = self.scaler.state_dict()
        scaler.load_state_dict(
            {name: torch.cat([v, ours[name]]) for name, v in self.base_scaler.state_dict().items()}
        )
        save_property_model(path, extended(self.base, model), scaler, training | {"added": added})


def extended(base: PropertyModel, added: AddedHeads) -> PropertyModel:
    """``base`` with more heads."""
    names = tuple(added.heads)
    config = replace(
        base.config,
        targets=base.config.targets + names,
        added=base.config.added + names,
    )
    with torch.random.fork_rng():
        model = PropertyModel(config, neighbors=base.neighbors)
    heads = {f"heads.{name}": value for name, value in added.heads.state_dict().items()}
    domain = {
        f"domains.{name}.{key}": value
        for name in names
        for key, value in added.domain.state_dict().items()
    }
    model.load_state_dict(base.state_dict() | heads | domain)
    return model.eval()


def _check(config: PropertyTrainConfig, base: PropertyModel) -> None:
    if known := sorted(set(config.targets) & set(base.config.targets)):
        raise ValueError(f"targets must be new to the model {config.extend}, got {known}")
    if config.conditions or base.config.conditions:
        raise ValueError(
            "heads can be added without conditions only, got "
            f"{[*config.conditions, *base.config.conditions]}"
        )
    ours, theirs = (config.trunk, config.n_members), (base.config.trunk, base.config.n_members)
    if ours != theirs:
        raise ValueError(
            f"trunk and n_members must be those of {config.extend}, {theirs}, got {ours}"
        )
