"""One training run of one property model within a budget of CPU time; learning rates tuned alike.

Our model is trained by `qdgnn_ase.fit` with its compiled step, whose compilation counts; the
baselines by the loop of `baseline_training`. Labels are scaled alike (`qdgnn_ase.Scaler`).
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qdgnn_ase import Predictor, PropertyTrainConfig, Scaler, composition_matrix, fit
from qdgnn_bench.baseline_training import Examples, predictions, train
from qdgnn_bench.baselines import BASELINES, Baseline
from qdgnn_bench.property_rows import TEST, VAL, Rows, compared, write_rows

Array = NDArray[np.float64]
Result = dict[str, Any]
LEARNING_RATES = (5e-4, 2e-3)
TUNING_ROWS = 2_000
TUNING_SHARE = 0.1
"""Of a run's CPU time, for each learning rate."""

PRETRAINED = "qdgnn, pretrained"
"""Starts from the trunk of the default potential: the same rows, but it has seen other labels."""
SINGLE_TASK = "qdgnn, single-task"
"""A network for each target, each with the whole time of a run."""
_TRUNK = {"hidden": 96, "quantum": "t0_moments"}
OURS: dict[str, dict[str, Any]] = {
    "qdgnn": {},
    "qdgnn, T0 alone": {"trunk": _TRUNK | {"quantum": "t0"}},
    "qdgnn, permuted quantum": {"trunk": _TRUNK | {"quantum": "permuted"}},
    "qdgnn, no quantum": {"trunk": _TRUNK | {"quantum": "none"}},
    "qdgnn, no attention": {"trunk": _TRUNK | {"attention": False}},
    "qdgnn, no penalty": {"penalty": 0.0},
    "qdgnn, autoencoder": {"autoencoder": 0.3},
    SINGLE_TASK: {},
    PRETRAINED: {"init": "default"},
}
"""Name -> how its run differs from the first."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What all runs share."""

    folds: dict[str, Rows]
    targets: tuple[str, ...]
    minutes: float
    """CPU minutes per run."""
    folder: Path
    """Runs are stored there."""
    test: float = TEST
    """Share of the formulas for the test."""
    turn: float = 0.0
    """Where that share begins, see `qdgnn_ase.fold_of`."""
    counts_compilation: bool = True
    """Whether the compilation of our step is part of the minutes; not while tuning."""


def run(protocol: Protocol, name: str, seed: int) -> Result:
    """Result of one run, computed unless it is stored."""
    stored = result_file(protocol.folder, name, seed)
    if stored.is_file():
        done: Result = json.loads(stored.read_text())
        return done
    trainer = _ours if name in OURS else _baseline
    values, result = trainer(protocol, name, seed, _learning_rate(protocol, name))
    np.save(stored.with_suffix(".npy"), values)
    wanted = compared(protocol.targets, protocol.folds["test"].labels)
    errors = np.abs(values - wanted).mean(axis=0)
    result |= {"model": name, "seed": seed, "mae": dict(zip(protocol.targets, errors, strict=True))}
    stored.write_text(json.dumps(result, indent=1))
    return result


def result_file(folder: Path, name: str, seed: int) -> Path:
    """Where a run's result is stored; its test values lie beside it as .npy."""
    return folder / f"{_slug(name)}-{seed}.json"


def best_model(folder: Path, name: str) -> Path:
    """Checkpoint of a finished run of ours, of any seed: the time is the same."""
    return next(folder.glob(f"{_slug(name)}-[0-9]*-*/best.safetensors"))


def _learning_rate(protocol: Protocol, name: str) -> float:
    """The better of two on the validation fold, after a short run on few rows."""
    stored = protocol.folder / f"{_slug(name)}-tuning.json"
    if not stored.is_file():
        folds = protocol.folds | {"train": protocol.folds["train"].first(TUNING_ROWS)}
        short = replace(
            protocol,
            folds=folds,
            minutes=TUNING_SHARE * protocol.minutes,
            folder=protocol.folder / "tuning",
            counts_compilation=False,
        )
        trainer = _ours if name in OURS else _baseline
        errors = {rate: trainer(short, name, 0, rate)[1]["val_error"] for rate in LEARNING_RATES}
        stored.write_text(json.dumps(errors))
    errors = json.loads(stored.read_text())
    return float(min(errors, key=errors.get))


def _baseline(
    protocol: Protocol, name: str, seed: int, learning_rate: float
) -> tuple[Array, Result]:
    baseline = BASELINES[name]
    scaler = Scaler(protocol.targets)
    known = protocol.folds["train"]
    scaler.fit(composition_matrix([atoms.numbers for atoms in known.structures]), known.labels)
    train_set, val_set, test_set = (
        _examples(baseline, protocol.folds[fold], scaler) for fold in ("train", "val", "test")
    )
    torch.manual_seed(seed)
    trained = train(
        baseline.build(len(protocol.targets)),
        train_set,
        val_set,
        cpu_seconds=60 * protocol.minutes,
        learning_rate=learning_rate,
        seed=seed,
    )
    values = _unscaled(trained.model, test_set, scaler)
    return values, {
        "learning_rate": learning_rate,
        "parameters": _size(trained.model),
        "epochs": trained.epochs,
        "cpu_minutes": trained.cpu_seconds / 60,
        "val_error": trained.val_error,
    }


def _examples(baseline: Baseline, rows: Rows, scaler: Scaler) -> Examples:
    graphs = [baseline.graph(atoms) for atoms in rows.structures]
    labels = torch.as_tensor(rows.labels, dtype=torch.float32)
    scaled = [scaler.scaled(row[None], graph) for row, graph in zip(labels, graphs, strict=True)]
    return Examples(graphs, torch.cat(scaled))


def _unscaled(model: nn.Module, examples: Examples, scaler: Scaler) -> Array:
    """Test values on the scale that is compared, not below a property's bound."""
    scaled = predictions(model, examples.graphs)[:, :, None]
    rows = [
        scaler.transformed_values(row[None], graph)[0, :, 0]
        for row, graph in zip(scaled, examples.graphs, strict=True)
    ]
    values = torch.stack(rows).double().numpy()
    bounds = [row.lower if row.scale == "linear" else -np.inf for row in scaler.properties]
    bounded: Array = np.maximum(values, bounds)
    return bounded


def _ours(protocol: Protocol, name: str, seed: int, learning_rate: float) -> tuple[Array, Result]:
    rows = protocol.folder / "rows.jsonl"
    if not rows.is_file():
        write_rows(rows, list(protocol.folds.values()), protocol.targets)
    if name != SINGLE_TASK:
        return _our_run(protocol, name, rows, seed, learning_rate)
    values, results = [], []
    for target in protocol.targets:
        folder = single_folder(protocol, target)
        folder.mkdir(exist_ok=True)
        alone = replace(protocol, targets=(target,), folder=folder)
        found, result = _our_run(alone, name, rows, seed, learning_rate)
        values.append(found)
        results.append(result)
    summed = ("parameters", "epochs", "cpu_minutes", "val_error")
    together = {key: sum(result[key] for result in results) for key in summed}
    return np.hstack(values), {"learning_rate": learning_rate, **together}


def single_folder(protocol: Protocol, target: str) -> Path:
    """Where the networks of one target alone are stored."""
    return protocol.folder / f"{_slug(SINGLE_TASK)}-{target}"


def _our_run(
    protocol: Protocol, name: str, rows: Path, seed: int, learning_rate: float
) -> tuple[Array, Result]:
    seconds, overhead = _epoch_seconds(protocol, name, rows)
    spare = 60 * protocol.minutes - (overhead if protocol.counts_compilation else 0)
    epochs = max(2, int(spare / seconds))
    config = _config(protocol, name, rows, seed, learning_rate, epochs)
    folder = protocol.folder / f"{_slug(name)}-{seed}-{learning_rate}"
    started = sum(os.times()[:4])
    best = fit(config, folder)
    spent = sum(os.times()[:4]) - started
    predictor = Predictor(best)
    found = predictor(protocol.folds["test"].structures)
    values = np.array([[row[target].value for target in protocol.targets] for row in found])
    history = _history(folder)
    return compared(protocol.targets, values), {
        "learning_rate": learning_rate,
        "parameters": _size(predictor.model),
        "epochs": epochs,
        "cpu_minutes": spent / 60,
        "val_error": min(row["val_loss"] for row in history),
    }


def _epoch_seconds(protocol: Protocol, name: str, rows: Path) -> tuple[float, float]:
    """CPU seconds of an epoch on these rows, and of everything that is done once."""
    stored = protocol.folder / f"{_slug(name)}-timing.json"
    if not stored.is_file():
        folder = stored.with_suffix("")
        started = sum(os.times()[:4])
        fit(_config(protocol, name, rows, 0, LEARNING_RATES[0], epochs=3), folder)
        total = sum(os.times()[:4]) - started
        second = float(np.mean([row["cpu_seconds"] for row in _history(folder)[1:]]))
        stored.write_text(json.dumps([second, max(0.0, total - 3 * second)]))
    second, overhead = json.loads(stored.read_text())
    return second, overhead


def _history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open() as lines:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]


def _config(
    protocol: Protocol, name: str, rows: Path, seed: int, learning_rate: float, epochs: int
) -> PropertyTrainConfig:
    weights = {"metal_probability": 0.2} if "band_gap" in protocol.targets else {}
    return PropertyTrainConfig.from_dict(
        {
            "sources": [{"file": str(rows), "columns": {name: name for name in protocol.targets}}],
            "trunk": _TRUNK,
            "weights": weights,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "weight_decay": 1e-2,
            "clip": 2.0,
            "bag": 0.8,
            "ema": 0.99,
            "max_edges": 15_000,
            "compiled": True,
            "seed": seed,
            "val": VAL,
            "test": protocol.test,
            "split_turn": protocol.turn,
        }
        | OURS[name]
    )


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")
