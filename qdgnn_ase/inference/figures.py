"""Pictures of simulations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def plot_dynamics(rows: list[dict[str, float]], n_atoms: int, path: Path) -> None:
    """Energy per atom and temperature against time, as PNG.

    Args:
        rows: Output of ``molecular_dynamics``.
        n_atoms: Atoms of the cell.
        path: File to write.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    energy, temperature = figure.subplots(2, 1, sharex=True)
    time = [row["time_ps"] for row in rows]
    reference = rows[0]["potential"]
    for name in ("potential", "total"):
        values: list[Any] = [1e3 * (row[name] - reference) / n_atoms for row in rows]
        energy.plot(time, values, label=name)
    energy.set(ylabel="energy (meV/atom)", title="relative to the first potential energy")
    energy.legend()
    temperature.plot(time, [row["temperature"] for row in rows], color="tab:red")
    temperature.set(xlabel="time (ps)", ylabel="temperature (K)")
    figure.savefig(path, dpi=120)
