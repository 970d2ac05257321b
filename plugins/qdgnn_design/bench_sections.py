"""Parts of the design report beside the tasks with goals: trade-off, gap, validity, speed."""

from __future__ import annotations

from typing import Any

import numpy as np

from qdgnn_design.bench_conflict import BUDGETS, best_known
from qdgnn_design.bench_gap import JUDGED, LABELS
from qdgnn_design.bench_statistics import (
    by_group,
    difference,
    interval,
    percent,
    table_lines,
)

Row = dict[str, Any]

_DIRECT = ("hybrid", "bayes", "hill-climb")
"""Searches on the oracle itself that the surrogate's is held against."""


def conflict_lines(rows: list[Row], default: str) -> list[str]:
    """Hypervolumes of two conflicting targets as shares of the best known."""
    if not rows:
        return []
    best, last = best_known(rows), str(max(BUDGETS))
    groups = {
        name: {
            n: by_group(
                [row for row in rows if row["method"] == name],
                "seed",
                lambda row, n=n: row["hypervolume"][n] / best,  # type: ignore[misc]
            )
            for n in map(str, BUDGETS)
        }
        for name in dict.fromkeys(row["method"] for row in rows)
    }
    order = sorted(groups, key=lambda name: -interval(groups[name][last], np.mean)[0])
    cells, words = [], []
    for name in order:
        parts = [percent(interval(groups[name][str(n)], np.mean)) for n in BUDGETS]
        base = groups[default][last] if default in groups and name != default else {}
        gap = difference(groups[name][last], base)
        cells.append([name, str(len(groups[name][last])), *parts, percent(gap, "+") if gap else ""])
        words += [name] if gap and gap[1] > 0 else []
    heads = ["method", "runs", *(f"after {n}" for n in BUDGETS), f"minus {default}"]
    verdict = f"Ahead of the default, `{default}`: {', '.join(words) or 'none'}."
    return [
        "## Two conflicting targets",
        "",
        "EMT-fcc8, formation energy low and bulk modulus high, both at once with fixed weights: "
        "hypervolume of all evaluated structures (above 0 eV/atom and 0 GPa) as a share of that of "
        f"everything found in all {len(rows)} runs; 95 % intervals over seeds.",
        "",
        *table_lines(heads, cells),
        "",
        verdict,
        "",
    ]


def gap_lines(rows: list[Row], runs: list[Row]) -> list[str]:
    """Hits by the surrogate's lights and by the oracle's, and what the oracle gives directly."""
    if not rows:
        return []
    cells = []
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        columns = [
            by_group(mine, "goal", lambda row: row["claimed"] / row["judged"]),
            by_group(mine, "goal", lambda row: row["true"] / row["judged"]),
            by_group(mine, "goal", lambda row: (row["claimed"] - row["true"]) / row["judged"]),
            by_group(mine, "goal", lambda row: row["true"] > 0),
        ]
        shares = [percent(interval(column, np.mean)) for column in columns]
        calls = np.mean([row["calls"] for row in mine])
        size = f"{len(columns[0])} x {len(mine) / len(columns[0]):.3g}"
        cells.append([name, size, f"{calls:.0f}", *shares])
    heads = ["method", "goals x runs", "surrogate calls", "hits by the surrogate"]
    heads += ["hits by the oracle", "gap", "runs with a true hit"]
    return [
        "## Surrogate against oracle",
        "",
        f"EMT-fcc8; Gaussian processes that know {LABELS} random structures are searched until "
        f"{JUDGED} candidates hit or 200 calls are made, then the oracle judges the {JUDGED} best. "
        "Shares of these; 95 % intervals over goals.",
        "",
        *table_lines(heads, cells),
        "",
        *_direct(rows, runs),
    ]


def _direct(rows: list[Row], runs: list[Row]) -> list[str]:
    """The same oracle calls, spent on the oracle itself for the same goals."""
    goals, calls = {row["goal"] for row in rows}, LABELS + JUDGED
    shares = []
    for name in _DIRECT:
        mine = [
            row
            for row in runs
            if row["task"] == "EMT-fcc8" and row["method"] == name and row["goal"] in goals
        ]
        if mine:
            hits = by_group(mine, "goal", lambda row: (row["calls"] or np.inf) <= calls)
            shares.append(f"`{name}` {percent(interval(hits, np.mean))}")
    if not shares:
        return []
    return [
        f"The same {calls} oracle calls spent on the oracle itself, one goal at a time, hit in: "
        f"{', '.join(shares)} of the runs. The {LABELS} labels serve all goals of a seed.",
        "",
    ]


def validity_lines(document: Row) -> list[str]:
    """Share of valid proposals, in the runs and in random walks of all ionic families."""
    runs = document["runs"]
    proposed, rejected = (sum(row[key] for row in runs) for key in ("proposed", "rejected"))
    failed = sum(row["failed"] for row in runs)
    lines = ["## Valid share of proposals", ""]
    if proposed:
        share = 1 - (rejected + failed) / proposed
        lines.append(
            f"In all runs above {100 * share:.2f} % of {proposed} proposals (neutral, distances "
            "kept, finite evaluation)."
        )
    for row in document.get("valid", []):
        lines.append(
            f"Walks of six actions of all ionic families from the {row['start']} "
            f"({row['proposed']} proposals): {100 * row['valid']:.1f} %; smact finds oxidation "
            f"states for {100 * row['smact']:.1f} %."
        )
    return lines


def speed_lines(document: Row) -> list[str]:
    """Evaluations per minute of the property model."""
    row = document.get("speed")
    if row is None:
        return []
    return [
        "",
        "## Speed",
        "",
        f"Surrogate on {row['structures']} distinct cells of {row['atoms']} atoms in batches of "
        f"128, graphs included: {row['per_minute']:,.0f} evaluations per minute of "
        f"{row['processes']} processes of one thread ({row['per_cpu_minute']:,.0f} per CPU "
        f"minute); peak memory grew by {row['memory_growth_mb']:.0f} MB after the first batch. "
        f"Full tight binding (T1), which the surrogate does not use, would take "
        f"{row['t1_cpu_ms']:.0f} CPU ms more for each cell: "
        f"{60e3 / (60e3 / row['per_cpu_minute'] + row['t1_cpu_ms']):,.0f} per CPU minute.",
    ]
