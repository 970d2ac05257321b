"""`qdgnn evaluate`."""

from __future__ import annotations

import json
import math
import platform
from datetime import date
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from qdgnn_ase.cli.common import console, dtype_option, model_option, progress_bar
from qdgnn_ase.inference.calculator import QDGNNCalculator
from qdgnn_ase.inference.evaluate import METRICS, Split
from qdgnn_ase.inference.evaluate import evaluate as evaluate_file
from qdgnn_ase.training.checkpoint import load_model, write_atomic

_COLUMNS = {
    "energy_mae": "E MAE\neV/atom",
    "energy_rmse": "E RMSE\neV/atom",
    "energy_mae_shifted": "E MAE\n- median",
    "forces_mae": "F MAE\neV/Å",
    "stress_mae": "S MAE\nGPa",
}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@model_option
@dtype_option
@click.option("--max-atoms", type=int, help="Skip larger structures.")
@click.option(
    "--fold",
    type=click.Choice(["train", "val", "test"]),
    help="Only the frames of this fold of the model's own training split.",
)
@click.option("--json", "output", type=Path, help="Write all figures to this file.")
def evaluate(
    files: tuple[str, ...],
    model: str,
    dtype: str,
    max_atoms: int | None,
    fold: Any,
    output: Path | None,
) -> None:
    """Errors of a model on labelled structures, per file, with 95 % intervals over formulas."""
    calculator = QDGNNCalculator(model, dtype=dtype)
    split = training_split(model, fold) if fold else None
    report: dict[str, Any] = {}
    short = [Path(name).name for name in files]
    labels = short if len(set(short)) == len(files) else files
    with progress_bar() as bar:
        for name, label in zip(files, labels, strict=True):
            task = bar.add_task(label, total=1.0, note="")
            report[label] = evaluate_file(
                calculator,
                name,
                max_atoms=max_atoms,
                split=split,
                progress=lambda share, task=task: bar.update(task, completed=share),  # type: ignore[misc]
            )
    console.print(_table(report))
    for name, row in report.items():
        for reason, count in row["skipped"].items():
            console.print(f"{name}: skipped {count}: {reason}")
    if output is not None:
        document = {
            "model": model,
            "dtype": dtype,
            "fold": fold,
            "max_atoms": max_atoms,
            "date": date.today().isoformat(),
            "machine": platform.processor() or platform.machine(),
            "units": METRICS,
            "files": {name: without_nan(row) for name, row in report.items()},
        }
        write_atomic(output, json.dumps(document, indent=2, allow_nan=False).encode())
        console.print(f"wrote {output}")


def without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a metric without labels becomes null."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in row.items()
    }


def training_split(model: str, fold: Any) -> Split:
    """The split that the model was trained on."""
    config = load_model(model)[1]["training"].get("train_config")
    if config is None:
        raise click.UsageError(f"a fold needs a model that stores its split, {model} does not")
    return Split.of_training(config, fold)


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
