"""Report of a run: a picture and one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qdgnn_ase import PROPERTIES
from qdgnn_design.output import candidate_rows
from qdgnn_design.pareto import objectives, pareto_front
from qdgnn_design.run import DesignResult
from qdgnn_design.targets import Target, squash

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%;font-size:13px}
td,th{border-bottom:1px solid #ddd;padding:4px 8px;text-align:left;vertical-align:top}
img{max-width:100%} .no{color:#a22} .yes{color:#272} code{background:#f4f4f4;padding:0 3px}
"""


def write_report(result: DesignResult, out: Path) -> list[Path]:
    """Write report.png and report.html into a folder."""
    picture = BytesIO()
    figure(result).savefig(picture, format="png", dpi=120)
    png, page = out / "report.png", out / "report.html"
    for path, content in ((png, picture.getvalue()), (page, _page(result, picture).encode())):
        beside = path.with_name(f".{path.name}")
        beside.write_bytes(content)
        beside.replace(path)
    return [png, page]


def figure(result: DesignResult) -> Figure:
    """Each target against the evaluations, the best score, and the trade-off of two targets."""
    targets = result.problem.targets
    panels = len(targets) + 1 + (len(targets) == 2)
    drawing = Figure(figsize=(4.6 * panels, 3.8), layout="constrained")
    axes = np.atleast_1d(drawing.subplots(1, panels))
    for axis, target in zip(axes, targets, strict=False):
        _draw_values(axis, result, target)
    _draw_scores(axes[len(targets)], result)
    if len(targets) == 2:
        _draw_front(axes[-1], result)
    return drawing


def unit_of(target: Target) -> str:
    """Unit of a target, "" where it has none or none is known."""
    unit = PROPERTIES[target.name].unit if target.name in PROPERTIES else ""
    return "" if unit == "1" else unit


def _draw_values(axis: Axes, result: DesignResult, target: Target) -> None:
    known = [o for o in result.problem.outcomes if o.values is not None]
    calls = [o.call for o in known]
    values = [o.values.values[target.name] for o in known if o.values is not None]
    axis.scatter(calls, values, s=12, color="tab:blue", alpha=0.6, label="evaluated")
    hits = np.array([(o.call, o.values.values[target.name]) for o in known if o.hit and o.values])
    if len(hits):
        axis.scatter(hits[:, 0], hits[:, 1], s=28, color="tab:green", label="meets all targets")
    if target.goal == "range":
        slack = target.tolerance if target.low == target.high else 0.0
        ends = [target.low - slack, target.high + slack]
        low, high = (
            end if isfinite(end) else edge for end, edge in zip(ends, axis.get_ylim(), strict=True)
        )
        axis.axhspan(low, high, color="tab:green", alpha=0.15, label="target")
    axis.set(xlabel="unique evaluations", ylabel=_label(target))
    axis.legend(fontsize=8)


def _draw_scores(axis: Axes, result: DesignResult) -> None:
    scores = np.array([squash(o.score) for o in result.problem.outcomes])
    best = np.maximum.accumulate(scores)
    calls = np.arange(1, len(scores) + 1)
    axis.scatter(calls, scores, s=12, color="tab:gray", alpha=0.5, label="evaluated")
    axis.step(calls, best, where="post", color="tab:red", label="best so far")
    finite = scores[np.isfinite(scores)]
    if len(finite) and np.ptp(finite) > 0:
        axis.set_ylim(np.percentile(finite, 5), finite.max() + 0.05 * np.ptp(finite))
    axis.set(xlabel="unique evaluations", ylabel="score s, as sign(s) ln(1 + |s|)")
    axis.legend(fontsize=8, loc="lower right")


def _draw_front(axis: Axes, result: DesignResult) -> None:
    first, second = result.problem.targets
    rows = [o.values.values for o in result.problem.outcomes if o.values is not None]
    front = pareto_front(objectives(rows, result.problem.targets))
    points = np.array([(row[first.name], row[second.name]) for row in rows])
    axis.scatter(points[:, 0], points[:, 1], s=12, color="tab:gray", alpha=0.5, label="evaluated")
    axis.scatter(points[front, 0], points[front, 1], s=30, color="tab:orange", label="Pareto front")
    axis.set(xlabel=_label(first), ylabel=_label(second))
    axis.legend(fontsize=8)


def _label(target: Target) -> str:
    unit = unit_of(target)
    return target.name.replace("_", " ") + (f" ({unit})" if unit else "")


def _page(result: DesignResult, picture: BytesIO) -> str:
    image = base64.b64encode(picture.getvalue()).decode()
    targets = result.problem.targets
    title = f"Design from {escape(str(result.problem.space.start.symbols))}"
    wanted = ", ".join(f"<code>{escape(t.describe())}</code> ± {t.tolerance:g}" for t in targets)
    return "\n".join(
        [
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>",
            f"<style>{_STYLE}</style><h1>{title}</h1><p>Targets: {wanted}.</p>",
            f"<p>{_summary(result.summary())}</p>",
            f"<img alt='values and scores' src='data:image/png;base64,{image}'>",
            "<h2>Candidates</h2>",
            "<p>Those that pass the filter first, then by score. Values are the predictor's "
            "± one standard deviation at the searched geometry; below them, where the candidate "
            "was relaxed, the values there.</p>",
            _table(candidate_rows(result), targets),
            "</html>",
        ]
    )


def _summary(summary: dict[str, Any]) -> str:
    first = summary["first_hit"]
    parts = [
        f"{summary['evaluations']} unique evaluations ({summary['failed']} failed)",
        f"{summary['proposed']} proposals, {100 * summary['valid_share']:.1f} % valid",
        f"{summary['hits']} hits" + (f", the first at {first}" if first else ""),
        f"{summary['passed_filter']} of the reported candidates pass the filter",
    ]
    if summary["training_calls"]:
        parts.append(f"{summary['training_calls']} more evaluations to train the policy")
    if "hypervolume" in summary:
        parts.append(
            f"Pareto front of {summary['pareto_front']}, hypervolume "
            f"{summary['hypervolume']:.3g} tolerances^n above the worst values"
        )
    return "; ".join(parts) + "."


def _table(rows: Sequence[dict[str, Any]], targets: Sequence[Target]) -> str:
    heads = ["", "formula", *(_label(t) for t in targets), "score", "call", "filter", "made by"]
    lines = ["<table><tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"]
    for row in rows:
        mark = ("yes", "passes") if row["passed"] else ("no", "; ".join(row["reasons"]))
        cells = [
            str(row["rank"]),
            escape(row["formula"]) + (" ✓" if row["hit"] else ""),
            *(_value(row, target.name) for target in targets),
            f"{row['score']:.3g}",
            str(row["call"]),
            f"<span class='{mark[0]}'>{row['filter']:.2f}: {escape(mark[1])}</span>",
            escape("; ".join(row["history"])) or "the start",
        ]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _value(row: dict[str, Any], name: str) -> str:
    std = row["std"].get(name)
    text = f"{row['values'][name]:.3g}" + (f" ± {std:.2g}" if std is not None else "")
    if row["values_relaxed"]:
        text += f"<br>relaxed: {row['values_relaxed'][name]:.3g}"
    return text
