"""Trade-offs between targets: the candidates that no other beats in everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from qdgnn_design.targets import Target

Array = NDArray[np.float64]


def objectives(rows: Sequence[Mapping[str, float]], targets: Sequence[Target]) -> Array:
    """Larger is better in every column, (n_rows, n_targets), in tolerances."""
    gain = {"maximise": 1.0, "minimise": -1.0, "range": 0.0}
    return np.array(
        [
            [gain[t.goal] * row[t.name] / t.tolerance - t.distance(row[t.name]) for t in targets]
            for row in rows
        ]
    ).reshape(len(rows), len(targets))


def pareto_front(values: Array) -> list[int]:
    """Rows of (n_rows, n_targets) that no other row dominates; of equal rows the first."""
    front = []
    for k, row in enumerate(values):
        beaten = (values >= row).all(axis=1) & (values > row).any(axis=1)
        repeated = (values[:k] == row).all(axis=1).any()
        if not beaten.any() and not repeated:
            front.append(k)
    return front


def hypervolume(values: Array, reference: Array) -> float:
    """Volume that the rows dominate above ``reference`` (n_targets,), by botorch."""
    import torch
    from botorch.utils.multi_objective.hypervolume import Hypervolume

    above = values[(values > reference).all(axis=1)]
    if len(above) == 0:
        return 0.0
    front = above[pareto_front(above)]
    return float(Hypervolume(torch.tensor(reference)).compute(torch.tensor(front)))
