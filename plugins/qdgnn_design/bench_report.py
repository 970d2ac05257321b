"""Tables and plot of the design benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from qdgnn_design.bench_sections import (
    conflict_lines,
    gap_lines,
    speed_lines,
    validity_lines,
)
from qdgnn_design.bench_statistics import (
    by_group,
    difference,
    interval,
    number,
    percent,
    table_lines,
)

Array = NDArray[np.float64]
Row = dict[str, Any]

_DEFAULT = "hybrid"
_LEARNED = ("goal", "hybrid+policy")
"""Methods whose training calls come on top."""


def markdown(document: Row) -> str:
    """All tables, and in words who wins."""
    lines = [
        f"Made by `qdgnn bench-design` on {document['date']} ({document['machine']}, one thread).",
        "",
        "Share of runs that have met all targets within a budget of unique evaluations, mean calls "
        "to the hit (a miss counts as the largest budget), and that mean minus the one of "
        f"`{_DEFAULT}` on the same goals; 95 % intervals over goals. Equivalent structures count "
        "once. Annealing cools over the largest budget. Training calls of policies are not in "
        "these columns; see below the table. Slow methods have fewer runs.",
    ]
    for task in dict.fromkeys(row["task"] for row in document["runs"]):
        lines += ["", f"## {task}", "", *_task(document, task)]
    lines += ["", *conflict_lines(document["conflict"], _DEFAULT)]
    lines += gap_lines(document["gap"], document["runs"])
    lines += [*validity_lines(document), *speed_lines(document)]
    return "\n".join(lines) + "\n"


def table(document: Row, task: str) -> dict[str, Row]:
    """Numbers of every method of a task that has runs."""
    runs = [row for row in document["runs"] if row["task"] == task]
    budgets, cap = _budgets(document, task)
    calls = {name: _calls(runs, name) for name in dict.fromkeys(row["method"] for row in runs)}
    capped = {
        name: {goal: np.minimum(v, cap) for goal, v in groups.items()}
        for name, groups in calls.items()
    }
    rows = {}
    for name, groups in calls.items():
        rows[name] = {
            "goals": len(groups),
            "runs": sum(len(v) for v in groups.values()),
            "shares": {
                str(n): interval(groups, lambda v, n=n: float((v <= n).mean()))  # type: ignore[misc]
                for n in budgets
            },
            "median": float(np.median(np.concatenate(list(groups.values())))),
            "mean": interval(capped[name], lambda v: float(v.mean())),
            "difference": difference(capped[name], capped.get(_DEFAULT, {})),
        }
    return rows


def plot(document: Row, path: Path) -> None:
    """Share of hits against evaluations, one panel per task, one colour per method."""
    tasks = list(dict.fromkeys(row["task"] for row in document["runs"]))
    names = sorted({row["method"] for row in document["runs"]})
    figure = Figure(figsize=(6 * len(tasks), 4.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(tasks)))
    for axis, task in zip(axes, tasks, strict=True):
        runs = [row for row in document["runs"] if row["task"] == task]
        grid = np.arange(1, _budgets(document, task)[1] + 1)
        for name in dict.fromkeys(row["method"] for row in runs):
            calls = np.concatenate(list(_calls(runs, name).values()))
            axis.plot(
                grid,
                [(calls <= n).mean() for n in grid],
                "--" if name in _LEARNED else "-",
                lw=2.5 if name == _DEFAULT else 1.2,
                label=name,
                color=colormaps["tab20"](names.index(name)),
            )
        axis.set(xscale="log", xlabel="unique evaluations", ylabel="share of runs with a hit")
        axis.set_title(f"{task} (dashed: after training)")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _task(document: Row, task: str) -> list[str]:
    rows = table(document, task)
    budgets, cap = _budgets(document, task)
    heads = ["method", "goals x runs", *(f"hit by {b}" for b in budgets), "median calls"]
    heads += ["mean calls", f"minus {_DEFAULT}"]
    lines = []
    for name, row in sorted(rows.items(), key=lambda item: item[1]["mean"][0]):
        median = f"{row['median']:.0f}" if np.isfinite(row["median"]) else f"> {cap}"
        own = name == _DEFAULT or row["difference"] is None
        cells = [name, f"{row['goals']} x {row['runs'] / row['goals']:.3g}"]
        cells += [percent(row["shares"][str(b)]) for b in budgets]
        cells += [median, number(row["mean"]), "" if own else number(row["difference"], "+")]
        lines.append(cells)
    closing = [*_verdict(rows), *_break_even(document, task, rows)]
    return [*table_lines(heads, lines), "", *closing]


def _verdict(rows: dict[str, Row]) -> list[str]:
    if _DEFAULT not in rows:
        return []
    groups: dict[str, list[str]] = {"ahead of": [], "not told apart from": [], "behind": []}
    for name, row in rows.items():
        if name == _DEFAULT or row["difference"] is None:
            continue
        _, low, high = row["difference"]
        kind = "ahead of" if low > 0 else "behind" if high < 0 else "not told apart from"
        groups[kind].append(name)
    words = [f"{kind} {', '.join(names)}" for kind, names in groups.items() if names]
    return [f"The default, `{_DEFAULT}`, is {'; '.join(words)}." if words else ""]


def _break_even(document: Row, task: str, rows: dict[str, Row]) -> list[str]:
    """After how many goals training has paid for itself."""
    lines = []
    untrained = {n: r["mean"][0] for n, r in rows.items() if n not in _LEARNED}
    for policy in document["policies"]:
        for name in _LEARNED:
            if policy["task"] != task or name not in rows or not untrained:
                continue
            best = min(untrained, key=lambda other: untrained[other])
            saved = untrained[best] - rows[name]["mean"][0]
            paid = (
                f"pays after {policy['training_calls'] / saved:.0f} goals"
                if saved > 0
                else "never pays: it needs no fewer calls per goal"
            )
            lines.append(
                f"Training `{name}` cost {policy['training_calls']} unique evaluations "
                f"({policy['steps']} steps); against `{best}` it {paid}."
            )
    return lines


def _budgets(document: Row, task: str) -> tuple[list[int], int]:
    """Budgets within the one that the task's runs had, and that one."""
    cap = max(row["budget"] for row in document["runs"] if row["task"] == task)
    return [budget for budget in document["budgets"] if budget <= cap], cap


def _calls(runs: list[Row], name: str) -> dict[int, Array]:
    """A method's calls to the hit by goal; infinite for a miss."""
    mine = [row for row in runs if row["method"] == name]
    return by_group(mine, "goal", lambda row: row["calls"] or np.inf)
