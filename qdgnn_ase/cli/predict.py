"""`qdgnn predict`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
from ase import Atoms
from rich.table import Table

from qdgnn_ase.cli.common import (
    console,
    existing_file,
    new_database,
    parse_conditions,
    progress_bar,
)
from qdgnn_ase.data.database import write_rows
from qdgnn_ase.data.io import read_structures
from qdgnn_ase.data.splits import reduced_formula
from qdgnn_ase.graph import basis
from qdgnn_ase.inference.predict import Prediction, Predictor
from qdgnn_ase.training.checkpoint import write_atomic

_CHUNK = 64
_SHOWN = 9
"""Structures that are printed; files have all."""
_COLUMNS = 3

Row = dict[str, Any]
Predict = Callable[[Sequence[Atoms]], list[dict[str, Prediction]]]


@click.command()
@click.argument("files", nargs=-1, required=True, callback=existing_file)
@click.option(
    "--model", default="properties", show_default=True, help="Embedded model or checkpoint file."
)
@click.option(
    "--condition",
    "conditions",
    multiple=True,
    metavar="NAME=VALUE",
    help="A condition that the model was trained with, such as temperature=300.",
)
@click.option("--json", "json_output", type=Path, help="Write values, units, uncertainties.")
@click.option("--csv", "csv_output", type=Path, help="Write a table, one row per structure.")
@click.option(
    "--db",
    "database",
    type=Path,
    callback=new_database,
    help="New ASE database of the structures, predictions as key-value pairs.",
)
def predict(
    files: tuple[str, ...],
    model: str,
    conditions: tuple[str, ...],
    json_output: Path | None,
    csv_output: Path | None,
    database: Path | None,
) -> None:
    """Properties of every structure in FILES, with uncertainties.

    An ASE database may come with a selection: 'set.db@natoms<20'. Disordered structures, and rows
    of tables with a formula and no structure, are taken and marked. A question mark tells that a
    prediction is out of the domain of the training data.

    A file or structure that cannot be computed is named and left out; the exit status is then 1.
    """
    predictor = _predictor(model, parse_conditions(conditions))
    rows: list[Row] = []
    predicted: list[Atoms] = []
    failures: list[str] = []
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(files), note="")
        for name in files:
            for outcome in _outcomes_of_file(name, predictor):
                if isinstance(outcome, str):
                    failures.append(outcome)
                    continue
                predicted.append(outcome[0])
                rows.append(outcome[1])
            bar.update(task, advance=1, note=f"{len(rows)} structures")
    for start in range(0, min(len(rows), _SHOWN), _COLUMNS):
        console.print(_table(rows[start : start + _COLUMNS]))
    if json_output is not None:
        write_atomic(json_output, json.dumps(rows, indent=1).encode())
    if csv_output is not None:
        write_atomic(csv_output, _csv(rows).encode())
    if database is not None:
        pairs = [_key_value_pairs(row) for row in rows]
        write_rows(database, zip(predicted, pairs, strict=True))
    for failure in failures:
        console.print(f"left out: {failure}", soft_wrap=True)
    console.print(f"{len(rows)} structures predicted, {len(failures)} left out")
    if failures:
        raise click.exceptions.Exit(1)


def _predictor(model: str, conditions: dict[str, float]) -> Predict:
    predictor = Predictor(model)
    if unknown := sorted(set(conditions) - set(predictor.model.config.conditions)):
        raise click.UsageError(
            f"--condition must be of those that {model} was trained with, "
            f"{list(predictor.model.config.conditions)}, got {unknown}"
        )
    return partial(predictor, conditions=conditions)


def _outcomes_of_file(name: str, predictor: Predict) -> Iterator[tuple[Atoms, Row] | str]:
    """Structure and row or, where one is refused, why."""
    try:
        structures = read_structures(name, partial=True)
    except ValueError as error:
        yield str(error)
        return
    for start in range(0, len(structures), _CHUNK):
        chunk = structures[start : start + _CHUNK]
        for offset, outcome in enumerate(_outcomes(chunk, predictor)):
            atoms, index = chunk[offset], start + offset
            if isinstance(outcome, str):
                yield f"{name}, structure {index}: {outcome}"
                continue
            values = {key: asdict(value) for key, value in outcome.items()}
            kind = basis(atoms)
            formula = str(atoms.symbols) if kind == "structure" else reduced_formula(atoms)
            head = {"file": name, "index": index, "formula": formula, "basis": kind}
            yield atoms, head | {"properties": values}


def _key_value_pairs(row: Row) -> dict[str, float | str]:
    """Named apart from the columns of the source, which may hold measured values."""
    pairs: dict[str, float | str] = {
        "source": row["file"],
        "basis": row["basis"],
        "in_domain": _in_domain(row),
    }
    for name, value in row["properties"].items():
        pairs |= {f"predicted_{name}": value["value"], f"predicted_{name}_std": value["std"]}
    return pairs


def _in_domain(row: Row) -> bool:
    """Of the properties that share their training structures; others can be of few materials."""
    values = row["properties"].values()
    return all(value["in_domain"] for value in values if not value["own_domain"])


def _outcomes(structures: Sequence[Atoms], predictor: Predict) -> list[dict[str, Prediction] | str]:
    """Predictions or, where a structure is refused, why."""
    try:
        return list(predictor(structures))
    except ValueError:
        return [_outcome(atoms, predictor) for atoms in structures]


def _outcome(atoms: Atoms, predictor: Predict) -> dict[str, Prediction] | str:
    try:
        return predictor([atoms])[0]
    except ValueError as error:
        return str(error).removeprefix("structure 0: ")


def _table(rows: list[Row]) -> Table:
    """A row for each property that one of the structures has, a column for each structure."""
    heads = [
        f"{row['formula']}\n{Path(row['file']).name}:{row['index']}{_note(row)}" for row in rows
    ]
    table = Table("", "unit", *heads)
    for name in _names(rows):
        values = [row["properties"].get(name) for row in rows]
        unit = next(value["unit"] for value in values if value is not None)
        table.add_row(name, unit, *(_cell(value) for value in values))
    return table


def _note(row: Row) -> str:
    notes = {"disordered": "\ndisordered", "composition": "\ncomposition only"}
    return notes.get(row["basis"], "")


def _names(rows: list[Row]) -> list[str]:
    """Properties that some structure has."""
    return list(dict.fromkeys(name for row in rows for name in row["properties"]))


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    mark = "" if value["in_domain"] else " ?"
    return f"{value['value']:.3g} ± {value['std']:.2g}{mark}"


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    heads = [head for name in _names(rows) for head in (name, f"{name}_std")]
    first = ["file", "index", "formula", "basis"]
    writer = csv.DictWriter(text, [*first, *heads, "in_domain"])
    writer.writeheader()
    for row in rows:
        values = row["properties"]
        cells = {key: row[key] for key in first}
        for name, value in values.items():
            cells |= {name: value["value"], f"{name}_std": value["std"]}
        writer.writerow(cells | {"in_domain": _in_domain(row)})
    return text.getvalue()
