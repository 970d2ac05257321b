"""Means of a benchmark's groups (goals, or seeds where there is one goal) with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Row = dict[str, Any]

_DRAWS = 2000


def by_group(runs: list[Row], group: str, value: Callable[[Row], float]) -> dict[int, Array]:
    """Value of each run, by the number of its group."""
    numbers = sorted({row[group] for row in runs})
    return {n: np.array([value(row) for row in runs if row[group] == n], float) for n in numbers}


def interval(groups: Mapping[int, Array], statistic: Callable[[Array], float]) -> list[float]:
    """Mean over groups, and 95 % bounds when groups are drawn with replacement.

    One group tells nothing of the spread: its bounds are NaN.
    """
    values = np.array([statistic(v) for v in groups.values()])
    if len(values) == 1:
        return [float(values[0]), nan, nan]
    draws = np.random.default_rng(0).integers(len(values), size=(_DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return [float(values.mean()), float(low), float(high)]


def difference(groups: Mapping[int, Array], base: Mapping[int, Array]) -> list[float] | None:
    """Mean of the groups minus those of the base that are the same; None if none are."""
    shared = sorted(groups.keys() & base.keys())
    if not shared:
        return None
    pairs = {n: np.array([groups[n].mean() - base[n].mean()]) for n in shared}
    return interval(pairs, lambda v: float(v[0]))


def percent(values: list[float], sign: str = "") -> str:
    """Share with its interval, if it has one."""
    return _with_bounds([100 * value for value in values], sign, " %")


def number(values: list[float], sign: str = "") -> str:
    """Number with its interval, if it has one."""
    return _with_bounds(values, sign, "")


def _with_bounds(values: list[float], sign: str, unit: str) -> str:
    mean, low, high = (f"{value:{sign}.0f}" for value in values)
    return f"{mean}{unit}" + ("" if isnan(values[1]) else f" ({low} to {high})")


def table_lines(heads: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
