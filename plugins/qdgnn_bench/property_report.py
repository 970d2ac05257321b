"""Tables and figures of property models on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdgnn_ase import PROPERTIES, mean_interval, reduced_formula, resampled_weights
from qdgnn_bench.property_rows import Rows, compared
from qdgnn_bench.property_runs import PRETRAINED

Array = NDArray[np.float64]
OURS = "qdgnn"
GOALS = {"CGCNN": 0.62, "MEGNet": 0.67, "SchNet": 0.70, "MPNN": 0.75}
"""Ratios of mean absolute errors, ours over theirs, that we aim at."""
_PRETRAINED_NOTE = (
    f'"{PRETRAINED}" starts from the trunk of the default potential, which has learned energies, '
    "forces and stress of other frames, none of a composition of this test fold: not the same "
    "data as the others."
)


def summarise(
    targets: tuple[str, ...], test: Rows, values: Mapping[str, list[Array]]
) -> dict[str, dict[str, Any]]:
    """Errors of each model and their paired differences from ours, per target.

    Args:
        targets: Names.
        test: Test structures and labels.
        values: Model -> for each seed (n_test, n_targets), on the scale that is compared.

    Returns:
        Model -> target -> ``mae`` (mean over seeds), ``mae_std`` over seeds, ``interval`` (95 %,
        formulas drawn with replacement), and beside ours ``ratio`` = ours / theirs and
        ``difference`` = theirs - ours with ``difference_interval``.
    """
    weights = resampled_weights([reduced_formula(atoms) for atoms in test.structures])
    wanted = compared(targets, test.labels)
    errors = {name: np.abs(np.array(runs) - wanted).mean(axis=0) for name, runs in values.items()}
    return {
        name: {
            target: _row(np.array(values[name])[:, :, k], wanted[:, k], weights)
            | _paired(errors[name][:, k], errors.get(OURS, errors[name])[:, k], weights)
            for k, target in enumerate(targets)
        }
        for name in values
    }


def _row(values: Array, wanted: Array, weights: Array) -> dict[str, Any]:
    errors = np.abs(values - wanted)
    each = errors.mean(axis=1)
    square = ((values - wanted) ** 2).mean()
    return {
        "mae": float(each.mean()),
        "mae_std": float(each.std(ddof=1)) if len(each) > 1 else None,
        "rmse": float(np.sqrt(square)),
        "r2": float(1 - square / wanted.var()) if np.ptp(wanted) else None,
        "interval": mean_interval(errors.mean(axis=0), weights),
    }


def _paired(theirs: Array, ours: Array, weights: Array) -> dict[str, Any]:
    return {
        "ratio": float(ours.mean() / theirs.mean()),
        "difference": float((theirs - ours).mean()),
        "difference_interval": mean_interval(theirs - ours, weights),
    }


def markdown(document: Mapping[str, Any]) -> str:
    """Tables of a document of `qdgnn bench-properties`."""
    targets, runs, timing = document["targets"], document["runs"], document["inference"]
    lines = [
        f"{document['file']}, {_split(document)}; {document['minutes']:g} CPU minutes per run, "
        f"seeds {document['seeds']}; one thread of {document['machine']}, {document['date']}. Mean "
        "absolute errors of the test fold with 95 % intervals over formulas; ratio: ours / theirs; "
        "difference: theirs - ours, paired.",
    ]
    for target in targets:
        lines += ["", *_target_table(target, document["errors"])]
    if PRETRAINED in runs:
        lines += ["", _PRETRAINED_NOTE]
    lines += [
        "",
        "| model | parameters | learning rate | epochs | CPU min | ms, single | ms, batch of 64 |",
        "|---|---|---|---|---|---|---|",
        *[_run_line(name, rows, timing.get(name)) for name, rows in runs.items()],
        *[f"| {name} |  |  |  |  | {_ms(ms)} |" for name, ms in timing.items() if name not in runs],
    ]
    return "\n".join(lines) + "\n"


def _split(document: Mapping[str, Any]) -> str:
    """How many rows there are, and how they are split."""
    rows, limit = document["rows"], f"rows of at most {document['max_atoms']} atoms"
    if folds := document.get("folds"):
        return f"{rows['test']} {limit}, {folds} folds by reduced formula, each of them tested on"
    sizes = f"{rows['train']} / {rows['val']} / {rows['test']}"
    return f"{sizes} {limit}, split by reduced formula"


def short_table(document: Mapping[str, Any]) -> str:
    """For the README: a row for each model, its errors and the ratios of ours to them."""
    targets, errors = document["targets"], document["errors"]
    first = targets[0]
    minutes = [run["cpu_minutes"] for runs in document["runs"].values() for run in runs]
    ours = [run["cpu_minutes"] for run in document["runs"].get(OURS, [])] or [0.0]
    units = [f"{name}, {_unit(name)}" for name in targets]
    span = "-".join(dict.fromkeys(f"{end:.0f}" for end in (min(minutes), max(minutes))))
    lines = [
        f"Mean absolute errors (ours / theirs); {document['file']}, {_split(document)}, "
        f"{span} CPU minutes per run (ours {max(ours):.0f}), seeds {document['seeds']}.",
        "",
        f"| model | {' | '.join(units)} |",
        "|---|" + "---|" * len(targets),
    ]
    for name, found in sorted(errors.items(), key=lambda item: item[1][first]["mae"]):
        cells = [
            f"{found[target]['mae']:.3f}"
            + ("" if name == OURS else f" ({found[target]['ratio']:.2f})")
            for target in targets
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if PRETRAINED in errors:
        lines += ["", _PRETRAINED_NOTE]
    return "\n".join(lines)


def _unit(target: str) -> str:
    row = PROPERTIES[target]
    return f"log10 {row.unit}" if row.scale == "log10" else row.unit


def _target_table(target: str, errors: Mapping[str, Any]) -> list[str]:
    lines = [
        f"| {target} | MAE, {_unit(target)} | RMSE | R2 | ratio | goal | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in sorted(errors.items(), key=lambda item: item[1][target]["mae"]):
        lines.append(f"| {name} | {' | '.join(_error_cells(name, found[target]))} |")
    return lines


def _error_cells(name: str, row: Mapping[str, Any]) -> list[str]:
    low, high = row["interval"]
    spread = f" ± {row['mae_std']:.4f}" if row["mae_std"] is not None else ""
    cells = [f"{row['mae']:.4f}{spread} ({low:.4f}-{high:.4f})", f"{row['rmse']:.4f}"]
    cells.append("-" if row["r2"] is None else f"{row['r2']:.3f}")
    if name == OURS:
        return [*cells, "", "", ""]
    low, high = row["difference_interval"]
    goal = GOALS.get(name)
    verdict = f"{goal} {'reached' if row['ratio'] <= goal else 'missed'}" if goal else ""
    return [
        *cells,
        f"{row['ratio']:.2f}",
        verdict,
        f"{row['difference']:+.4f} ({low:+.4f} to {high:+.4f})",
    ]


def _run_line(name: str, rows: list[dict[str, Any]], timing: Mapping[str, float] | None) -> str:
    first = rows[0]
    rates = "/".join(f"{rate:g}" for rate in sorted({row["learning_rate"] for row in rows}))
    epochs = "/".join(f"{row['epochs']:.0f}" for row in rows)
    minutes = "/".join(f"{row['cpu_minutes']:.1f}" for row in rows)
    return f"| {name} | {first['parameters']:,} | {rates} | {epochs} | {minutes} | {_ms(timing)} |"


def _ms(timing: Mapping[str, float] | None) -> str:
    return f"{timing['batch_1']:.2f} | {timing['batch_64']:.2f}" if timing else " | "


def parity_plot(
    path: Path, targets: tuple[str, ...], test: Rows, values: Mapping[str, list[Array]]
) -> None:
    """Predicted against labelled, a panel for each model and target."""
    from matplotlib.figure import Figure

    wanted = compared(targets, test.labels)
    figure = Figure(figsize=(2.6 * len(values), 2.7 * len(targets)), layout="constrained")
    axes = figure.subplots(len(targets), len(values), squeeze=False)
    for k, target in enumerate(targets):
        low, high = wanted[:, k].min(), wanted[:, k].max()
        for axis, (name, runs) in zip(axes[k], values.items(), strict=True):
            axis.plot([low, high], [low, high], color="0.6", linewidth=0.8)
            axis.plot(wanted[:, k], runs[0][:, k], ".", markersize=2)
            axis.set(title=name, xlabel=f"{target}, label", ylabel="prediction")
    figure.savefig(path, dpi=150)
