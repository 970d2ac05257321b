"""`qdgnn train`."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from qdgnn_ase.cli.common import (
    condition_columns_option,
    console,
    parse_targets,
    progress_bar,
)
from qdgnn_ase.cli.evaluate import without_nan
from qdgnn_ase.data.targets import read_labelled
from qdgnn_ase.inference.evaluate import Split
from qdgnn_ase.inference.evaluate_properties import evaluate_properties
from qdgnn_ase.inference.predict import Predictor
from qdgnn_ase.nn.speed import tune_process
from qdgnn_ase.training.checkpoint import load_model, load_property_model, write_atomic
from qdgnn_ase.training.config import PropertyTrainConfig, TrainConfig, parse_config
from qdgnn_ase.training.fit import fit

_ATOMS_SEEN = 5_000_000
"""Atoms that a run passes in all."""
_BATCHES = 40
"""Batches per epoch, at least."""
_NEIGHBORS = 60
"""Edges per atom of a dense crystal."""


@click.command()
@click.argument("source", type=click.Path(exists=True))
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME=COLUMN",
    help="SOURCE is labelled data; learn this property from this column.",
)
@condition_columns_option
@click.option(
    "--level",
    "levels",
    multiple=True,
    metavar="COLUMN=CODE/FUNCTIONAL",
    help="With --target: how a column was computed, such as gap=vasp/GLLB-SC. A condition that is "
    "the target from another functional is allowed where both levels are told.",
)
@click.option("--epochs", type=int, help="Passes over the data; the config's if not given.")
@click.option(
    "--init",
    help="With --target: potential whose trunk the model starts from, a checkpoint, 'default' (if "
    "not given) or 'none' for random weights.",
)
@click.option(
    "--extend",
    help="With --target: property model that gains the targets as new heads, a checkpoint or "
    "'properties'; what it predicts already does not change.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="With --target: cross-validation; as many runs, each tested on another part of the "
    "formulas. They start from random weights unless --init says otherwise.",
)
@click.option("--output", "-o", type=Path, required=True, help="Folder of the run.")
def train(
    source: str,
    *,
    targets: tuple[str, ...],
    conditions: tuple[str, ...],
    levels: tuple[str, ...],
    epochs: int | None,
    init: str | None,
    extend: str | None,
    folds: int | None,
    output: Path,
) -> None:
    """Train from a JSON config or from labelled data, or go on with the run in the output folder.

    The config of a potential needs "files", a list of labelled structure files; that of a property
    model "sources", a list of {"file": ..., "columns": {property: column}}. With --target SOURCE is
    a data file (JSON lines, extxyz, ASE database) or a folder with CIF files and id_prop.csv.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if (init or extend or folds) and not targets:
        raise click.UsageError(
            '--init, --extend and --folds need --target; a config has the keys "init" and "extend"'
        )
    if init and extend:
        raise click.UsageError("--init and --extend exclude each other")
    if (conditions or levels) and not targets:
        raise click.UsageError("--condition and --level need --target; a config has keys for them")
    values: dict[str, Any]
    start = init or ("none" if folds or extend else "default")
    values = data_config(source, targets, start, conditions, levels) if targets else _read(source)
    if extend:
        values |= _extension(extend)
    if epochs is not None:
        values["epochs"] = epochs
    try:
        parsed = parse_config(values)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"{source} must hold a training config: {error}") from error
    tune_process()
    if folds and isinstance(parsed, PropertyTrainConfig):
        cross_validate(parsed, folds, output)
        return
    best = fit_with_bar(parsed, output)
    console.print(f"best model: {best}; curve: {output / 'history.png'}")


def cross_validate(config: PropertyTrainConfig, n: int, output: Path) -> None:
    """Train ``n`` runs in folders of ``output``, each tested on another n-th of the formulas."""
    reports = []
    turns = [replace(config, test=1 / n, split_turn=k / n) for k in range(n)]
    for k, turned in enumerate(turns):
        best = fit_with_bar(turned, output / f"fold-{k}")
        reports.append(_test_errors(turned, best))
    summary = {name: _over_folds([r[name] for r in reports]) for name in config.targets}
    document = {"train_config": config.to_dict(), "folds": reports, "summary": summary}
    text = json.dumps(without_nan(document), indent=1, allow_nan=False)
    write_atomic(output / "folds.json", text.encode())
    table = Table("", "unit", "structures", *(f"fold {k}" for k in range(n)), "mean ± std")
    for name, row in summary.items():
        cells = [f"{value:.4g}" for value in row["values"]]
        spread = f"{row['mean']:.4g} ± {row['std']:.2g}"
        table.add_row(f"{name}, {row['metric']}", row["unit"], str(row["n"]), *cells, spread)
    console.print(table)
    console.print(f"wrote {output / 'folds.json'}")


def _test_errors(config: PropertyTrainConfig, best: Path) -> dict[str, Any]:
    """Report of each target on the test fold; the structures of the source, which is one."""
    (source,) = config.sources
    split = Split.of_training(config.to_dict(), "test")
    return evaluate_properties(
        Predictor(best), source.file, source.columns, split=split, conditions=source.conditions
    )


def _over_folds(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean absolute error, or area under the curve of a probability, of the folds that have it."""
    metric = "auc" if any("auc" in row for row in reports) else "mae"
    values = [row.get(metric, math.nan) for row in reports]
    known = [value for value in values if math.isfinite(value)] or [math.nan]
    return {
        "metric": metric.upper(),
        "unit": "" if metric == "auc" else reports[0]["unit"],
        "n": sum(row["structures"] for row in reports),
        "values": values,
        "mean": float(np.mean(known)),
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else math.nan,
    }


def data_config(
    file: str,
    targets: tuple[str, ...],
    init: str,
    conditions: tuple[str, ...] = (),
    levels: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Config of a property model for labelled data.

    Small data sets are passed more often, in smaller batches, so that the steps suffice.
    """
    source = {
        "columns": parse_targets(targets),
        "conditions": parse_targets(conditions, "--condition"),
    }
    try:
        n_atoms = sum(
            len(row.atoms) for row in read_labelled(file, **source, partial=True, bounds=True)
        )
        trunk = {} if init == "none" else load_model(init)[0].config.to_dict()
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error
    return {
        "sources": [{"file": file, **source, "levels": parse_targets(levels, "--level")}],
        "trunk": trunk,
        "init": None if init == "none" else init,
        "epochs": int(np.clip(_ATOMS_SEEN / n_atoms, 15, 200)),
        "max_edges": int(np.clip(_NEIGHBORS * n_atoms / _BATCHES, 2_000, 30_000)),
        "clip": 2.0,
    }


def _extension(model: str) -> dict[str, Any]:
    """What the config of a run that adds heads takes over from their model."""
    try:
        base, _, document = load_property_model(model)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error
    run = document["training"].get("train_config", {})
    split = ("val", "test", "split_seed", "split_turn", "split_by")
    return {
        "extend": model,
        "trunk": base.config.trunk.to_dict(),
        "n_members": base.config.n_members,
        **{name: run[name] for name in split if name in run},
    }


def _read(config: str) -> dict[str, Any]:
    try:
        values = json.loads(Path(config).read_text())
    except (ValueError, OSError) as error:
        raise click.UsageError(
            f"{config} must be a JSON config, got: {error}; give --target NAME=COLUMN for data"
        ) from error
    if not isinstance(values, dict):
        raise click.UsageError(f"{config} must be a JSON object, got {type(values).__name__}")
    return values


def fit_with_bar(config: TrainConfig | PropertyTrainConfig, output: Path) -> Path:
    """`fit` with a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task("training", total=config.epochs, note="")

        def progress(epoch: int, share: float, parts: dict[str, float]) -> None:
            note = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
            bar.update(task, completed=epoch + share, note=f"epoch {epoch + 1}: {note}")

        return fit(config, output, progress)
