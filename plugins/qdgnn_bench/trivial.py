"""Baselines that know the composition alone: what a structure model must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from pymatgen.core import Element

Array = NDArray[np.float64]
Regression = Callable[[Array, Array, Array], Array]
"""Training features, training labels, test features -> test values."""


def trivial_predictions(
    train: Sequence[Atoms], labels: Array, test: Sequence[Atoms], seed: int = 0
) -> dict[str, Array]:
    """Values (n_test, n_targets) of each trivial baseline.

    Args:
        train: Training structures.
        labels: (n_train, n_targets), on the scale that is compared; NaN = missing.
        test: Test structures.
        seed: Of the boosted trees.
    """
    known, wanted = composition_features(train), composition_features(test)
    regressions: dict[str, Regression] = {
        "mean": lambda _, y, x: np.full(len(x), y.mean()),
        "linear in elements": _linear,
        "boosted trees of composition": lambda a, y, x: _boosted(a, y, x, seed),
    }
    return {name: _per_target(run, known, labels, wanted) for name, run in regressions.items()}


def composition_features(structures: Sequence[Atoms]) -> Array:
    """(n_structures, 119): fractions of 94 elements, and mean, deviation, least, largest and range
    of atomic number, row, group, electronegativity and atomic radius (0 = unknown) over the atoms.
    """
    return np.array([_features(atoms) for atoms in structures])


def _features(atoms: Atoms) -> Array:
    fractions = np.bincount(atoms.numbers, minlength=95)[1:95] / len(atoms)
    properties = _ELEMENTS[atoms.numbers]
    low, high = properties.min(axis=0), properties.max(axis=0)
    rows = [properties.mean(axis=0), properties.std(axis=0), low, high, high - low]
    return np.concatenate([fractions, *rows])


def _element_properties() -> Array:
    table = np.zeros((95, 5))
    for z in range(1, 95):
        element = Element.from_Z(z)
        chi, radius = element.data.get("X") or 0.0, element.data.get("Atomic radius") or 0.0
        table[z] = z, element.row, element.group, chi, radius
    return table


_ELEMENTS = _element_properties()


def _per_target(run: Regression, known: Array, labels: Array, wanted: Array) -> Array:
    columns = []
    for column in labels.T:
        present = np.isfinite(column)
        columns.append(run(known[present], column[present], wanted))
    return np.stack(columns, axis=1)


def _linear(known: Array, labels: Array, wanted: Array) -> Array:
    from sklearn.linear_model import Ridge

    values: Array = Ridge(alpha=1e-3).fit(known[:, :94], labels).predict(wanted[:, :94])
    return values


def _boosted(known: Array, labels: Array, wanted: Array, seed: int) -> Array:
    from sklearn.ensemble import HistGradientBoostingRegressor

    trees = HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=500, learning_rate=0.05, random_state=seed
    )
    values: Array = trees.fit(known, labels).predict(wanted)
    return values
