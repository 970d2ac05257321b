"""QDGNNModel: the core's property model behind DeepChem's `TorchModel` interface."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepchem.data import Dataset
from deepchem.models.optimizers import Adam
from deepchem.models.torch_models import TorchModel
from deepchem.trans import undo_transforms
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from qdgnn_ase import (
    PROPERTIES,
    AtomGraph,
    Property,
    PropertyConfig,
    PropertyModel,
    QDGNNConfig,
    Scaler,
    collate,
    composition_matrix,
    load_property_model,
    property_loss,
    save_property_model,
)
from qdgnn_deepchem.crystal_graph import CrystalGraph
from qdgnn_deepchem.featurizer import QDGNNFeaturizer
from qdgnn_deepchem.network import Network
from qdgnn_deepchem.optimizers import Clipped
from qdgnn_deepchem.tasks import Mode, masked_labels, task_rows

Array = NDArray[np.float64]
Batch = tuple[Any, Any, Any]
OUTPUTS = ["prediction", "variance", "loss", "embedding"]
CORE_FILE = "qdgnn.safetensors"
"""Beside DeepChem's checkpoints: the last one, for `qdgnn_ase.Predictor` and `qdgnn predict`."""


class UncalibratedError(ValueError):
    """The spread of the heads was not compared with errors since the last training step."""


class QDGNNModel(TorchModel):  # type: ignore[misc]  # DeepChem has no types
    """Properties of crystals by the quantum-informed network with an ensemble of heads per task.

    Takes data sets of `QDGNNFeaturizer`'s graphs, or of structures. Labels are scaled by what the
    first training data show, so a `NormalizationTransformer` is welcome and not needed. Weights w
    of the data set weigh the labels; w = 0 and NaN mask them.

    Example:
        >>> model = QDGNNModel(n_tasks=1, mode="regression", batch_size=32, learning_rate=0.001)
        >>> loss = model.fit(train, nb_epoch=50)
        >>> model.calibrate(valid)
        >>> value, std = model.predict_uncertainty(test)

    Args:
        n_tasks: Tasks, if ``tasks`` does not name them.
        mode: "regression", or "classification" with labels 0 and 1.
        n_classes: 2; of DeepChem's signature. For more, give each class a task.
        tasks: Names of `qdgnn_ase.PROPERTIES` (labels in their units; moduli, for example, are
            then learned as logarithms), other names, or `Property` rows of your own.
        trunk: Architecture; that of the embedded weights if not given.
        n_members: Heads per task, which learn quantiles; their spread is the uncertainty.
        bag: Share of the training data that each head sees.
        seed: Of the initial weights and of who sees what.
        **options: Of `TorchModel`: batch_size, learning_rate (a number or a schedule), optimizer,
            model_dir, device, log_frequency, regularization_loss ...

    Raises:
        ValueError: If an argument is impossible.
    """

    def __init__(
        self,
        n_tasks: int = 1,
        mode: Mode = "regression",
        n_classes: int = 2,
        *,
        tasks: Sequence[str | Property] | None = None,
        trunk: QDGNNConfig | None = None,
        n_members: int = 8,
        bag: float = 0.8,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if mode == "classification" and n_classes != 2:
            raise ValueError(f"n_classes must be 2 (one task per class for more), got {n_classes}")
        if not 0 < bag <= 1:
            raise ValueError(f"bag must lie in (0, 1], got {bag}")
        rows = task_rows(tasks or [f"task_{k}" for k in range(n_tasks)], mode)
        config = PropertyConfig(
            targets=tuple(row.name for row in rows),
            trunk=trunk or QDGNNConfig(hidden=96, quantum="t0_moments"),
            n_members=n_members,
            own=tuple(row for row in rows if row.name not in PROPERTIES),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network(PropertyModel(config), classes=mode == "classification")
        self.config, self.mode, self.bag, self.seed = config, mode, bag, seed
        self._featurizer = QDGNNFeaturizer(config.trunk.cutoff, quantum="none")
        rate = options.pop("learning_rate", 1e-3)
        optimizer = Clipped(options.pop("optimizer", None) or Adam(learning_rate=rate))
        super().__init__(network, self._loss, output_types=OUTPUTS, optimizer=optimizer, **options)

    @classmethod
    def from_pretrained(cls, model: str | Path = "properties", **options: Any) -> QDGNNModel:
        """Model with the weights, heads and architecture of a checkpoint of the core.

        Args:
            model: "properties" (the embedded weights) or a checkpoint of `qdgnn train` or of
                `save_checkpoint` (`CORE_FILE` in the model's folder).
            **options: Of the constructor; ``tasks`` may name some of the checkpoint's targets.
        """
        config = load_property_model(model)[0].config
        rows = {row.name: row for row in config.properties}
        tasks = [rows.get(name, name) for name in options.pop("tasks", rows)]
        made = cls(tasks=tasks, trunk=config.trunk, n_members=config.n_members, **options)
        made.load_from_pretrained(model)
        return made

    # training

    def fit(
        self,
        dataset: Dataset,
        nb_epoch: int = 10,
        max_checkpoints_to_keep: int = 5,
        checkpoint_interval: int = 1000,
        deterministic: bool = False,
        restore: bool = False,
        variables: list[torch.nn.Parameter] | None = None,
        loss: Callable[..., Any] | None = None,
        callbacks: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
        all_losses: list[float] | None = None,
        *,
        progress: bool = False,
    ) -> float:
        """Train; arguments and result as `TorchModel.fit`.

        A ``loss`` of your own gets [members (n, n_tasks, n_members)], [labels (n, n_tasks)], both
        scaled, and [weights (n, n_tasks, n_members)].

        Args:
            dataset: Graphs or structures with labels and weights.
            nb_epoch: Passes over it.
            max_checkpoints_to_keep: Older ones are deleted.
            checkpoint_interval: Steps between two; 0 for none.
            deterministic: Keep the order of the data.
            restore: Go on from the last checkpoint.
            variables: Train these parameters only, e.g. `head_parameters`.
            loss: Instead of the core's.
            callbacks: Called with model and step after each step, e.g. `ValidationCallback`.
            all_losses: Logged losses are appended to it.
            progress: Show a bar.

        Raises:
            ValueError: If a task has no label, or one that its property does not allow.
            FloatingPointError: If the loss is no longer finite.
        """
        self._prepare(dataset)
        steps = nb_epoch * ceil(len(dataset) / self.batch_size)
        batches = track(
            self.default_generator(dataset, epochs=nb_epoch, deterministic=deterministic),
            description="training",
            total=steps,
            disable=not progress,
        )
        last_loss: float = self.fit_generator(
            batches,
            max_checkpoints_to_keep,
            checkpoint_interval,
            restore,
            variables,
            loss,
            callbacks,
            all_losses,
        )
        return last_loss

    def fit_generator(
        self,
        generator: Any,
        max_checkpoints_to_keep: int = 5,
        checkpoint_interval: int = 1000,
        restore: bool = False,
        *options: Any,
        **named: Any,
    ) -> float:
        """As `TorchModel.fit_generator`; the labels' scale is that of the last `fit`."""
        if restore:
            self.restore()
        self.model.scaler.calibration.fill_(torch.nan)  # of other weights
        loss: float = super().fit_generator(
            generator, max_checkpoints_to_keep, checkpoint_interval, False, *options, **named
        )
        return loss

    def calibrate(self, dataset: Dataset) -> None:
        """Compare the heads' spread with their errors on data that was not trained on.

        Afterwards `predict_uncertainty` gives standard deviations, and the core's predictions tell
        whether a structure is like these data. Call `save_checkpoint` to keep it.

        Args:
            dataset: Validation data, transformed as the training data.

        Raises:
            ValueError: If there are none.
        """
        if not len(dataset):
            raise ValueError("calibration needs labelled structures, got an empty data set")
        parts = []
        self.model.eval()
        with torch.no_grad():
            for batch in super().default_generator(dataset, pad_batches=False):
                graph, labels, _ = self._prepare_batch(batch)
                output = self.model.core(graph)
                parts.append((output["values"], labels[0], output["embedding"]))
        values, scaled, embedding = (torch.cat(part) for part in zip(*parts, strict=True))
        self.model.scaler.calibration.fill_(torch.nan)  # of tasks without a label here
        self.model.scaler.calibrate(values, scaled)
        self.model.core.set_domain(embedding)

    @property
    def head_parameters(self) -> list[torch.nn.Parameter]:
        """Parameters above the trunk, for ``fit(..., variables=...)``."""
        return list(self.model.core.heads.parameters())

    def _prepare(self, dataset: Dataset) -> None:
        """Check labels; before the first training take scale, elements and neighbours from them."""
        labels = masked_labels(dataset.y, dataset.w, len(self.config.targets))
        composition, n_edges = [], 0
        for features, *_ in dataset.iterbatches(self.batch_size, deterministic=True):
            graphs = [self._graph(x) for x in features]
            composition.append(composition_matrix([graph.numbers.numpy() for graph in graphs]))
            n_edges += sum(graph.n_edges for graph in graphs)
        counts = np.concatenate(composition)
        scaler = Scaler(self.config.properties)
        scaler.fit(counts, labels)
        core = self.model.core
        if bool(core.counts.any()):
            return
        self.model.scaler.load_state_dict(scaler.state_dict())
        core.counts.copy_(torch.as_tensor(counts.sum(axis=0)))
        if not self.model.has_pretrained_trunk:  # which works with the neighbours it learned with
            core.set_neighbors(max(1.0, n_edges / float(counts.sum())))

    def _loss(self, outputs: list[Tensor], labels: list[Tensor], weights: list[Tensor]) -> Tensor:
        scaler = self.model.scaler
        shares = dict(zip(self.config.targets, (1 / scaler.width).tolist(), strict=True))
        bag = weights[0] if weights[0].ndim == 3 else weights[0][:, :, None]
        loss, _ = property_loss(outputs[0], labels[0], bag, scaler, shares)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(
                f"the loss must be finite, got {loss.item()}; go back to a checkpoint and lower "
                "learning_rate"
            )
        return loss if self.regularization_loss is None else loss + self.regularization_loss()

    # batches

    def default_generator(
        self,
        dataset: Dataset,
        epochs: int = 1,
        mode: str = "fit",
        deterministic: bool = True,
        pad_batches: bool = False,
    ) -> Iterator[Batch]:
        """Batches; in training with the weight of each label for each head."""
        for _ in range(epochs):
            for x, y, w, ids in dataset.iterbatches(
                batch_size=self.batch_size, deterministic=deterministic, pad_batches=pad_batches
            ):
                if mode == "fit" and w is not None:
                    w = w.reshape(len(x), -1)[:, :, None] * self._bags(ids)[:, None]
                yield [x], [y], [w]

    def _bags(self, ids: Any) -> Array:
        """(n, n_members), 1 where a head sees a structure: a function of its id and the seed."""
        seeds = [[self.seed, zlib.crc32(str(name).encode())] for name in ids]
        draws = [np.random.default_rng(seed).random(self.config.n_members) for seed in seeds]
        return (np.array(draws) < self.bag).astype(np.float64)

    def _prepare_batch(self, batch: Batch) -> tuple[AtomGraph, list[Tensor], list[Tensor]]:
        """Graph on the device, scaled labels with NaN where there is none, and weights."""
        inputs, labels, weights = batch
        graph = collate([self._graph(x) for x in inputs[0]]).to(self.device)
        if labels is None or labels[0] is None:
            return graph, [], []
        n_tasks = len(self.config.targets)
        y, w = labels[0], np.ones_like(labels[0]) if weights is None else weights[0]
        masked = masked_labels(y, w if w.ndim < 3 else w.max(axis=2), n_tasks)
        tensor = torch.as_tensor(masked, dtype=torch.float32, device=self.device)
        weight = torch.as_tensor(w, dtype=torch.float32, device=self.device)
        return graph, [self.model.scaler.scaled(tensor, graph)], [weight]

    def _graph(self, features: Any) -> AtomGraph:
        if not isinstance(features, CrystalGraph):
            features = self._featurizer.graph(features)
        if features.cutoff != self.config.trunk.cutoff:
            raise ValueError(
                f"graphs must have the model's cutoff {self.config.trunk.cutoff} Å, got "
                f"{features.cutoff}; featurize with QDGNNFeaturizer(cutoff=...)"
            )
        graph: AtomGraph = features.to_atom_graph()
        return graph

    # predictions

    def _predict(self, *arguments: Any) -> Any:
        with torch.no_grad():
            return super()._predict(*arguments)

    def predict_uncertainty(
        self, dataset: Dataset, masks: int | None = None, transformers: Sequence[Any] = ()
    ) -> tuple[Array, Array]:
        """Predictions and their standard deviations: the calibrated spread of the heads.

        Args:
            dataset: Graphs or structures.
            masks: Dropout masks of DeepChem's signature; the ensemble has its size.
            transformers: Undone, to first order for the standard deviations.

        Returns:
            Two arrays in the shape of `predict`'s.

        Raises:
            UncalibratedError: If the spread was not calibrated since the last training.
        """
        batches = self.default_generator(dataset, mode="uncertainty")
        ((value, variance),) = self._predict(batches, [], True, None)
        std = np.sqrt(variance)
        if not np.isfinite(std).all():
            raise UncalibratedError(
                "uncertainty must be calibrated after training; call calibrate(validation data)"
            )
        if not transformers:
            return value, std
        low, high = (undo_transforms(value + k * std, list(transformers)) for k in (-0.5, 0.5))
        return undo_transforms(value, list(transformers)), np.abs(high - low)

    # checkpoints

    def save_checkpoint(
        self, max_checkpoints_to_keep: int = 5, model_dir: str | None = None
    ) -> None:
        """Write DeepChem's checkpoint and `CORE_FILE`, which the core reads."""
        super().save_checkpoint(max_checkpoints_to_keep, model_dir)
        if max_checkpoints_to_keep:
            save_property_model(
                Path(model_dir or self.model_dir) / CORE_FILE,
                self.model.core,
                self.model.scaler,
                {"deepchem_steps": self.get_global_step(), "mode": self.mode},
            )

    def restore(
        self, checkpoint: str | None = None, model_dir: str | None = None, strict: bool = True
    ) -> None:
        """As `TorchModel.restore`, and the learning rate goes on where it was.

        Args:
            checkpoint: File; the last one if not given.
            model_dir: Folder; the model's own if not given.
            strict: Whether all weights must be there.

        Raises:
            ValueError: If there is no checkpoint, or it is of other tasks or another architecture.
        """
        super().restore(checkpoint, model_dir, strict)
        if self._lr_schedule is not None:
            self._lr_schedule.last_epoch = self.get_global_step()

    def save(self) -> None:
        """As `save_checkpoint`."""
        self.save_checkpoint()

    def reload(self) -> None:
        """As `restore`."""
        self.restore()

    def load_from_pretrained(
        self,
        source_model: str | Path | QDGNNModel = "properties",
        assignment_map: Any = None,
        value_map: Any = None,
        checkpoint: str | None = None,
        model_dir: str | None = None,
        include_top: bool = True,
        inputs: Any = None,
        **kwargs: Any,
    ) -> None:
        """Take over pretrained weights; `from_pretrained` makes a model that fits them.

        Args:
            source_model: "properties" (the embedded weights), a checkpoint of the core, or another
                QDGNNModel, which is first restored from its last checkpoint, as DeepChem does.
            assignment_map: As in `TorchModel.load_from_pretrained`.
            value_map: As in `TorchModel.load_from_pretrained`.
            checkpoint: Of another QDGNNModel, in place of its last.
            model_dir: Folder of that checkpoint.
            include_top: Heads and labels' scale too, by name; else the trunk only, and the scale
                comes from the next training data.
            inputs: As in `TorchModel.load_from_pretrained`.
            **kwargs: As in `TorchModel.load_from_pretrained`.

        Raises:
            ValueError: If architecture or (with the heads) tasks differ.
        """
        if assignment_map is not None or value_map is not None:
            super().load_from_pretrained(
                source_model, assignment_map, value_map, checkpoint, model_dir, include_top, inputs
            )
            return
        if isinstance(source_model, QDGNNModel):
            source_model.restore(checkpoint=checkpoint, model_dir=model_dir)
            core, scaler = source_model.model.core, source_model.model.scaler
        else:
            core, scaler, _ = load_property_model(source_model, self.device)
        self._ensure_built()
        if include_top:
            self.model.take(core, scaler)
        else:
            self.model.take_trunk(core)
