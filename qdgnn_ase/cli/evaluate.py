"""`qdgnn evaluate`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from ase import Atoms
from rich.table import Table

from qdgnn_ase.cli.common import (
    condition_columns_option,
    console,
    dtype_option,
    existing_path,
    new_database,
    parse_targets,
    progress_bar,
)
from qdgnn_ase.data.database import write_rows
from qdgnn_ase.data.io import read_structures
from qdgnn_ase.inference.calculator import QDGNNCalculator
from qdgnn_ase.inference.evaluate import METRICS, Evaluation, Split, frame_errors
from qdgnn_ase.inference.evaluate_properties import evaluate_properties
from qdgnn_ase.inference.predict import Predictor
from qdgnn_ase.inference.provenance import measured
from qdgnn_ase.training.checkpoint import load_model, write_atomic

_COLUMNS = {
    "energy_mae": "E MAE\neV/atom",
    "energy_rmse": "E RMSE\neV/atom",
    "energy_mae_shifted": "E MAE\n- median",
    "forces_mae": "F MAE\neV/Å",
    "stress_mae": "S MAE\nGPa",
}

_PROPERTY_METRICS = {
    "MAE": "mae",
    "RMSE": "rmse",
    "R2": "r2",
    "MAE of log10": "log10_mae",
    "MAPE": "mape",
    "accuracy": "accuracy",
    "AUC": "auc",
    "calibration error": "calibration_error",
    "within 1 sigma": "within_sigma",
    "Spearman(|error|, sigma)": "spearman",
    "in domain": "in_domain",
}


@click.command()
@click.argument("files", nargs=-1, required=True, callback=existing_path)
@click.option("--model", help="Embedded model or checkpoint file.  [default: default, properties]")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME=COLUMN",
    help="Evaluate a property model on this column.",
)
@condition_columns_option
@dtype_option
@click.option("--max-atoms", type=int, help="Skip larger structures.")
@click.option(
    "--fold",
    type=click.Choice(["train", "val", "test"]),
    help="Only the frames of this fold of the model's own training split.",
)
@click.option("--json", "output", type=Path, help="Write all figures to this file.")
@click.option(
    "--db",
    "database",
    type=Path,
    callback=new_database,
    help="New ASE database of the structures with their errors; without --target.",
)
def evaluate(
    files: tuple[str, ...],
    model: str | None,
    targets: tuple[str, ...],
    conditions: tuple[str, ...],
    dtype: str,
    max_atoms: int | None,
    fold: Any,
    output: Path | None,
    database: Path | None,
) -> None:
    """Errors of a model on labelled structures, per file, with 95 % intervals over formulas.

    Energy, forces and stress of a potential, or with --target the properties of a property model.
    An ASE database may come with a selection: 'set.db@natoms<20'.
    """
    short = [Path(name).name for name in files]
    labels = short if len(set(short)) == len(files) else files
    named = dict(zip(labels, files, strict=True))
    head = {"fold": fold, "max_atoms": max_atoms}
    if targets:
        if database:
            raise click.UsageError("--db is of potentials; `qdgnn predict --db` keeps columns")
        if dtype != "float32":
            raise click.UsageError(
                f"--dtype is of potentials, with --target it must be float32, got {dtype}"
            )
        model = model or "properties"
        columns = parse_targets(targets), parse_targets(conditions, "--condition")
        report = _properties(named, model, columns, fold, max_atoms)
        _write(output, {"model": model, **head}, report)
        return
    if conditions:
        raise click.UsageError("--condition is of property models and needs --target")
    if folders := [name for name in files if Path(name).is_dir()]:
        raise click.UsageError(f"a folder of CIF files needs --target, got {folders}")
    model = model or "default"
    results = _frames(named, model, dtype, fold, max_atoms)
    if database:
        write_rows(database, _rows(named, results))
    report = {label: result.report() for label, result in results.items()}
    console.print(_table(report))
    for name, row in report.items():
        for reason, count in row["skipped"].items():
            console.print(f"{name}: skipped {count}: {reason}")
    _write(output, {"model": model, "dtype": dtype, **head, "units": METRICS}, report)


def _frames(
    files: dict[str, str], model: str, dtype: str, fold: Any, max_atoms: int | None
) -> dict[str, Evaluation]:
    """Errors of a potential by file."""
    results: dict[str, Evaluation] = {}
    calculator = QDGNNCalculator(model, dtype=dtype)
    split = training_split(model, load_model(model)[1], fold) if fold else None
    with progress_bar() as bar:
        for label, name in files.items():
            task = bar.add_task(label, total=1.0, note="")
            results[label] = frame_errors(
                calculator,
                name,
                max_atoms=max_atoms,
                split=split,
                progress=lambda share, task=task: bar.update(task, completed=share),  # type: ignore[misc]
            )
    return results


def _rows(
    files: dict[str, str], results: dict[str, Evaluation]
) -> Iterator[tuple[Atoms, dict[str, float | str]]]:
    """Structures that were evaluated with their labels; the errors that have a label."""
    for label, result in results.items():
        frames = read_structures(files[label])
        for error in result.errors:
            values = {
                "energy_error": error.energy,
                "forces_mae": error.forces / (3 * error.n_atoms),
                "stress_mae": error.stress,
            }
            known = {key: value for key, value in values.items() if not math.isnan(value)}
            yield frames[error.index], {"source": label, **known}


def _properties(
    files: dict[str, str],
    model: str,
    columns: tuple[dict[str, str], dict[str, str]],
    fold: Any,
    max_atoms: int | None,
) -> dict[str, Any]:
    """Errors by file; columns of the properties and of the conditions."""
    predictor = Predictor(model)
    split = training_split(model, predictor.document, fold) if fold else None
    targets, conditions = columns
    report: dict[str, Any] = {}
    for label, name in files.items():
        console.print(f"{label} ...")
        report[label] = evaluate_properties(
            predictor,
            name,
            targets,
            split=split,
            max_atoms=max_atoms,
            conditions=conditions,
        )
        console.print(_property_table(report[label]))
        timing = report[label]["timing"]
        console.print(
            f"CPU ms per structure: {timing['batch_1_ms']:.1f} one by one, "
            f"{timing['batch_64_ms']:.2f} in batches of 64"
        )
    return report


def _write(output: Path | None, head: dict[str, Any], report: dict[str, Any]) -> None:
    if output is None:
        return
    document = {
        **head,
        **measured(),
        "files": {name: without_nan(row) for name, row in report.items()},
    }
    write_atomic(output, json.dumps(document, indent=2, allow_nan=False).encode())
    console.print(f"wrote {output}")


def without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a metric without labels becomes null."""
    return {key: _without_nan(value) for key, value in row.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return without_nan(value)
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def training_split(model: str, document: dict[str, Any], fold: Any) -> Split:
    """The split that a model was trained on, from its checkpoint's document."""
    config = document["training"].get("train_config")
    if config is None:
        raise click.UsageError(f"a fold needs a model that stores its split, {model} does not")
    return Split.of_training(config, fold)


def _property_table(report: dict[str, Any]) -> Table:
    """A column per property, a row per metric."""
    rows = {name: row for name, row in report.items() if name != "timing"}
    table = Table("", *(f"{name}\n{row['unit']}" for name, row in rows.items()))
    table.add_row("structures", *(str(row["structures"]) for row in rows.values()))
    for label, key in _PROPERTY_METRICS.items():
        if any(key in row for row in rows.values()):
            table.add_row(label, *(_property_cell(row, key) for row in rows.values()))
    return table


def _property_cell(row: dict[str, Any], key: str) -> str:
    if key not in row:
        return "-"
    if f"{key}_interval" not in row:
        return f"{row[key]:.3f}"
    low, high = row[f"{key}_interval"]
    return f"{row[key]:.4g}\n{low:.4g}-{high:.4g}"


def _table(report: dict[str, Any]) -> Table:
    table = Table()
    for heading in ("file", "frames", *_COLUMNS.values(), "ms/atom"):
        table.add_column(heading, justify="left" if heading == "file" else "right")
    for name, row in report.items():
        cells = [_cell(row, metric) for metric in _COLUMNS]
        table.add_row(name, str(row["frames"]), *cells, f"{row['ms_per_atom']:.3f}")
    return table


def _cell(row: dict[str, Any], metric: str) -> str:
    if f"{metric}_interval" not in row:
        return "-"
    low, high = row[f"{metric}_interval"]
    return f"{row[metric]:.3f}\n{low:.3f}-{high:.3f}"
