"""Real electronic-structure calculations as labels and descriptors, with a result store.

``evaluate(atoms, backend_of("gpaw"), ResultStore("results.db"))`` gives a `Record`: energy, forces,
stress, band edges, Fermi level, charges and moments with their settings, computed once.
"""

from __future__ import annotations

from qdgnn_dft.backend import (
    Backend,
    CalculationError,
    CalculatorBackend,
    RefusedError,
    backend_of,
    evaluate,
)
from qdgnn_dft.calculator import StoredCalculator
from qdgnn_dft.record import Record
from qdgnn_dft.settings import DFTSettings
from qdgnn_dft.store import ResultStore

__all__ = [
    "Backend",
    "CalculationError",
    "CalculatorBackend",
    "DFTSettings",
    "Record",
    "RefusedError",
    "ResultStore",
    "StoredCalculator",
    "backend_of",
    "evaluate",
]
