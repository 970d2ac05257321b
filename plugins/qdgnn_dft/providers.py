"""Descriptors ``dft`` (T3) and ``xtb`` (T2) for the group ``qdgnn_ase.descriptors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_ase import Described, Level
from qdgnn_dft.backend import Backend, CalculationError, RefusedError, evaluate
from qdgnn_dft.equivalent import equivalent_record
from qdgnn_dft.gpaw_backend import GPAWBackend
from qdgnn_dft.record import Record, record_key
from qdgnn_dft.references import Table, derived_values, load_references, missing_references
from qdgnn_dft.settings import DFTSettings
from qdgnn_dft.store import ResultStore
from qdgnn_dft.xtb import XTBBackend

Array = NDArray[np.float64]

_OF_STRUCTURE = {
    "formation_energy": "eV/atom",
    "cohesive_energy": "eV/atom",
    "band_gap": "eV",
    "band_gap_direct": "eV",
    "fermi_level": "eV",
}
_OF_ATOMS = {
    "charges": "e",
    "magnetic_moments": "Bohr magnetons",
    "hirshfeld_spins": "electrons",
    "dipole_norms": "e Å",
    "quadrupole_norms": "e Å^2",
    "quadrupole_determinants": "e^3 Å^6",
}


class StoredDescriptors:
    """Descriptors out of a result store, computed where they are missing if asked.

    Args:
        backend: Whose results.
        store: Where they are; None computes each time.
        level: Code and functional of the backend.
        compute: Compute what the store lacks; else it is masked.
    """

    gradient: Literal["constant", "exact"] = "constant"

    def __init__(
        self, backend: Backend, store: ResultStore | None, level: Level, *, compute: bool
    ) -> None:
        self.name = backend.name
        self.backend = backend
        self.store = store
        self.level = level
        self.compute = compute
        self.units = {**_OF_STRUCTURE, **_OF_ATOMS}
        self._references = load_references()

    def __call__(self, atoms: Atoms) -> Described:
        """Descriptors of a structure; what is missing is masked, with the reason."""
        try:
            record, same_cell = self._record(atoms)
        except (RefusedError, CalculationError) as error:
            return self._described(atoms, {}, {}, dict.fromkeys(self.units, str(error)))
        if record is None:
            reason = f"not in store {self.store}"
            return self._described(atoms, {}, {}, dict.fromkeys(self.units, reason))
        values = {**record.values, **derived_values(record, self._references)}
        reasons = self._reasons(atoms, values, record, self._references)
        if not same_cell:
            values = {name: values[name] for name in _OF_STRUCTURE if name in values}
            reasons |= dict.fromkeys(_OF_ATOMS, "the result is that of an equivalent cell")
        provenance = {"settings": record.settings, "key": record.key, **record.provenance}
        return self._described(atoms, values, provenance, reasons)

    def _record(self, atoms: Atoms) -> tuple[Record | None, bool]:
        """Record of this structure, or of an equivalent one; and whether the cell is the same."""
        settings = self.backend.settings(atoms)
        record = self.store.get(record_key(atoms, settings)) if self.store else None
        if record is None and self.store is not None:
            other = equivalent_record(self.store, atoms, settings)
            if other is not None:
                return other, False
        if record is None and self.compute:
            record = evaluate(atoms, self.backend, self.store)
        return record, True

    def _reasons(
        self, atoms: Atoms, values: dict[str, Any], record: Record, table: Table
    ) -> dict[str, str]:
        absent = {
            name: f"{self.name} does not give it" for name in self.units if name not in values
        }
        missing = missing_references(atoms, record.settings, table)
        return absent | {name: why for name, why in missing.items() if name in absent}

    def _described(
        self,
        atoms: Atoms,
        values: dict[str, Any],
        provenance: dict[str, Any],
        reasons: dict[str, str],
    ) -> Described:
        arrays: dict[str, Array] = {}
        for name in self.units:
            shape = (len(atoms),) if name in _OF_ATOMS else ()
            arrays[name] = np.asarray(values.get(name, np.full(shape, np.nan)), dtype=np.float64)
        return Described(
            values=arrays,
            mask={name: name in values for name in self.units},
            level=self.level,
            provenance={**provenance, "missing": reasons},
        )


def dft(
    store: str | Path,
    *,
    settings: DFTSettings | None = None,
    compute: bool = False,
) -> StoredDescriptors:
    """Descriptors of plane-wave DFT with GPAW, out of a store; ``compute=True`` needs GPAW."""
    chosen = settings or DFTSettings()
    backend = GPAWBackend(chosen)
    level = Level(backend.name, chosen.functional)
    return StoredDescriptors(backend, ResultStore(store), level, compute=compute)


def xtb(store: str | Path | None = None, *, compute: bool = True) -> StoredDescriptors:
    """Descriptors of GFN1-xTB, of structures that pass its gates."""
    backend = XTBBackend()
    results = ResultStore(store) if store else None
    level = Level(backend.name, backend.method)
    return StoredDescriptors(backend, results, level, compute=compute)
