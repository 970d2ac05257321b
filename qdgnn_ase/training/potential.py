"""What the training loop must know of a potential: its data, loss and checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from qdgnn_ase.data.dataset import Sample, batch_indices, join
from qdgnn_ase.data.splits import Fold
from qdgnn_ase.nn.derivatives import energy_forces_stress
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.training.checkpoint import load_model, save_model
from qdgnn_ase.training.config import TrainConfig
from qdgnn_ase.training.folds import Provenance, load_folds
from qdgnn_ase.training.losses import LossWeights, potential_loss
from qdgnn_ase.training.start import start_model
from qdgnn_ase.training.step import Objective


class PotentialTask:
    """Energy, forces and stress.

    Args:
        config: Run.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.weights = asdict(config.loss)
        self.objective = potential_objective(config.loss)

    def load(self) -> tuple[dict[Fold, list[Sample]], Provenance]:
        """Samples of the folds and what they are made of."""
        folds, provenance = load_folds(self.config)
        if self.config.init:
            provenance["init"] = load_model(self.config.init)[1]["training"]
        return folds, provenance

    def start(self, samples: Sequence[Sample]) -> QDGNN:
        """Model to train."""
        return start_model(self.config, samples)

    def validate(self, model: QDGNN, samples: Sequence[Sample]) -> dict[str, float]:
        """Mean loss parts over samples, each batch weighted by its structures."""
        sizes = [sample.graph.n_edges for sample in samples]
        rows, weights = [], []
        for indices in batch_indices(sizes, self.config.max_edges):
            batch = join([samples[index] for index in indices])
            output = energy_forces_stress(model, batch.graph)
            part = potential_loss(output, batch.targets, batch.graph, self.config.loss)[1]
            rows.append({name: float(value) for name, value in part.items()})
            weights.append(len(indices))
        return {
            name: float(np.average([row[name] for row in rows], weights=weights))
            for name in rows[0]
        }

    def save(self, path: Path, model: QDGNN, _: Sequence[Sample], provenance: Provenance) -> None:
        """Write the model."""
        save_model(path, model, provenance)


def potential_objective(weights: LossWeights) -> Objective:
    """Loss of energy, forces and stress, differentiable once more."""
    return lambda forward, graph, targets: potential_loss(
        energy_forces_stress(forward, graph, training=True), targets, graph, weights
    )
