"""Which structures to label next: those whose atoms the model has seen least of, and not twice.

The variance of a linear last layer on the features f of an atom is f^T C^-1 f with
C = lambda 1 + sum f f^T over the labelled atoms (last-layer rigidity, Bigi, Chong, Ceriotti,
Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024)). Structures are taken one after the other;
each taken one joins C, which lowers the variance of all that are like it: uncertainty and
diversity are one criterion.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RIDGE = 1e-3
"""lambda relative to the mean square of the features."""


def select(pool: Sequence[Array], known: Sequence[Array], n: int) -> list[int]:
    """Indices of the ``n`` structures to label next, most uncertain first.

    Args:
        pool: Features of each candidate's atoms, (n_atoms, n_features).
        known: The same of the labelled structures.
        n: How many; all if there are fewer.
    """
    if not pool:
        return []
    everything = np.concatenate([*pool, *known])
    size = everything.shape[1]
    matrix = RIDGE * float((everything**2).mean()) * np.eye(size)
    for features in known:
        matrix += features.T @ features
    chosen: list[int] = []
    while len(chosen) < min(n, len(pool)):
        variances = _variances(pool, matrix)
        variances[chosen] = -np.inf
        chosen.append(int(variances.argmax()))
        matrix += pool[chosen[-1]].T @ pool[chosen[-1]]
    return chosen


def _variances(pool: Sequence[Array], matrix: Array) -> Array:
    """Mean variance of the atoms of each structure, (n_structures,)."""
    inverse = np.linalg.inv(matrix)
    return np.array(
        [float(((features @ inverse) * features).sum(axis=1).mean()) for features in pool]
    )
