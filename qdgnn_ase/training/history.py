"""The curve of a run: one row per epoch, as CSV and PNG."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from qdgnn_ase.training.checkpoint import write_atomic

History = list[dict[str, float]]

_LABELS = {"energy": "E MAE (eV/atom)", "forces": "F error, norm (eV/Å)", "stress": "S loss (GPa)"}


def write_history(folder: Path, history: History) -> None:
    """Write ``history.csv`` into ``folder``."""
    text = io.StringIO()
    names = sorted(history[-1], key=lambda name: (name != "epoch", name))  # also after a restart
    writer = csv.DictWriter(text, fieldnames=names)
    writer.writeheader()
    writer.writerows(history)
    write_atomic(folder / "history.csv", text.getvalue().encode())


def draw_history(folder: Path, history: History) -> None:
    """Draw ``history.png`` in ``folder``; takes half a second."""
    write_atomic(folder / "history.png", _plot(history))


def _plot(history: History) -> bytes:
    from matplotlib.figure import Figure

    names = [key.removeprefix("train_") for key in history[-1] if key.startswith("train_")]
    figure = Figure(figsize=(3.3 * len(names), 3.2), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        curves = {fold: [row[f"{fold}_{name}"] for row in history] for fold in ("train", "val")}
        for fold, values in curves.items():
            axes.plot(epochs, values, label=fold)
        positive = any(value > 0 for values in curves.values() for value in values)  # has labels
        axes.set(
            xlabel="epoch", ylabel=_LABELS.get(name, name), yscale="log" if positive else "linear"
        )
        axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
