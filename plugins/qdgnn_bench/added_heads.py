"""Heads that were added to a property model, against what the composition alone tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_ase import (
    PROPERTIES,
    LabelledStructure,
    Predictor,
    Split,
    mean_interval,
    read_labelled,
    reduced_formula,
    resampled_weights,
)
from qdgnn_bench.trivial import trivial_predictions

Array = NDArray[np.float64]
_REFERENCES = {"mean": "training mean", "boosted trees of composition": "boosted trees"}


def compare_added(
    predictor: Predictor, file: str, columns: Mapping[str, str], train_config: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Errors of added heads on the test fold of their run beside those of trivial models.

    These learn all structures of the other folds. An upper bound is taken for its value in
    training; in the test only values above it err.

    Args:
        predictor: The model.
        file: Training file of the heads.
        columns: Property -> column.
        train_config: Of the run that added them.

    Returns:
        Property -> ``unit``, ``structures``, ``upper_bounds``; and for "model" and each reference
        ``mae`` and its ``interval``, for the references ``difference`` = error of the reference -
        error of the model and its ``difference_interval``; 95 % over formulas.
    """
    rows = [
        row
        for row in read_labelled(file, columns, partial=True, bounds=True)
        if len(row.atoms) <= train_config["max_atoms"]
    ]
    test = Split.of_training(train_config, "test")
    in_test = np.array([test.holds(reduced_formula(row.atoms)) for row in rows])
    return {name: _compare(predictor, name, rows, in_test) for name in columns}


def _compare(
    predictor: Predictor, name: str, rows: Sequence[LabelledStructure], in_test: NDArray[np.bool_]
) -> dict[str, Any]:
    known = np.array([np.isfinite(row.labels[name]) for row in rows])
    train = [row for row, use in zip(rows, known & ~in_test, strict=True) if use]
    test = [row for row, use in zip(rows, known & in_test, strict=True) if use]
    labels = [_learned(name, [row.labels[name] for row in part]) for part in (train, test)]
    formulas = [[reduced_formula(row.atoms) for row in part] for part in (train, test)]
    units = [[Atoms(formula) for formula in part] for part in formulas]
    trivial = trivial_predictions(units[0], labels[0][:, None], units[1])
    values = {key: trivial[source][:, 0] for source, key in _REFERENCES.items()}
    found = [row[name].value for row in predictor([row.atoms for row in test])]
    values["model"] = _learned(name, found)
    censored = np.array([name in row.censored for row in test])
    errors = {key: _errors(column - labels[1], censored) for key, column in values.items()}
    weights = resampled_weights(formulas[1])
    logarithm = "log10 " if PROPERTIES[name].scale == "log10" else ""
    return {
        "unit": logarithm + PROPERTIES[name].unit,
        "structures": len(test),
        "upper_bounds": int(censored.sum()),
        "errors": {
            key: {
                "mae": float(row.mean()),
                "interval": mean_interval(row, weights),
                "difference": float((row - errors["model"]).mean()),
                "difference_interval": mean_interval(row - errors["model"], weights),
            }
            for key, row in errors.items()
        },
    }


def _learned(name: str, values: Sequence[float]) -> Array:
    column = np.asarray(values, dtype=np.float64)
    logs: Array = np.log10(column) if PROPERTIES[name].scale == "log10" else column
    return logs


def _errors(error: Array, censored: NDArray[np.bool_]) -> Array:
    return np.where(censored, np.maximum(error, 0), np.abs(error))


def added_table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| property | structures (upper bounds) | model | training mean | boosted trees |",
        "|---|---|---|---|---|",
    ]
    for name, row in found.items():
        errors = row["errors"]
        low, high = errors["model"]["interval"]
        cells = [f"{errors['model']['mae']:.3f} ({low:.3f}-{high:.3f}) {row['unit']}"]
        for key in _REFERENCES.values():
            low, high = errors[key]["difference_interval"]
            gap = errors[key]["difference"]
            cells.append(f"{errors[key]['mae']:.3f}; {gap:+.3f} ({low:+.3f} to {high:+.3f})")
        count = f"{row['structures']} ({row['upper_bounds']})"
        lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    return lines
