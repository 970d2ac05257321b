"""Errors and calibration of a property model on labelled structures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata, spearmanr

from qdgnn_ase.data.splits import reduced_formula
from qdgnn_ase.data.targets import LabelledStructure, bound_table, label_table, read_labelled
from qdgnn_ase.inference.bootstrap import interval, resampled_weights
from qdgnn_ase.inference.evaluate import Split
from qdgnn_ase.inference.predict import Prediction, Predictor
from qdgnn_ase.properties import PROPERTIES, learned_property

Array = NDArray[np.float64]
_LEVELS = np.linspace(0.1, 0.9, 9)
_BATCH = 64
_TIMED = 256


def evaluate_properties(
    predictor: Predictor,
    path: str | Path,
    columns: Mapping[str, str],
    *,
    split: Split | None = None,
    max_atoms: int | None = None,
    conditions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Errors on one labelled file; labels that are upper bounds only are left out.

    Args:
        predictor: The model.
        path: File or folder of `qdgnn_ase.data.targets.read_labelled`.
        columns: Property -> column.
        split: Only structures of one fold.
        max_atoms: Larger structures are left out.
        conditions: Condition of the model -> column.

    Returns:
        Per property the `metrics` with 95 % intervals over formulas (``mae_interval``; none where a
        metric is NaN, as the area under the curve of metals alone), the `calibration`,
        ``structures``, ``formulas`` and ``in_domain`` (share); and ``timing``: CPU ms per
        structure, graphs included, one by one and in batches of 64.

    Raises:
        ValueError: If a property is not predicted, or no labelled structure is left.
    """
    targets = _targets(predictor, columns)
    found = read_labelled(path, columns, partial=True, bounds=True, conditions=conditions)
    held = split.select([reduced_formula(row.atoms) for row in found]) if split else None
    rows = [
        row
        for index, row in enumerate(found)
        if (max_atoms is None or len(row.atoms) <= max_atoms) and (held is None or held[index])
    ]
    if not rows:
        raise ValueError(f"{path} must hold structures of the fold and size asked for, got none")
    structures = [row.atoms for row in rows]
    predictions, milliseconds = _timed(predictor, rows, _BATCH)
    timed = rows[:_TIMED]
    report: dict[str, Any] = {
        "timing": {"batch_1_ms": _timed(predictor, timed, 1)[1], "batch_64_ms": milliseconds}
    }
    formulas = [reduced_formula(atoms) for atoms in structures]
    known = np.where(bound_table(rows, targets), np.nan, label_table(rows, targets))
    for name, labels in zip(targets, known.T, strict=True):
        report[name] = _report(name, labels, [row[name] for row in predictions], formulas)
    return report


def _targets(predictor: Predictor, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Properties to compare; a band gap also tells metals from the others."""
    if unknown := sorted(set(columns) - set(predictor.targets)):
        raise ValueError(f"target must be one of {list(predictor.targets)}, got {unknown}")
    wanted = {*columns, *(["metal_probability"] if "band_gap" in columns else [])}
    return tuple(name for name in predictor.targets if name in wanted)


def _timed(
    predictor: Predictor, rows: list[LabelledStructure], size: int
) -> tuple[list[Any], float]:
    started, found = process_time(), []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        conditions = [row.conditions for row in batch]
        found += predictor([row.atoms for row in batch], conditions=conditions)
    return found, 1e3 * (process_time() - started) / len(rows)


def _report(
    name: str, labels: Array, predictions: list[Prediction], formulas: list[str]
) -> dict[str, Any]:
    known = np.isfinite(labels)
    if not known.any():
        return {"unit": PROPERTIES[name].unit, "structures": 0}
    names = [formula for formula, use in zip(formulas, known, strict=True) if use]
    values = np.array([row.value for row in predictions])[known]
    std = np.array([row.std for row in predictions])[known]
    inside = np.array([row.in_domain for row in predictions])[known]
    wanted = labels[known]
    weights = resampled_weights(names)
    every = metrics(name, values, wanted)
    resampled = [metrics(name, values, wanted, row) for row in weights]
    return {
        "unit": PROPERTIES[name].unit,
        "structures": len(wanted),
        "formulas": len(set(names)),
        "in_domain": float(inside.mean()),
        **every,
        **{
            f"{key}_interval": interval([row[key] for row in resampled])
            for key, value in every.items()
            if np.isfinite(value)
        },
        **calibration(values - wanted, std),
    }


def metrics(
    name: str, values: Array, labels: Array, weights: Array | None = None
) -> dict[str, float]:
    """Error metrics in the property's unit, weighted.

    Returns:
        mae, rmse and r2; log10_mae where the logarithm is learned; mape where no label is near 0;
        for a probability accuracy and auc (area under the receiver's curve) instead.
    """
    row = learned_property(name)
    w = np.ones(len(labels)) if weights is None else weights
    if row.scale == "probability":
        right = (values > 0.5) == (labels > 0.5)
        return {"accuracy": float(np.average(right, weights=w)), "auc": _auc(values, labels, w)}
    error = values - labels
    mean = np.average(labels, weights=w)
    variance = float(np.average((labels - mean) ** 2, weights=w))
    square = float(np.average(error**2, weights=w))
    result = {
        "mae": float(np.average(np.abs(error), weights=w)),
        "rmse": square**0.5,
        "r2": 1 - square / variance if variance > 0 else np.nan,
    }
    if row.scale == "log10":
        logs = np.abs(np.log10(values) - np.log10(labels))
        result["log10_mae"] = float(np.average(logs, weights=w))
    if np.abs(labels).min() > 1e-3 * np.abs(labels).max():
        result["mape"] = float(np.average(np.abs(error / labels), weights=w))
    return result


def _auc(values: Array, labels: Array, weights: Array) -> float:
    """Chance that a metal gets the higher probability of two structures; ties count half."""
    repeats = weights.astype(int)
    values, positive = np.repeat(values, repeats), np.repeat(labels, repeats) > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(values)[positive].sum() - n * (n + 1) / 2) / (n * m))


def calibration(errors: Array, std: Array) -> dict[str, float]:
    """How well the standard deviations tell the errors.

    Returns:
        calibration_error: mean difference between the share of errors inside the central intervals
        of 10-90 % of a normal distribution and those shares; within_sigma: share of errors within
        one sigma (0.683 wanted); spearman: rank correlation of absolute error and sigma.
    """
    scaled = np.abs(errors) / np.maximum(std, 1e-12)
    bounds = norm.ppf(0.5 + _LEVELS / 2)
    shares = (scaled[:, None] <= bounds).mean(axis=0)
    vary = len(errors) > 2 and np.ptp(std) > 0 and np.ptp(np.abs(errors)) > 0
    return {
        "calibration_error": float(np.abs(shares - _LEVELS).mean()),
        "within_sigma": float((scaled <= 1).mean()),
        "spearman": float(spearmanr(np.abs(errors), std).statistic) if vary else float("nan"),
    }
