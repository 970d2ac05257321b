"""Intervals of error metrics: formulas, not structures, are drawn with replacement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def resampled_weights(formulas: Sequence[str], n_bootstrap: int = 1_000) -> Array:
    """Weights of structures when formulas are drawn with replacement, (n_bootstrap, n).

    Args:
        formulas: Reduced formula of each structure.
        n_bootstrap: Samples.
    """
    names, groups = np.unique(np.array(formulas), return_inverse=True)
    draws = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=n_bootstrap
    )
    return draws[:, groups].astype(np.float64)


def interval(values: Sequence[float]) -> list[float]:
    """95 % interval of resampled values; NaN are left out."""
    return [float(bound) for bound in np.nanpercentile(values, [2.5, 97.5])]


def mean_interval(values: Array, weights: Array) -> list[float]:
    """95 % interval of the mean of values (n,) under weights of `resampled_weights`."""
    return interval((weights @ values / weights.sum(axis=1)).tolist())
