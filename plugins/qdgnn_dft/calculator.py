"""A backend with its store as an ASE calculator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from qdgnn_dft.backend import Backend, backend_of, evaluate
from qdgnn_dft.record import Record, record_key
from qdgnn_dft.references import derived_values, load_references
from qdgnn_dft.store import ResultStore

_ASE_NAMES = ("energy", "free_energy", "forces", "stress", "charges")
_INFO = ("band_gap", "band_gap_direct", "fermi_level", "total_magnetic_moment")


class StoredCalculator(Calculator):  # type: ignore[misc]  # ASE is untyped
    """Energy, forces and stress out of the store, or computed and stored.

    Args:
        backend: What computes.
        store: Where results are looked up and kept; None keeps nothing.
        logs: Folder of the codes' own output, a file per structure.
    """

    implemented_properties: ClassVar[list[str]] = [*_ASE_NAMES, "magmoms", "magmom"]

    def __init__(
        self,
        backend: Backend,
        store: ResultStore | None = None,
        logs: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.backend = backend
        self.store = store
        self.logs = Path(logs) if logs else None
        self.record: Record | None = None
        """Record of the last structure."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill ``results`` and ``record``."""
        super().calculate(atoms, list(properties), list(system_changes))
        self.results, self.record = {}, None
        self.record = evaluate(self.atoms, self.backend, self.store, self._log_file())
        values = self.record.values
        self.results = {name: _array(values[name]) for name in _ASE_NAMES if name in values}
        if "magnetic_moments" in values:
            self.results["magmoms"] = np.array(values["magnetic_moments"])
            self.results["magmom"] = values["total_magnetic_moment"]

    def _log_file(self) -> Path | None:
        if self.logs is None:
            return None
        own = f"{self.atoms.get_chemical_formula()}-{record_key(self.atoms, {})[:12]}"
        name = self.atoms.info.get("key", own)
        return self.logs / f"{name}.txt"


def stored_calculator(backend: str, store: str | None, logs: str | None) -> StoredCalculator:
    """A calculator out of texts, for worker processes; see `backend_of` and `ResultStore`."""
    return StoredCalculator(backend_of(backend), ResultStore(store) if store else None, logs)


def record_info(_: Atoms, calculator: StoredCalculator) -> dict[str, Any]:
    """Entries for ``atoms.info``: the ``annotate`` argument of `qdgnn_ase.label`."""
    record = calculator.record
    if record is None:
        return {}
    values = {**record.values, **derived_values(record, load_references())}
    known = {name: values[name] for name in _VALUES if name in values}
    settings = {name: record.settings[name] for name in _SETTINGS if name in record.settings}
    return known | settings | {"record": record.key, "version": record.provenance["version"]}


_VALUES = (*_INFO, "formation_energy", "cohesive_energy")
_SETTINGS = ("backend", "functional", "cutoff_ev", "k_mesh")


def _array(value: Any) -> Any:
    return np.array(value) if isinstance(value, list) else value
