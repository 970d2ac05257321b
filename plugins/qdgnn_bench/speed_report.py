"""Tables and plot of the speed benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qdgnn_bench.speed_worker import Row

_FIT_FROM = 512
"""Atoms. Smaller cells are dominated by the cost of a call."""


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
    """A row per size, a column per subject and mode; factors to ours in the same mode."""
    cells = {(row["subject"], row["mode"], row["atoms"]): row for row in rows}
    columns = list(series(rows))
    lines = [
        "Least CPU ms per call / MB above the loaded process (times ours in the same mode). 192 "
        "atoms: Li7La3Zr2O12, 216: NaCl, others MgO.",
        "",
        "| atoms | " + " | ".join(f"{name}, {mode}" for name, mode in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for atoms in sorted({row["atoms"] for row in rows}):
        texts = [_time(cells, name, mode, atoms) for name, mode in columns]
        lines.append(f"| {atoms} | {' | '.join(texts)} |")
    return lines


def _time(cells: dict[tuple[str, str, int], Row], name: str, mode: str, atoms: int) -> str:
    row, ours = cells.get((name, mode, atoms)), cells.get(("qdgnn", mode, atoms))
    if row is None:
        return ""
    time = row["cpu_ms_min"]
    text = f"{time:.0f}" if time >= 100 else f"{time:.3g}"
    factor = f" ({time / ours['cpu_ms_min']:.1f})" if ours and name != "qdgnn" else ""
    return f"{text} / {row['memory_mb']:.0f}{factor}"


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
