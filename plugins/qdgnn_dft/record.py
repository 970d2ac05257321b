"""What a calculation leaves behind: values, how they came about, and the key that finds them.

A record is text: canonical JSON with the structure, the settings, the values and the provenance.
Its SHA-256 goes with it, so that a damaged copy is recognised before any number is read from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

UNITS: dict[str, str] = {
    "energy": "eV, extrapolated to zero smearing",
    "free_energy": "eV, whose derivatives the forces are",
    "forces": "eV/Å",
    "stress": "eV/Å^3, Voigt xx yy zz yz xz xy, tension positive",
    "band_gap": "eV, 0 for a metal",
    "band_gap_direct": "eV, smallest at one k-point",
    "vbm_k_point": "fractions of the reciprocal vectors",
    "cbm_k_point": "fractions of the reciprocal vectors",
    "fermi_level": "eV",
    "charges": "e per atom, Hirshfeld or of the code",
    "dipole_norms": "e Å per atom, Hirshfeld",
    "quadrupole_norms": "e Å^2 per atom, Hirshfeld",
    "quadrupole_determinants": "e^3 Å^6 per atom, Hirshfeld",
    "hirshfeld_spins": "electrons per atom",
    "density_difference": "electrons/Å^3 on a coarse grid of the cell, less free atoms",
    "magnetic_moments": "Bohr magnetons per atom",
    "total_magnetic_moment": "Bohr magnetons",
}
"""Names of the values of a record; one that a backend does not give is absent."""

ROUNDING = 1e-8
"""Å. Structures that agree to it share a key."""

_DECIMALS = round(-np.log10(ROUNDING))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The result of one calculation."""

    structure: Mapping[str, Any]
    """As `structure_document` gives it."""
    settings: Mapping[str, Any]
    """Everything that determines the values: backend, functional, cutoff, mesh, spin ..."""
    values: Mapping[str, Any]
    """Floats and nested lists of floats; names and units are those of `UNITS`."""
    provenance: Mapping[str, Any]
    """What does not determine the values: code version, CPU seconds, attempt, date."""

    @property
    def key(self) -> str:
        """Key of the calculation, 64 hexadecimal digits."""
        return _digest(canonical_json([self.structure, self.settings]))

    def atoms(self) -> Atoms:
        """The structure, without a calculator."""
        return Atoms(
            self.structure["numbers"],
            positions=self.structure["positions"],
            cell=self.structure["cell"],
            pbc=self.structure["pbc"],
            magmoms=self.structure.get("magnetic_moments"),
        )

    def to_text(self) -> str:
        """Canonical JSON; :meth:`from_text` is the inverse."""
        return canonical_json(
            {
                "structure": self.structure,
                "settings": self.settings,
                "values": self.values,
                "provenance": self.provenance,
            }
        )

    @classmethod
    def from_text(cls, text: str) -> Record:
        """Record out of its canonical JSON."""
        return cls(**json.loads(text))


def checksum(text: str) -> str:
    """SHA-256 of a record's text."""
    return _digest(text)


def record_key(atoms: Atoms, settings: Mapping[str, Any]) -> str:
    """Key of the calculation of a structure with these settings."""
    return _digest(canonical_json([structure_document(atoms), settings]))


def structure_document(atoms: Atoms) -> dict[str, Any]:
    """Elements, cell, positions and initial magnetic moments (where set), rounded to 1e-8 Å.

    Raises:
        ValueError: If positions or cell are not finite, or there are no atoms.
    """
    if not len(atoms):
        raise ValueError("structure must hold at least one atom, got an empty Atoms object")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise ValueError(f"positions and cell of {atoms.symbols} must be finite, got NaN or inf")
    document = {
        "numbers": atoms.numbers.tolist(),
        "cell": _rounded(atoms.cell.array),
        "pbc": atoms.pbc.tolist(),
        "positions": _rounded(atoms.positions),
    }
    moments = atoms.get_initial_magnetic_moments()
    return document | ({"magnetic_moments": _rounded(moments)} if moments.any() else {})


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _rounded(array: Any) -> Any:
    return (np.round(np.asarray(array, dtype=np.float64), _DECIMALS) + 0.0).tolist()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
