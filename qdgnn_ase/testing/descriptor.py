"""Contract of a table of element features."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from qdgnn_ase.testing.common import (
    require,
    require_close,
)


def check_descriptor(table: ArrayLike) -> None:
    """A table of element features: 95 rows by atomic number, row 0 NaN, columns standardised.

    Raises:
        ContractError: With the first contract that is broken.
    """
    values = np.asarray(table, dtype=np.float64)
    require(values.ndim == 2 and len(values) == 95, "a table of 95 rows", values.shape)
    require(bool(np.isnan(values[0]).all()), "NaN in row 0, which is no element", values[0])
    rows, columns = np.nonzero(~np.isfinite(values[1:]))
    bad = list(zip(rows + 1, columns, strict=True))[:10]
    require(not bad, "finite features", f"NaN or inf at (Z, column) {bad}")
    zero, one = np.zeros(values.shape[1]), np.ones(values.shape[1])
    require_close("mean of the columns", values[1:].mean(axis=0), zero, 1e-6, "")
    require_close("standard deviation of the columns", values[1:].std(axis=0), one, 1e-6, "")
