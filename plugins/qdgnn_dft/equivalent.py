"""Results of structures that are the same crystal in another cell, orientation or origin."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ase import Atoms
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase import reduced_formula
from qdgnn_dft.record import Record
from qdgnn_dft.store import ResultStore

_OF_THE_CELL = ("k_mesh", "starts")
"""Settings that follow from the cell that was chosen."""


def equivalent_record(
    store: ResultStore, atoms: Atoms, settings: Mapping[str, Any]
) -> Record | None:
    """A record of the same crystal with the same settings, or None.

    Crystals are the same if pymatgen's StructureMatcher maps them on each other within 0.5 % of the
    lattice, without scaling. Per structure only: sites have another order, forces another frame.
    Magnetic starts that were given by hand make a structure its own.
    """
    if not atoms.pbc.all() or atoms.get_initial_magnetic_moments().any():
        return None
    matcher = StructureMatcher(ltol=0.005, stol=0.01, angle_tol=0.2, scale=False)
    wanted = AseAtomsAdaptor.get_structure(atoms)
    for record in store.records(reduced_formula(atoms)):
        other = record.atoms()
        same = _settings(record.settings) == _settings(settings) and other.pbc.all()
        if not same or other.get_initial_magnetic_moments().any():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen's, of lattices that do not match
            if matcher.fit(wanted, AseAtomsAdaptor.get_structure(other)):
                return record
    return None


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _OF_THE_CELL}
