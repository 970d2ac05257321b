"""What DeepChem's tasks are to the core, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qdgnn_ase import PROPERTIES, Property

Array = NDArray[np.float64]
Mode = Literal["regression", "classification"]


def task_rows(tasks: Sequence[str | Property], mode: Mode) -> list[Property]:
    """What each task stands for.

    Raises:
        ValueError: If the mode is unknown, or a task to classify has no probability.
    """
    if mode not in ("regression", "classification"):
        raise ValueError(f"mode must be 'regression' or 'classification', got {mode!r}")
    rows = [task if isinstance(task, Property) else _row(task, mode) for task in tasks]
    wrong = [row.name for row in rows if row.scale != "probability"]
    if wrong and mode == "classification":
        raise ValueError(
            f"tasks to classify must be probabilities, got {wrong}; use mode='regression'"
        )
    return rows


def _row(name: str, mode: Mode) -> Property:
    if name in PROPERTIES:
        return PROPERTIES[name]
    if mode == "classification":
        return Property(
            name=name, unit="1", description="probability", scale="probability", lower=0.0
        )
    return Property(name=name, unit="as labelled", description="task of a DeepChem model")


def masked_labels(y: Any, w: Any, n_tasks: int) -> Array:
    """Labels (n, n_tasks) with NaN where their weight is 0.

    Raises:
        ValueError: If there are more or fewer tasks.
    """
    labels = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    if labels.shape[1] != n_tasks:
        raise ValueError(f"labels must be of {n_tasks} tasks, got {labels.shape[1]}")
    weights = np.asarray(w, dtype=np.float64).reshape(len(y), -1)
    return np.where(weights > 0, labels, np.nan)
