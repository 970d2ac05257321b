"""Energies of free atoms and of elements, and what follows: cohesive and formation energies.

E_coh = (sum_k N_k E_k(free atom) - E) / N and E_form = (E - sum_k N_k mu_k) / N. Free atoms are
spin-polarised, in an orthorhombic box that lets them break the spherical symmetry, as the ground
states of open shells do (0.15 eV for O). mu_k is the energy per atom of the element's crystal or
molecule (`elements.py`; the ring S8 for sulfur, whose crystal holds 16 of them by forces that PBE
does not know). The table ``references.json`` is made by ``qdgnn dft-references``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, ground_state_magnetic_moments

from qdgnn_dft.backend import Backend, evaluate
from qdgnn_dft.elements import STRAINS, reference_structures, volume_at
from qdgnn_dft.record import Record
from qdgnn_dft.store import ResultStore

BOX = (9.0, 9.6, 10.2)
"""Å. Edges of a free atom's box, all different."""
Table = dict[str, dict[str, dict[str, Any]]]
"""functional -> "atoms" or "elements" -> symbol -> energy (eV/atom) and how it came about."""


def load_references(path: str | Path | None = None) -> Table:
    """The shipped table, or that of a file."""
    file = Path(path) if path else files("qdgnn_dft").joinpath("references.json")
    table: Table = json.loads(file.read_text(encoding="utf-8"))
    return table


def derived_values(record: Record, table: Table) -> dict[str, float]:
    """``cohesive_energy`` and ``formation_energy`` in eV/atom; one without references is absent.

    Args:
        record: A record with an energy.
        table: References; those of the record's backend and functional are used.
    """
    own = table.get(scale_of(record.settings), {})
    numbers = record.atoms().symbols
    values = {}
    for name, kind, sign in (
        ("cohesive_energy", "atoms", -1.0),
        ("formation_energy", "elements", 1.0),
    ):
        known = own.get(kind, {})
        if set(numbers) <= set(known):
            parts = sum(known[symbol]["energy"] for symbol in numbers)
            values[name] = float(sign * (record.values["energy"] - parts) / len(numbers))
    return values


def missing_references(atoms: Atoms, settings: Mapping[str, Any], table: Table) -> dict[str, str]:
    """Why a derived value is absent: name -> reason."""
    own, reasons = table.get(scale_of(settings), {}), {}
    for name, kind in (("cohesive_energy", "atoms"), ("formation_energy", "elements")):
        if lacking := sorted(set(atoms.symbols) - set(own.get(kind, {}))):
            reasons[name] = (
                f"no reference energy of {', '.join(lacking)} with {scale_of(settings)}; run "
                f"`qdgnn dft-references {' '.join(lacking)}`"
            )
    return reasons


def scale_of(settings: Mapping[str, Any]) -> str:
    """Energies of one scale may be subtracted: "gpaw PBE"."""
    return f"{settings['backend']} {settings.get('functional', '')}".strip()


def free_atom(symbol: str) -> Atoms:
    """A free atom with the magnetic moment of its ground state."""
    atoms = Atoms(symbol, cell=BOX)
    atoms.center()
    atoms.set_initial_magnetic_moments([ground_state_magnetic_moments[atomic_numbers[symbol]]])
    return atoms


def element_energy(symbol: str, backend: Backend, store: ResultStore) -> dict[str, Any]:
    """Energy per atom of the element's reference, at the volume of the least energy."""
    records = [evaluate(atoms, backend, store) for atoms in reference_structures(symbol)]
    per_atom = [record.values["energy"] / len(record.structure["numbers"]) for record in records]
    energy, volume = per_atom[0], None
    if len(records) > 1:
        energy, strain = _minimum(STRAINS, np.array(per_atom))
        volume = volume_at(symbol, strain)
    return _entry(float(energy), records) | ({"volume_per_atom": volume} if volume else {})


def atom_energy(symbol: str, backend: Backend, store: ResultStore) -> dict[str, Any]:
    """Energy of the free atom."""
    record = evaluate(free_atom(symbol), backend, store)
    return _entry(record.values["energy"], [record])


def _entry(energy: float, records: list[Record]) -> dict[str, Any]:
    first = records[0]
    return {
        "energy": energy,
        "cutoff_ev": first.settings.get("cutoff_ev"),
        "k_mesh": first.settings.get("k_mesh"),
        "moment": first.values.get("total_magnetic_moment", 0.0),
        "version": first.provenance["version"],
        "keys": [record.key for record in records],
        "cpu_seconds": round(sum(record.provenance["cpu_seconds"] for record in records), 1),
    }


def _minimum(strains: Any, energies: Any) -> tuple[float, float]:
    """Minimum of the cubic through the energies and where it lies.

    Raises:
        ValueError: If it lies outside the strains.
    """
    cubic = np.polynomial.Polynomial.fit(strains, energies, 3)
    fine = np.linspace(strains[0], strains[-1], 2001)
    index = int(np.argmin(cubic(fine)))
    if index in (0, len(fine) - 1):
        raise ValueError(
            f"the minimum must lie within strains {strains[0]} and {strains[-1]}, got the end "
            f"{fine[index]:.3f}"
        )
    return float(cubic(fine)[index]), float(fine[index])
