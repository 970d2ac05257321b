"""Tier T0: one table of free-atom properties for Z = 1..94.

The columns are valence levels (GFN1-xTB, empty shells too, and non-relativistic LDA), mean orbital
radii, ionisation energy I, electron affinity A, hardness (I - A) / 2, electronegativity,
polarizability, radii and valence electron counts. `make_atomic_table.py` makes the table from
named libraries; `atomic_sources()` tells source, unit and rule for missing values of each column.

As model input each column is standardised over the 94 elements; strictly positive, widely spread
columns (`LOG_FEATURES`) are replaced by their natural logarithm first.
"""

from __future__ import annotations

import csv
import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_ELEMENTS = 94
FEATURE_NAMES: tuple[str, ...] = (
    "level_s_ev",
    "level_p_ev",
    "level_d_ev",
    "lda_level_s_ev",
    "lda_level_p_ev",
    "lda_level_d_ev",
    "ionization_energy_ev",
    "electron_affinity_ev",
    "hardness_ev",
    "electronegativity_pauling",
    "polarizability_bohr3",
    "covalent_radius_angstrom",
    "atomic_radius_angstrom",
    "vdw_radius_angstrom",
    "n_s",
    "n_p",
    "n_d",
    "n_f",
    "n_valence",
)
LOG_FEATURES: frozenset[str] = frozenset({"polarizability_bohr3"})


@cache
def atomic_table() -> dict[str, NDArray[np.float64]]:
    """Return the numeric columns of the table, unit in the name, each `(94,)` with index Z - 1."""
    text = files("qdgnn_ase.quantum").joinpath("atomic.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    names = [name for name in rows[0] if name != "symbol"]
    return {name: _read_only(np.array([float(row[name]) for row in rows])) for name in names}


@cache
def atomic_sources() -> dict[str, dict[str, Any]]:
    """Return per column its unit, description, library, licence, rule and filled elements."""
    text = files("qdgnn_ase.quantum").joinpath("atomic_sources.json").read_text(encoding="utf-8")
    columns: dict[str, dict[str, Any]] = json.loads(text)["columns"]
    return columns


@cache
def atomic_features() -> NDArray[np.float64]:
    """Return the model input `(95, n_features)`, row index Z, columns as in `FEATURE_NAMES`.

    Each column has mean 0 and standard deviation 1 over Z = 1..94 (no unit). Row 0 is NaN, so that
    a missing element cannot pass in silence.
    """
    table = atomic_table()
    columns = [np.log(table[n]) if n in LOG_FEATURES else table[n] for n in FEATURE_NAMES]
    values = np.stack(columns, axis=1)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    return _read_only(np.vstack([np.full((1, len(FEATURE_NAMES)), np.nan), values]))


def permuted_features(seed: int) -> NDArray[np.float64]:
    """Return `atomic_features()` with the rows of Z = 1..94 permuted: the negative control.

    A model that gains as much from these rows as from the real ones uses them as labels only.
    """
    features = atomic_features().copy()
    features[1:] = np.random.default_rng(seed).permutation(features[1:])
    return features


def _read_only(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the array, closed for writing."""
    values.setflags(write=False)
    return values
