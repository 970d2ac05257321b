"""What the training loop must know of a property model: its data, loss and checkpoint."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qdgnn_ase.data.dataset import Sample, Targets, batch_indices, join
from qdgnn_ase.data.splits import Fold, folds_of, reduced_formula
from qdgnn_ase.data.targets import LabelledStructure, bound_table, label_table, read_labelled
from qdgnn_ase.graph import AtomGraph, amounts, basis, site_graph
from qdgnn_ase.nn.property_model import PropertyModel
from qdgnn_ase.quantum.atomic import N_ELEMENTS
from qdgnn_ase.quantum.references import check_elements
from qdgnn_ase.training.checkpoint import load_model, save_property_model
from qdgnn_ase.training.config import PropertyTrainConfig, Source
from qdgnn_ase.training.folds import Provenance
from qdgnn_ase.training.losses import edge_loss, property_errors, property_loss
from qdgnn_ase.training.scaler import Scaler
from qdgnn_ase.training.start import widened

log = logging.getLogger(__name__)

Array = NDArray[np.float64]


class PropertyTask:
    """Several properties at once, missing labels masked.

    Args:
        config: Run.
    """

    def __init__(self, config: PropertyTrainConfig) -> None:
        self.config = config
        self.scaler = Scaler(config.targets)
        self.weights: dict[str, float] = {}
        self.partial = False
        """Whether there are disordered structures or compositions."""
        self.bounded = False
        """Whether there are labels that are upper bounds."""

    def load(self) -> tuple[dict[Fold, list[Sample]], Provenance]:
        """Samples of the folds, scaled by the training fold, and what they are made of.

        Raises:
            ValueError: If a fold is empty, a target has no label in it, or a label is impossible.
        """
        rows: dict[Fold, list[LabelledStructure]] = {"train": [], "val": [], "test": []}
        files = [self._sort(source, rows) for source in self.config.sources]
        for fold in ("train", "val"):
            if not rows[fold]:
                raise ValueError(
                    f"the {fold} fold must hold at least one labelled structure, got none of "
                    f"{files}; give more formulas, split_by 'frame', or other shares val and test"
                )
        self._fit_scaler(rows["train"])
        bases = Counter(basis(row.atoms) for row in rows["train"])
        self.partial = set(bases) != {"structure"}
        self.bounded = any(row.censored for fold in ("train", "val") for row in rows[fold])
        folds: dict[Fold, list[Sample]] = {
            fold: self._samples(rows[fold], fold) for fold in ("train", "val")
        }
        provenance: Provenance = {
            "files": files,
            "train_config": _without_folders(self.config),
            "bases": dict(bases),
        }
        if self.config.init:
            provenance["init"] = load_model(self.config.init)[1]["training"]
            self._compare_splits(provenance["init"]["train_config"])
        return folds, provenance

    def _sort(self, source: Source, rows: dict[Fold, list[LabelledStructure]]) -> dict[str, Any]:
        counts: Counter[str] = Counter()
        found = read_labelled(
            source.file, source.columns, partial=True, bounds=True, conditions=source.conditions
        )
        folds = folds_of(
            [reduced_formula(row.atoms) for row in found],
            val=self.config.val,
            test=self.config.test,
            seed=self.config.split_seed,
            by=self.config.split_by,
            turn=self.config.split_turn,
        )
        for row, fold in zip(found, folds, strict=True):
            if len(row.atoms) > self.config.max_atoms:
                counts["too_large"] += 1
            elif not any(np.isfinite(value) for value in row.labels.values()):
                counts["unlabelled"] += 1
            else:
                counts[fold] += 1
                rows[fold].append(row)
        path = Path(source.file)
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        log.info("%s: %s", path, dict(counts))
        return {"name": path.name, "sha256": digest, "columns": source.columns, **counts}

    def _fit_scaler(self, rows: list[LabelledStructure]) -> None:
        composition = np.array([_composition(row) for row in rows])
        self.scaler.fit(composition, label_table(rows, self.config.targets))
        for name, width in zip(self.config.targets, self.scaler.width.tolist(), strict=True):
            self.weights[name] = self.config.weights.get(name, 1.0) / width

    def _samples(self, rows: list[LabelledStructure], fold: str) -> list[Sample]:
        labels = torch.as_tensor(label_table(rows, self.config.targets), dtype=torch.float32)
        bags = _bags(len(rows), self.config) if fold == "train" else torch.ones(len(rows), 1)
        bounds = torch.as_tensor(bound_table(rows, self.config.targets))
        samples = []
        for row, label, bag, bound in zip(rows, labels, bags, bounds, strict=True):
            try:
                graph = site_graph(row.atoms, self.config.trunk.cutoff)
            except ValueError as error:
                raise ValueError(f"{row.name}: {error}") from error
            if self.partial:  # all batches of a compiled program have the same fields
                graph = graph.with_occupancies()
            graph = self._with_conditions(graph, row)
            scaled = self.scaler.scaled(label[None], graph)
            targets = {"labels": scaled, "bag": bag[None]}
            if self.bounded:
                targets["censored"] = bound[None]
            samples.append(Sample(graph, targets))
        return samples

    def _with_conditions(self, graph: AtomGraph, row: LabelledStructure) -> AtomGraph:
        if not self.config.conditions:
            return graph
        values = [row.conditions.get(name, np.nan) for name in self.config.conditions]
        return replace(graph, conditions=graph.positions.new_tensor([values]))

    def _compare_splits(self, potential: Mapping[str, Any]) -> None:
        names = ("val", "test", "split_seed", "split_turn")
        ours = {name: getattr(self.config, name) for name in names}
        if (theirs := {name: potential.get(name, 0.0) for name in names}) != ours:
            log.warning(
                "the model to start from was trained with the split %s, this run has %s: "
                "compositions of its validation and test folds may be among those it has seen",
                theirs,
                ours,
            )

    def start(self, samples: Sequence[Sample]) -> PropertyModel:
        """Untrained model, or untrained heads on the trunk of a potential."""
        graphs = [sample.graph for sample in samples]
        n_atoms = sum(len(graph.numbers) for graph in graphs)
        neighbors = sum(graph.n_edges for graph in graphs) / n_atoms
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            model = PropertyModel(self.config.model, neighbors=max(1.0, neighbors))
        model.counts.copy_(torch.stack([sites_of_elements(graph) for graph in graphs]).sum(dim=0))
        if model.conditions is not None:
            model.conditions.set_range(torch.cat([model.conditions_of(g) for g in graphs]))
        if self.config.init:
            potential = widened(load_model(self.config.init)[0], self.config.trunk)
            model.trunk.load_state_dict(potential.trunk.state_dict())
            model.set_neighbors(potential.neighbors)
        return model

    def objective(self, forward: Any, graph: Any, targets: Any) -> Any:
        """Weighted sum of the targets' losses."""
        output = self.outputs(forward, graph, targets)
        loss, parts = property_loss(
            output["values"],
            targets["labels"],
            targets["bag"],
            self.scaler,
            self.weights,
            beta=self.config.penalty,
            censored=targets.get("censored"),
        )
        if self.config.autoencoder:
            edges = edge_loss(output["atoms"], graph, self.config.trunk.cutoff)
            loss, parts = loss + self.config.autoencoder * edges, parts | {"edges": edges.detach()}
        return loss, parts

    def outputs(self, forward: Any, graph: Any, targets: Targets) -> dict[str, Tensor]:
        """Values, embedding and features of the atoms of a batch."""
        found: dict[str, Tensor] = forward(graph)
        return found

    def validate(self, model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
        """Error per target, as of `property_errors`."""
        output, targets = self.predictions(model, samples)
        return property_errors(
            output["values"], targets["labels"], self.scaler, targets.get("censored")
        )

    def predictions(
        self, model: nn.Module, samples: Sequence[Sample]
    ) -> tuple[dict[str, Tensor], Targets]:
        """Outputs and targets of all samples."""
        sizes = [sample.graph.n_edges for sample in samples]
        outputs, targets = [], []
        with torch.no_grad():
            for indices in batch_indices(sizes, self.config.max_edges):
                batch = join([samples[index] for index in indices])
                found = self.outputs(model, batch.graph, batch.targets)
                outputs.append({name: found[name] for name in ("values", "embedding")})
                targets.append(batch.targets)
        return _joined(outputs), _joined(targets)

    def calibrate(self, output: dict[str, Tensor], targets: Targets) -> None:
        """Calibrate the scaler; a label that is an upper bound tells no error."""
        labels = targets["labels"]
        if "censored" in targets:
            labels = labels.masked_fill(targets["censored"], torch.nan)
        self.scaler.calibrate(output["values"], labels)

    def save(
        self,
        path: Path,
        model: PropertyModel,
        samples: Sequence[Sample],
        provenance: Provenance,
    ) -> None:
        """Write the model and its scaler; uncertainty and domain come from validation samples."""
        output, targets = self.predictions(model, samples)
        self.calibrate(output, targets)
        model.set_domain(output["embedding"])
        save_property_model(path, model, self.scaler, provenance)


def _joined(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def sites_of_elements(graph: AtomGraph) -> Tensor:
    """(95,) int64, number of sites on which each element is found."""
    if graph.occupancies is None:
        return torch.bincount(graph.numbers, minlength=N_ELEMENTS + 1)
    return (graph.occupancies[:, : N_ELEMENTS + 1] > 0).sum(dim=0)


def _composition(row: LabelledStructure) -> Array:
    """(95,) amount of each element."""
    counts = amounts(row.atoms)
    try:
        check_elements(counts)
    except ValueError as error:
        raise ValueError(f"{row.name}: {error}") from error
    return counts[: N_ELEMENTS + 1]


def _bags(n: int, config: PropertyTrainConfig) -> Tensor:
    """(n, n_members), 1 where a member sees a structure."""
    draws = np.random.default_rng(config.seed).random((n, config.n_members))
    return torch.as_tensor(draws < config.bag, dtype=torch.float32)


def _without_folders(config: PropertyTrainConfig) -> dict[str, Any]:
    values = config.to_dict()
    for source in values["sources"]:
        source["file"] = Path(source["file"]).name
    for name in ("init", "extend"):
        values[name] = Path(values[name]).name if values[name] else None
    return values
