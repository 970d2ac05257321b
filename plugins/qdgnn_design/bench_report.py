"""Tables and plot of the design benchmark. Intervals: goals are drawn with replacement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[np.float64]
Row = dict[str, Any]

_DEFAULT = "hybrid"
_LEARNED = ("goal", "hybrid+policy")
"""Methods whose training calls come on top."""
_DRAWS = 2000


def markdown(document: Row) -> str:
    """All tables, and in words who wins."""
    lines = [
        f"Made by `qdgnn bench-design` on {document['date']} ({document['machine']}).",
        "",
        "Share of runs that have met all targets within a budget of unique evaluations, mean calls "
        f"to the hit (a miss counts as {max(document['budgets'])}), and that mean minus the one "
        f"of `{_DEFAULT}` on the same goals; 95 % intervals over goals. Equivalent structures "
        "count once. Training calls of policies are not in these columns; see below the table.",
    ]
    for task in dict.fromkeys(row["task"] for row in document["runs"]):
        lines += ["", f"## {task}", "", *_task(document, task)]
    lines += ["", *_validity(document), *_speed(document)]
    return "\n".join(lines) + "\n"


def table(document: Row, task: str) -> dict[str, Row]:
    """Numbers of every method of a task that has runs."""
    runs = [row for row in document["runs"] if row["task"] == task]
    cap = max(document["budgets"])
    base = _calls([r for r in runs if r["method"] == _DEFAULT], cap)
    rows = {}
    for name in dict.fromkeys(row["method"] for row in runs):
        calls = _calls([r for r in runs if r["method"] == name], cap)
        shares = {
            str(budget): _interval(calls, lambda v, b=budget: float((v <= b).mean()))
            for budget in document["budgets"]
        }
        rows[name] = {
            "goals": len(calls),
            "runs": sum(len(v) for v in calls.values()),
            "shares": shares,
            "median": float(np.median(np.concatenate(list(calls.values())))),
            "mean": _interval(calls, lambda v: float(np.minimum(v, cap).mean())),
            "difference": _difference(calls, base, cap),
        }
    return rows


def plot(document: Row, path: Path) -> None:
    """Share of hits against evaluations, one panel per task."""
    tasks = list(dict.fromkeys(row["task"] for row in document["runs"]))
    figure = Figure(figsize=(6 * max(len(tasks), 1), 4.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, max(len(tasks), 1)))
    cap = max(document["budgets"])
    for axis, task in zip(axes, tasks, strict=True):
        runs = [row for row in document["runs"] if row["task"] == task]
        for k, name in enumerate(dict.fromkeys(row["method"] for row in runs)):
            calls = np.concatenate(
                list(_calls([r for r in runs if r["method"] == name], cap).values())
            )
            grid = np.arange(1, cap + 1)
            share = [(calls <= n).mean() for n in grid]
            style = "--" if name in _LEARNED else "-"
            width = 2.5 if name == _DEFAULT else 1.2
            axis.plot(grid, share, style, lw=width, label=name, color=f"C{k % 10}")
        axis.set(xscale="log", xlabel="unique evaluations", ylabel="share of runs with a hit")
        axis.set_title(f"{task} (dashed: after training)" if task else "")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _task(document: Row, task: str) -> list[str]:
    rows = table(document, task)
    budgets = document["budgets"]
    heads = ["method", "goals x runs", *(f"hit by {b}" for b in budgets), "median calls"]
    heads += ["mean calls", f"minus {_DEFAULT}"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in sorted(rows.items(), key=lambda item: item[1]["mean"][0]):
        median = f"{row['median']:.0f}" if np.isfinite(row["median"]) else f"> {max(budgets)}"
        cells = [name, f"{row['goals']} x {row['runs'] / row['goals']:.3g}"]
        cells += [_percent(row["shares"][str(b)]) for b in budgets]
        cells += [median, _number(row["mean"])]
        cells.append(
            "" if name == _DEFAULT or row["difference"] is None else _number(row["difference"], "+")
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *_verdict(rows), *_break_even(document, task, rows)]


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


def _validity(document: Row) -> list[str]:
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


def _speed(document: Row) -> list[str]:
    row = document.get("speed")
    if row is None:
        return []
    return [
        "",
        "## Speed",
        "",
        f"Surrogate on {row['structures']} distinct cells of {row['atoms']} atoms in batches of "
        f"128, graphs included: {row['per_cpu_minute']:,.0f} evaluations per CPU minute of one "
        f"thread ({row['per_minute']:,.0f} per minute on the machine as busy as it was); peak "
        f"memory grew by {row['peak_memory_growth_mb']:.0f} MB.",
    ]


def _calls(runs: list[Row], cap: int) -> dict[int, Array]:
    """Calls to the hit by goal; infinite for a miss."""
    goals = sorted({row["goal"] for row in runs})
    return {
        goal: np.array([row["calls"] or np.inf for row in runs if row["goal"] == goal], float)
        for goal in goals
    }


def _interval(calls: dict[int, Array], statistic: Any) -> list[float]:
    """Value and 95 % bounds when goals are drawn with replacement."""
    values = np.array([statistic(v) for v in calls.values()])
    draws = np.random.default_rng(0).integers(len(values), size=(_DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return [float(values.mean()), float(low), float(high)]


def _difference(calls: dict[int, Array], base: dict[int, Array], cap: int) -> list[float] | None:
    """Mean calls of a method minus the default's on the goals that both have."""
    shared = sorted(calls.keys() & base.keys())
    if not shared:
        return None
    pairs = {
        goal: np.array([np.minimum(calls[goal], cap).mean() - np.minimum(base[goal], cap).mean()])
        for goal in shared
    }
    return _interval(pairs, lambda v: float(v[0]))


def _percent(values: list[float]) -> str:
    share, low, high = (100 * value for value in values)
    return f"{share:.0f} % ({low:.0f}-{high:.0f})"


def _number(values: list[float], sign: str = "") -> str:
    return f"{values[0]:{sign}.0f} ({values[1]:{sign}.0f} to {values[2]:{sign}.0f})"
