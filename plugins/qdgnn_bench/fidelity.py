"""`qdgnn bench-fidelity`: does a value of a lower level help to learn one of a higher level?

A PBE value, of the property model or of GPAW's results that `qdgnn bench-dft-labels` left in a
store, enters as a condition of models that learn the labels of FILE, of another functional. Both
arms start from the default potential's trunk and see the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ase.io
import click
import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_ase import (
    PROPERTIES,
    LabelledStructure,
    Predictor,
    PropertyTrainConfig,
    fit,
    fold_of,
    load_model,
    mean_interval,
    measured,
    read_labelled,
    reduced_formula,
    resampled_weights,
)
from qdgnn_bench.dft_labels import BACKEND
from qdgnn_dft.record import record_key
from qdgnn_dft.store import ResultStore

Array = NDArray[np.float64]
ARMS = ("without", "with")
_LABEL, _INPUT = "label", "input"
"""Columns of the rows that are trained on."""
Give = Callable[[list[Atoms]], list[float]]
"""Values of the lower level."""


@click.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--target", required=True, metavar="NAME=COLUMN")
@click.option("--level", required=True, metavar="CODE/FUNCTIONAL", help="Of the labels.")
@click.option("--rows", default=2_000, show_default=True, help="For training, at most.")
@click.option("--epochs", default=20, show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--store", help="Of bench-dft-labels: its structures and GPAW's values are taken.")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Also writes a .md beside.")
def fidelity(
    file: Path,
    *,
    target: str,
    level: str,
    rows: int,
    epochs: int,
    seeds: str,
    store: str | None,
    output: Path,
    report: Path | None,
) -> None:
    """Train with and without a PBE value on FILE; goes on where it was killed."""
    torch.set_num_threads(1)
    predictor = Predictor()
    name, _, column = target.partition("=")
    if name not in predictor.targets or not column:
        raise click.UsageError(
            f"--target must be NAME=COLUMN with a name of {predictor.targets}, got {target}"
        )
    labelled = [row for row in read_labelled(file, {name: column}) if np.isfinite(row.labels[name])]
    give, source = partial(_predicted, name=name, predictor=predictor), "qdgnn/PBE"
    if store:
        known = _calculated(labelled, name, store)
        labelled = [row for row in labelled if record_key(row.atoms, {}) in known]
        give, source = partial(_of_store, known=known), "gpaw/PBE"
    folds = {
        fold: _frames(chosen, name, give) for fold, chosen in _folds(file, labelled, rows).items()
    }
    data = output / "rows.extxyz"
    output.mkdir(parents=True, exist_ok=True)
    frames = folds["train"] + folds["val"]
    ase.io.write(data, frames, format="extxyz")  # a run on others refuses to go on
    errors: dict[str, list[Array]] = {arm: [] for arm in ARMS}
    for seed in map(int, seeds.split(",")):
        for arm in ARMS:
            levels = (level, source) if arm == "with" else None
            config = _config(data, name, levels, epochs, seed)
            best = fit(config, output / f"{arm}-{seed}")
            errors[arm].append(_errors(best, name, folds["test"], with_input=arm == "with"))
    document = {
        "file": file.name,
        "target": name,
        "column": column,
        "level": level,
        "input": source,
        "unit": PROPERTIES[name].unit,
        "train": len(folds["train"]),
        "test": len(folds["test"]),
        "seeds": seeds,
        "epochs": epochs,
        **measured(),
        "errors": summarise(errors, folds["test"]),
    }
    click.echo(markdown(document))
    if report:
        report.write_text(json.dumps(document, indent=1) + "\n")
        report.with_suffix(".md").write_text(markdown(document))


def _folds(
    file: Path, labelled: list[LabelledStructure], n: int
) -> dict[str, list[LabelledStructure]]:
    """Rows by the fold that `qdgnn_ase.fit` puts them in, in random order."""
    folds: dict[str, list[LabelledStructure]] = {"train": [], "val": [], "test": []}
    for index in np.random.default_rng(0).permutation(len(labelled)):
        folds[fold_of(reduced_formula(labelled[index].atoms))].append(labelled[index])
    folds["train"] = folds["train"][:n]
    if empty := [fold for fold, rows in folds.items() if not rows]:
        raise click.UsageError(
            f"{file} must hold labelled rows of every fold (with --store: that it has results "
            f"of), got none of {empty}"
        )
    return folds


def _calculated(rows: list[LabelledStructure], name: str, store: str) -> dict[str, float]:
    """Key of a structure -> GPAW's value, where the store has it."""
    results, known = ResultStore(store), {}
    for row in rows:
        record = results.get(record_key(row.atoms, BACKEND.settings(row.atoms)))
        if record is not None and name in record.values:
            known[record_key(row.atoms, {})] = float(record.values[name])
    return known


def _of_store(frames: list[Atoms], known: dict[str, float]) -> list[float]:
    return [known[record_key(frame, {})] for frame in frames]


def _predicted(frames: list[Atoms], name: str, predictor: Predictor) -> list[float]:
    return [found[name].value for found in predictor(frames)]


def _frames(rows: list[LabelledStructure], name: str, give: Give) -> list[Atoms]:
    """Structures with the label and the value of the lower level."""
    frames = [row.atoms.copy() for row in rows]
    for frame, row, value in zip(frames, rows, give(frames), strict=True):
        frame.info = {_LABEL: row.labels[name], _INPUT: value}
    return frames


def _config(
    data: Path, name: str, levels: tuple[str, str] | None, epochs: int, seed: int
) -> PropertyTrainConfig:
    """With the input where the levels of labels and input are told."""
    source: dict[str, Any] = {"file": str(data), "columns": {name: _LABEL}}
    if levels is not None:
        source["conditions"] = {name: _INPUT}
        source["levels"] = dict(zip((_LABEL, _INPUT), levels, strict=True))
    return PropertyTrainConfig.from_dict(
        {
            "sources": [source],
            "trunk": load_model("default")[0].config.to_dict(),
            "init": "default",
            "weights": {"metal_probability": 0.2} if name == "band_gap" else {},
            "epochs": epochs,
            "seed": seed,
            "learning_rate": 1e-3,
            "weight_decay": 1e-2,
            "clip": 2.0,
            "ema": 0.99,
            "max_edges": 10_000,
        }
    )


def _errors(best: Path, name: str, frames: list[Atoms], *, with_input: bool) -> Array:
    conditions = [{name: frame.info[_INPUT]} for frame in frames] if with_input else None
    found = Predictor(best)(frames, conditions=conditions)
    errors: Array = np.array([row[name].value for row in found]) - _column(frames, _LABEL)
    return np.abs(errors)


def _column(frames: list[Atoms], name: str) -> Array:
    return np.array([frame.info[name] for frame in frames])


def summarise(errors: dict[str, list[Array]], frames: list[Atoms]) -> dict[str, Any]:
    """Errors of both arms and of the input itself, on all rows and on those that are not zero.

    Args:
        errors: Arm -> absolute errors (n_rows,) of each seed.
        frames: Test structures with ``label`` and ``input`` in ``info``.

    Returns:
        Part of the rows -> ``rows``, and for each arm and "input" ``mae`` and ``interval``;
        ``gain``, without less with, paired, and its ``gain_interval``.
    """
    labels = _column(frames, _LABEL)
    formulas = np.array([reduced_formula(frame) for frame in frames])
    means = {arm: np.mean(found, axis=0) for arm, found in errors.items()}
    means["input"] = np.abs(_column(frames, _INPUT) - labels)
    parts = {"all": np.full(len(labels), True), "not zero": labels != 0}
    return {
        part: {"rows": int(chosen.sum())} | _part(means, formulas, chosen)
        for part, chosen in parts.items()
        if chosen.any() and not (part == "not zero" and chosen.all())
    }


def _part(
    means: dict[str, Array], formulas: NDArray[np.str_], chosen: NDArray[np.bool_]
) -> dict[str, Any]:
    weights = resampled_weights(formulas[chosen].tolist())
    found: dict[str, Any] = {
        arm: {
            "mae": float(values[chosen].mean()),
            "interval": mean_interval(values[chosen], weights),
        }
        for arm, values in means.items()
    }
    gain = (means["without"] - means["with"])[chosen]
    return found | {"gain": float(gain.mean()), "gain_interval": mean_interval(gain, weights)}


_ORIGIN = {
    "qdgnn/PBE": "the PBE value that the embedded property model predicts",
    "gpaw/PBE": "the PBE value that GPAW computed",
}


def markdown(document: dict[str, Any]) -> str:
    """Table: a row for each part of the test rows."""
    lines = [
        f"{document['target']} ({document['level']}) of {document['file']}, mean absolute errors "
        f"in {document['unit']} with 95 % intervals over formulas; {document['train']} rows for "
        f"training, {document['test']} for the test, {document['epochs']} epochs, seeds "
        f"{document['seeds']}, {document['date']}, {document['machine']}. The input is "
        f"{_ORIGIN[document['input']]}.",
        "",
        "| test rows | | input itself | without input | with input | gain, paired |",
        "|---|---|---|---|---|---|",
    ]
    for part, row in document["errors"].items():
        cells = [_cell(row[arm]["mae"], row[arm]["interval"]) for arm in ("input", *ARMS)]
        gain = _cell(row["gain"], row["gain_interval"])
        lines.append(f"| {part} | {row['rows']} | {' | '.join(cells)} | {gain} |")
    return "\n".join(lines) + "\n"


def _cell(value: float, limits: list[float]) -> str:
    return f"{value:.3f} ({limits[0]:.3f} to {limits[1]:.3f})"
