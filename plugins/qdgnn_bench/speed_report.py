"""Tables and plot of the speed benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qdgnn_bench.speed_worker import Row

_FIT_FROM = 512
"""Atoms. Smaller cells are dominated by the cost of a call."""

_COLUMNS = ("cpu_ms_min", "cpu_ms_median", "wall_ms_median", "memory_mb", "first_s")


def exponent(rows: Sequence[Row]) -> float:
    """Slope of log CPU time over log atoms from 512 atoms up; NaN below two sizes."""
    fitted = [row for row in rows if row["atoms"] >= _FIT_FROM]
    if len({row["atoms"] for row in fitted}) < 2:
        return float("nan")
    atoms, times = zip(*((row["atoms"], row["cpu_ms_min"]) for row in fitted), strict=True)
    return float(np.polyfit(np.log(atoms), np.log(times), 1)[0])


def series(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows of each subject and mode, by size."""
    keys = dict.fromkeys((row["subject"], row["mode"]) for row in rows)
    return {
        key: sorted(
            (row for row in rows if (row["subject"], row["mode"]) == key),
            key=lambda row: row["atoms"],
        )
        for key in keys
    }


def tables(rows: Sequence[Row]) -> str:
    """Markdown: times and memory, where ours goes, exponents."""
    lines = _times(rows)
    shares = [row for row in rows if "gemm_flops" in row]
    if shares:
        lines += ["", *_shares(shares)]
    exponents = {key: exponent(own) for key, own in series(rows).items()}
    fits = [f"{name} ({mode}) {e:.2f}" for (name, mode), e in exponents.items() if np.isfinite(e)]
    if fits:
        lines += ["", f"Exponent of the CPU time from {_FIT_FROM} atoms up: {', '.join(fits)}."]
    return "\n".join(lines) + "\n"


def _times(rows: Sequence[Row]) -> list[str]:
    """Last column: least CPU time of a subject over that of ours in the same mode."""
    ours = {(r["mode"], r["atoms"]): r["cpu_ms_min"] for r in rows if r["subject"] == "qdgnn"}
    lines = [
        "| atoms | subject | mode | CPU ms, least | CPU ms, median | wall ms, median | memory MB "
        "| first call s | ours is faster by |",
        "|" + "---|" * 9,
    ]
    for row in sorted(rows, key=lambda row: (row["atoms"], row["mode"])):
        cells = [f"{row[name]:.3g}" if row[name] < 100 else f"{row[name]:.0f}" for name in _COLUMNS]
        other = row["subject"] != "qdgnn" and (row["mode"], row["atoms"]) in ours
        ratio = f"{row['cpu_ms_min'] / ours[row['mode'], row['atoms']]:.1f}" if other else ""
        lines.append(
            f"| {row['atoms']} | {row['subject']} | {row['mode']} | {' | '.join(cells)} | {ratio} |"
        )
    return lines


def _shares(rows: Sequence[Row]) -> list[str]:
    """Parts of the eager call, and its distance to the time of its matrix products alone."""
    lines = [
        "| atoms | edges | graph ms | forward ms | backward ms | rest of the call ms "
        "| GEMM floor ms | call over floor |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        parts = [row[f"{name}_ms"] for name in ("graph", "forward", "backward")]
        floor = 1e3 * row["gemm_flops"] / row["gemm_flops_per_s"]
        numbers = [*parts, max(0.0, row["cpu_ms_min"] - sum(parts)), floor]
        cells = " | ".join(f"{number:.3g}" for number in numbers)
        over = row["cpu_ms_min"] / floor
        lines.append(f"| {row['atoms']} | {row['edges']} | {cells} | {over:.1f} |")
    return lines


def plot(rows: Sequence[Row], path: str | Path) -> None:
    """CPU time against atoms, both logarithmic; dashed: tuned."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    colors = {name: f"C{k}" for k, name in enumerate(dict.fromkeys(r["subject"] for r in rows))}
    for (name, mode), own in series(rows).items():
        axes.loglog(
            [row["atoms"] for row in own],
            [row["cpu_ms_min"] for row in own],
            "o-" if mode == "default" else "o--",
            color=colors[name],
            label=f"{name}, {mode}",
        )
    axes.set_xlabel("atoms")
    axes.set_ylabel("energy, forces, stress: CPU ms per call")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
