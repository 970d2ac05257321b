"""Training: one visible loop for potentials and property models, resumable after a crash.

A run is a folder: ``config.json``, ``last.safetensors`` (everything needed to go on),
``best.safetensors`` (the averaged weights with the lowest validation loss, a model to load),
``history.csv`` and ``history.png``. The order of the data depends on seed and epoch only and the
state is saved at each epoch's end, so a killed run goes on with the same curve.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from qdgnn_ase.data.dataset import Sample, batch_indices, join
from qdgnn_ase.training.checkpoint import write_atomic
from qdgnn_ase.training.claim import check_claim
from qdgnn_ase.training.config import PropertyTrainConfig, RunConfig, TrainConfig
from qdgnn_ase.training.head_task import HeadTask
from qdgnn_ase.training.history import History, draw_history, write_history
from qdgnn_ase.training.potential import PotentialTask
from qdgnn_ase.training.property_task import PropertyTask
from qdgnn_ase.training.state import TrainState
from qdgnn_ase.training.step import make_step

log = logging.getLogger(__name__)

_REDRAW_SECONDS = 20.0
"""Between drawings of the curve while a run goes on: short epochs take less time than a picture."""

Parts = dict[str, float]
Progress = Callable[[int, float, Parts], None]
"""Called after each batch with the epoch, the share of it that is done, and the loss parts."""


def fit(
    config: TrainConfig | PropertyTrainConfig,
    folder: str | Path,
    progress: Progress | None = None,
) -> Path:
    """Train, or go on with, the run in ``folder``; returns the path of the best model.

    Raises:
        ValueError: If the folder holds a run of another config, or a fold is empty.
        FloatingPointError: If the loss is no longer finite; the last good state is kept.
    """
    folder = Path(folder)
    check_claim(folder, config)
    task = _task(config)
    folds, provenance = task.load()
    write_atomic(folder / "config.json", json.dumps(config.to_dict(), indent=2).encode())
    train, val = folds["train"], folds["val"]
    batches_per_epoch = len(_batches(train, config, epoch=0))
    state = TrainState(task.start(train), config, config.epochs * batches_per_epoch * 102 // 100)
    step = make_step(state.model, task.objective, train, compiled=config.compiled)
    last = folder / "last.safetensors"
    history: History = state.restore(last, provenance["files"]) if last.is_file() else []
    if history:
        write_history(folder, history)  # the run may have died before it did
    drawn = perf_counter()
    for epoch in range(len(history), config.epochs):
        if _is_stale(history, config.patience):
            log.info("no better validation loss in %d epochs: stopped", config.patience)
            break
        started = perf_counter(), process_time()
        parts: list[Parts] = []
        batches = _batches(train, config, epoch)
        for indices in batches:
            loss, part, gradients = step(join([train[index] for index in indices]))
            state.step(loss, gradients)
            parts.append({name: float(value) for name, value in part.items()})
            if progress:
                progress(epoch, len(parts) / len(batches), parts[-1])
        scores = task.validate(state.averaged_model(), val)
        seconds = {
            "seconds": perf_counter() - started[0],
            "cpu_seconds": process_time() - started[1],
        }
        history.append(_row(epoch, parts, scores, task.weights) | seconds)
        if not np.isfinite(history[-1]["val_loss"]):
            raise FloatingPointError(f"validation loss must be finite, got {scores}")
        if history[-1]["val_loss"] <= min(row["val_loss"] for row in history):
            best = state.averaged_model()
            task.save(folder / "best.safetensors", best, val, provenance | history[-1])
        state.save(last, history, provenance["files"])
        write_history(folder, history)
        if perf_counter() - drawn > _REDRAW_SECONDS:
            draw_history(folder, history)
            drawn = perf_counter()
    draw_history(folder, history)
    return folder / "best.safetensors"


def _task(config: TrainConfig | PropertyTrainConfig) -> Any:
    """Its data, start, objective, validation and checkpoint."""
    if isinstance(config, TrainConfig):
        return PotentialTask(config)
    return HeadTask(config) if config.extend else PropertyTask(config)


def _batches(samples: Sequence[Sample], config: RunConfig, epoch: int) -> list[list[int]]:
    """Shuffled batches of an epoch; seed and epoch alone determine them."""
    order = np.random.default_rng([config.seed, epoch]).permutation(len(samples))
    sizes = [sample.graph.n_edges for sample in samples]
    return list(batch_indices(sizes, config.max_edges, order.tolist()))


def _row(
    epoch: int, parts: Sequence[Parts], scores: Parts, weights: Mapping[str, float]
) -> dict[str, float]:
    train = {f"train_{name}": float(np.nanmean([part[name] for part in parts])) for name in scores}
    val = {f"val_{name}": value for name, value in scores.items()}
    total = sum(weights[name] * value for name, value in scores.items())
    return {"epoch": epoch, **train, **val, "val_loss": total}


def _is_stale(history: History, patience: int) -> bool:
    losses = [row["val_loss"] for row in history]
    return bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience
