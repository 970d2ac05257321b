"""`qdgnn bench-uncertainty`: are eight heads on one trunk as good as several networks?

The spread of the heads of one network costs nothing more than its prediction; that of several
networks costs as many trainings and predictions. Every network is trained on the same rows with
another seed; the first is the cheap way. Both ways are calibrated on the same validation rows and
judged on the same test rows. The cheap one is kept where the rank correlation of its spread with
the absolute error is at least 0.9 of the other's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_ase import (
    PROPERTIES,
    Predictor,
    PropertyTrainConfig,
    calibration,
    fit,
    mean_interval,
    measured,
    reduced_formula,
    resampled_weights,
)
from qdgnn_bench.property_rows import TEST, VAL, Rows, compared, select, write_rows

Array = NDArray[np.float64]
_ONE_SIGMA = 0.683
KEPT = 0.9
"""Least ratio of the rank correlations with which the cheap way is kept."""
_TEST_ROWS = 500
_LEAST = 20
"""Rows for the test and for validation: fewer give no rank correlation worth the name."""


@click.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--target", "targets", multiple=True, required=True, metavar="NAME=COLUMN")
@click.option("--rows", default=1500, show_default=True, help="For training, at most.")
@click.option("--max-atoms", default=20, show_default=True)
@click.option("--networks", default=3, show_default=True, type=click.IntRange(min=2))
@click.option("--epochs", default=10, show_default=True)
@click.option("--hidden", default=64, show_default=True)
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Also writes a .md beside.")
def uncertainty(
    file: Path,
    *,
    targets: tuple[str, ...],
    rows: int,
    max_atoms: int,
    networks: int,
    epochs: int,
    hidden: int,
    output: Path,
    report: Path | None,
) -> None:
    """Train networks on FILE, goes on where it was killed, and compare their uncertainties."""
    columns = dict(_target(target) for target in targets)
    folds = select(file, columns, train=8 * _TEST_ROWS, max_atoms=max_atoms)
    folds["train"] = folds["train"].first(rows)
    if (least := min(len(folds[name].labels) for name in ("val", "test"))) < _LEAST:
        raise click.UsageError(
            f"{file} must hold at least {_LEAST} rows for validation and test, got {least}"
        )
    data = output / "rows.jsonl"
    write_rows(data, list(folds.values()), tuple(columns))  # a run on others refuses to go on
    config = _config(data, tuple(columns), epochs=epochs, hidden=hidden)
    predictors = [
        Predictor(fit(replace(config, seed=seed), output / f"network-{seed}"))
        for seed in range(networks)
    ]
    document = {
        "file": file.name,
        "train": len(folds["train"].labels),
        "test": len(folds["test"].labels),
        "networks": networks,
        "n_members": config.n_members,
        "config": config.to_dict() | {"sources": targets},
        **measured(),
        "errors": compare(predictors, folds["val"], folds["test"], tuple(columns)),
    }
    click.echo(markdown(document))
    if report:
        report.write_text(json.dumps(document, indent=1) + "\n")
        report.with_suffix(".md").write_text(markdown(document))


def _target(text: str) -> tuple[str, str]:
    name, _, column = text.partition("=")
    row = PROPERTIES.get(name)
    if row is None or row.derived or row.scale == "probability" or not column:
        raise click.UsageError(
            "--target must be NAME=COLUMN of a property that is learned and no probability, got "
            f"{text}"
        )
    return name, column


def _config(
    data: Path, targets: tuple[str, ...], *, epochs: int, hidden: int
) -> PropertyTrainConfig:
    return PropertyTrainConfig.from_dict(
        {
            "sources": [{"file": str(data), "columns": {name: name for name in targets}}],
            "trunk": {"hidden": hidden, "n_layers": 2, "quantum": "t0_moments"},
            "weights": {"metal_probability": 0.2} if "band_gap" in targets else {},
            "epochs": epochs,
            "learning_rate": 2e-3,
            "weight_decay": 1e-2,
            "clip": 2.0,
            "bag": 0.8,
            "ema": 0.99,
            "max_edges": 15_000,
            "val": VAL,
            "test": TEST,
        }
    )


def compare(
    predictors: Sequence[Predictor], val: Rows, test: Rows, targets: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Both ways on the test rows.

    Args:
        predictors: Networks of different seeds; the first one's heads are the cheap way.
        val: Rows that calibrate.
        test: Rows that judge.
        targets: Properties.

    Returns:
        Property -> "heads" and "networks", each with ``mae``, its ``interval`` (95 % over
        formulas), ``spearman``, ``calibration_error`` and ``within_sigma``; ``ratio`` of the rank
        correlations, its ``ratio_interval``, and ``kept``.
    """
    ways: dict[str, Callable[[list[Atoms]], tuple[Array, Array]]] = {
        "heads": lambda structures: _heads(predictors[0], structures, targets),
        "networks": lambda structures: _networks(predictors, structures, targets),
    }
    errors, std = {}, {}
    for way, ask in ways.items():
        known, spread = ask(val.structures)
        scaled = np.abs(known - compared(targets, val.labels)) / np.maximum(spread, 1e-12)
        values, spread = ask(test.structures)
        errors[way] = values - compared(targets, test.labels)
        std[way] = spread * np.quantile(scaled, _ONE_SIGMA, axis=0)
    weights = resampled_weights([reduced_formula(atoms) for atoms in test.structures])
    return {
        name: _judged(
            {way: errors[way][:, k] for way in ways}, {way: std[way][:, k] for way in ways}, weights
        )
        for k, name in enumerate(targets)
    }


def _heads(
    predictor: Predictor, structures: list[Atoms], targets: tuple[str, ...]
) -> tuple[Array, Array]:
    """Values and spread of the heads of one network, on the scale that is learned."""
    found = predictor(structures)
    values = np.array([[row[name].value for name in targets] for row in found])
    spread = np.array([[row[name].std for name in targets] for row in found])
    logs = np.array([PROPERTIES[name].scale == "log10" for name in targets])
    scale = np.where(logs, values * np.log(10), 1.0)
    return compared(targets, values), spread / scale


def _networks(
    predictors: Sequence[Predictor], structures: list[Atoms], targets: tuple[str, ...]
) -> tuple[Array, Array]:
    """Mean and spread of the networks, each with what its heads say together."""
    values = np.stack([_heads(predictor, structures, targets)[0] for predictor in predictors])
    return values.mean(axis=0), values.std(axis=0, ddof=1)


def _judged(errors: dict[str, Array], std: dict[str, Array], weights: Array) -> dict[str, Any]:
    found: dict[str, Any] = {
        way: {
            "mae": float(np.abs(errors[way]).mean()),
            "interval": mean_interval(np.abs(errors[way]), weights),
            **calibration(errors[way], std[way]),
        }
        for way in errors
    }
    draws = [np.repeat(np.arange(len(row)), row.astype(int)) for row in weights]
    resampled = [
        [calibration(errors[way][draw], std[way][draw])["spearman"] for way in errors]
        for draw in draws
    ]
    ratios = np.array([cheap / dear for cheap, dear in resampled])
    cheap, dear = (found[way]["spearman"] for way in errors)
    return found | {
        "ratio": cheap / dear,
        "ratio_interval": [float(q) for q in np.quantile(ratios, [0.025, 0.975])],
        "kept": bool(cheap >= KEPT * dear),
    }


def markdown(document: dict[str, Any]) -> str:
    """Table and, for each property, whether the cheap way is kept."""
    config = document["config"]
    lines = [
        f"{document['file']}: {document['train']} rows for training, {document['test']} for the "
        f"test, split by formula; {document['networks']} networks of width "
        f"{config['trunk']['hidden']} with {document['n_members']} heads per property, "
        f"{config['epochs']} epochs, {document['date']}, {document['machine']}. 95 % intervals "
        "over formulas. Rank correlation: Spearman's of absolute error and standard deviation.",
        "",
        "| property | way | MAE | rank correlation | calibration error |",
        "|---|---|---|---|---|",
    ]
    names = {
        "heads": f"{document['n_members']} heads, one network",
        "networks": f"{document['networks']} networks",
    }
    for name, row in document["errors"].items():
        for way, label in names.items():
            cells = row[way]
            low, high = cells["interval"]
            lines.append(
                f"| {name} | {label} | {cells['mae']:.3f} ({low:.3f}-{high:.3f}) | "
                f"{cells['spearman']:.3f} | {cells['calibration_error']:.3f} |"
            )
    lines += ["", *[_verdict(name, row) for name, row in document["errors"].items()]]
    return "\n".join(lines) + "\n"


def _verdict(name: str, row: dict[str, Any]) -> str:
    low, high = row["ratio_interval"]
    what = "the heads are kept" if row["kept"] else "the heads are not enough"
    return (
        f"- {name}: ratio of the rank correlations {row['ratio']:.2f} ({low:.2f} to {high:.2f}), "
        f"{KEPT} wanted: {what}."
    )
