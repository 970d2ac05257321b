"""Tables of active-learning runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
METRICS = {"energy_mae": "E MAE, eV/atom", "forces_mae": "F MAE, eV/Å"}


def compared(arms: Mapping[Any, Sequence[Sequence[Row]]]) -> list[Row]:
    """Mean error of each arm by round, with the standard deviation over seeds.

    With two arms and several seeds also the mean of first less second, paired by seed, and its
    standard error.

    Args:
        arms: Arm -> runs (one per seed) -> rows of `run_arm`.
    """
    table = []
    for number in range(min(len(run) for runs in arms.values() for run in runs)):
        first = next(iter(arms.values()))[0][number]
        row: Row = {"round": number, "labels": first["labels"]}
        for arm, runs in arms.items():
            for metric in METRICS:
                values = [run[number][metric] for run in runs]
                row[f"{arm}_{metric}"] = float(np.mean(values))
                row[f"{arm}_{metric}_std"] = float(np.std(values))
        for metric in METRICS if len(arms) == 2 else ():
            first_arm, second_arm = arms.values()
            pairs = zip(first_arm, second_arm, strict=True)
            differences = [a[number][metric] - b[number][metric] for a, b in pairs]
            row[f"difference_{metric}"] = float(np.mean(differences))
            if len(differences) > 1:
                spread = np.std(differences, ddof=1) / len(differences) ** 0.5
                row[f"difference_{metric}_error"] = float(spread)
        table.append(row)
    return table


def markdown(table: Sequence[Row], arms: Sequence[str], n_seeds: int) -> str:
    """Markdown of `compared`; the last line says who wins."""
    heads = [f"{arm}, {text}" for text in METRICS.values() for arm in arms]
    lines = [
        f"| labels | {' | '.join(heads)} |",
        "|" + "---|" * (len(heads) + 1),
    ]
    for row in table:
        cells = [_cell(row, arm, metric, n_seeds) for metric in METRICS for arm in arms]
        lines.append(f"| {row['labels']} | {' | '.join(cells)} |")
    if len(arms) > 1:
        lines += ["", *(_verdict(table[-1], metric, n_seeds) for metric in METRICS)]
    return "\n".join(lines)


def _cell(row: Row, arm: str, metric: str, n_seeds: int) -> str:
    spread = f" ± {row[f'{arm}_{metric}_std']:.4f}" if n_seeds > 1 else ""
    return f"{row[f'{arm}_{metric}']:.4f}{spread}"


def _verdict(row: Row, metric: str, n_seeds: int) -> str:
    """Who wins by more than two standard errors, if there is an error to go by."""
    active, random = (row[f"{arm}_{metric}"] for arm in ("active", "random"))
    difference, error = row[f"difference_{metric}"], row.get(f"difference_{metric}_error")
    who = "active wins" if difference < 0 else "random wins"
    if error is None:
        who += " (one seed: no error known)"
    elif abs(difference) <= 2 * error:
        who = f"not told apart (difference {difference:+.4f}, standard error {error:.4f})"
    return (
        f"- {METRICS[metric]}, last round, {n_seeds} seed(s): active / random = "
        f"{active / random:.2f}, {who}"
    )
