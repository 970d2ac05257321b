"""Tables and plain sentences of the study of arms.

Intervals are over seeds (frames and weights); all models of a crystal are tested on the same
molecular dynamics, so that ratios of errors are of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdgnn_ase import mean_interval, resampled_weights
from qdgnn_phonons.bench.arms import ARMS
from qdgnn_phonons.bench.arms_models import QUANTITIES

Row = dict[str, Any]
Array = NDArray[np.float64]
Table = dict[tuple[str, int, int], Row]
"""Arm, size and seed -> scores by test."""
LEAST_R2 = 0.5
"""Nothing is claimed for a model below it."""
JUDGED = ("band_gap", "forces")
"""Quantities that sentences are made of."""
BASE = "phonon"
"""Arm that the others are compared with."""


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Mean over seeds with 95 % bootstrap intervals, and errors relative to the phonon arm's.

    Ratios are geometric means over the seeds that both arms have: ``ratio`` to the phonon arm of
    equal size, ``ratio_smallest`` to the phonon arm of the smallest size.
    """
    table: Table = {
        (row["arm"], row["size"], row["seed"]): row["tests"] for row in rows if "failure" not in row
    }
    sizes = sorted({size for _, size, _ in table})
    summary = []
    for size in sizes:
        for arm in ARMS:
            seeds = [s for a, n, s in table if (a, n) == (arm, size) and (BASE, n, s) in table]
            for test in table[arm, size, seeds[0]] if seeds else ():
                for quantity in table[arm, size, seeds[0]][test]:
                    mine = [table[arm, size, s][test][quantity] for s in seeds]
                    mae = np.array([cell["mae"] for cell in mine])
                    summary.append(
                        {
                            "size": size,
                            "arm": arm,
                            "test": test,
                            "quantity": quantity,
                            "seeds": len(seeds),
                            "mae": interval(mae),
                            "r2": interval(np.array([cell["r2"] for cell in mine])),
                            "ratio": _ratio(mae, table, (size, test, quantity), seeds),
                            "ratio_smallest": _ratio(mae, table, (sizes[0], test, quantity), seeds),
                        }
                    )
    return summary


def _ratio(mae: Array, table: Table, place: tuple[int, str, str], seeds: list[int]) -> list[float]:
    """Of errors to the phonon arm's at size, test and quantity; NaN if it lacks a seed."""
    size, test, quantity = place
    if any((BASE, size, seed) not in table for seed in seeds):
        return [float("nan")] * 3
    base = np.array([table[BASE, size, seed][test][quantity]["mae"] for seed in seeds])
    return [float(np.exp(value)) for value in interval(np.log(mae / base))]


def interval(values: Array) -> list[float]:
    """Mean, and 95 % bootstrap interval of it."""
    weights = resampled_weights([str(index) for index in range(len(values))])
    return [float(values.mean()), *mean_interval(values, weights)]


def leading(summary: Sequence[Row]) -> str:
    """Quantity by which arms are better or worse."""
    return next(name for name in QUANTITIES if any(row["quantity"] == name for row in summary))


def verdict(summary: Sequence[Row]) -> list[str]:
    """What the intervals show at the largest size, for each test, of gap and forces."""
    if not summary:
        return ["No model was trained."]
    size = max(row["size"] for row in summary)
    last = [row for row in summary if row["size"] == size and row["quantity"] in JUDGED]
    sentences = []
    for test, quantity in dict.fromkeys((row["test"], row["quantity"]) for row in last):
        rows = {
            row["arm"]: row for row in last if (row["test"], row["quantity"]) == (test, quantity)
        }
        sentences.append(f"{_place(test, quantity, size)}: {_comparison(rows)}.")
    return sentences


def _place(test: str, quantity: str, size: int) -> str:
    return f"{test}, {QUANTITIES[quantity].split(',')[0]}, {size} frames"


def _comparison(rows: dict[str, Row]) -> str:
    best = max(rows.values(), key=lambda row: float(row["r2"][0]))
    if not best["r2"][0] >= LEAST_R2:
        return (
            f"no arm reaches R2 = {LEAST_R2} (best: {best['arm']}, {best['r2'][0]:.2f}), nothing "
            "is claimed"
        )
    return "; ".join(_pair(rows[BASE], row) for arm, row in rows.items() if arm != BASE)


def _pair(base: Row, other: Row) -> str:
    """What the ratio of the errors of two arms shows; a winner must have learned something."""
    factor, low, high = other["ratio"]
    text = f"{factor:.2f} ({low:.2f}-{high:.2f}) times the error of phonon frames"
    winner = base if low > 1 else other if high < 1 else None
    if winner is None:
        return f"{other['arm']} and phonon frames cannot be told apart, {text}"
    if not winner["r2"][0] >= LEAST_R2:
        return f"nothing is claimed on {other['arm']} against phonon frames (R2 below {LEAST_R2})"
    return f"{other['arm']} frames are {'worse' if winner is base else 'better'}, {text}"


def markdown(summary: Sequence[Row]) -> str:
    """Table: a row per size, arm and test."""
    found = {row["quantity"] for row in summary}
    names = [name for name in QUANTITIES if name in found]
    if not names:
        return ""
    heads = [f"{QUANTITIES[name]} | R2" for name in names]
    lines = [
        f"| frames | arm | test | {' | '.join(heads)} | {_ratio_head(names[0])} |",
        "|---|---|---|" + "---|---|" * len(names) + "---|",
    ]
    for key in dict.fromkeys((row["size"], row["arm"], row["test"]) for row in summary):
        cells = {r["quantity"]: r for r in summary if (r["size"], r["arm"], r["test"]) == key}
        texts = [
            f"{_text(cells[name]['mae'])} | {_text(cells[name]['r2'], '.2f')}" for name in names
        ]
        ratio = _text(cells[names[0]]["ratio"], ".2f")
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {' | '.join(texts)} | {ratio} |")
    return "\n".join(lines) + "\n"


def _ratio_head(name: str) -> str:
    return f"error of {QUANTITIES[name].split(',')[0]} over phonon's"


def _text(values: Sequence[float], form: str = ".3g") -> str:
    mean, low, high = (format(value, form) for value in values)
    return f"{mean} ({low} to {high})"
