"""The curve of a run: one row per epoch, as CSV and PNG."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from qdgnn_ase.training.checkpoint import write_atomic

History = list[dict[str, float]]

_PANELS = {"energy": "E MAE (eV/atom)", "forces": "F error, norm (eV/Å)", "stress": "S loss (GPa)"}


def write_history(folder: Path, history: History) -> None:
    """Write ``history.csv`` and ``history.png`` into ``folder``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    write_atomic(folder / "history.csv", text.getvalue().encode())
    write_atomic(folder / "history.png", _plot(history))


def _plot(history: History) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, (name, label) in zip(figure.subplots(1, 3), _PANELS.items(), strict=True):
        for fold in ("train", "val"):
            axes.plot(epochs, [row[f"{fold}_{name}"] for row in history], label=fold)
        axes.set(xlabel="epoch", ylabel=label, yscale="log")
        axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
