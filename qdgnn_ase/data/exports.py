"""A crystal out of one JSON object, in the forms of the large databases.

| form | keys |
|---|---|
| plain | lattice (3, 3) in Å, species, frac_coords |
| Materials Project, pymatgen | structure: ``Structure.as_dict()``, or its JSON as a string |
| JARVIS | atoms: lattice_mat, coords, elements, cartesian |
| OQMD | unit_cell (3, 3) in Å, sites: "Na @ 0 0 0.5" |
| AFLOW | geometry: a, b, c, alpha, beta, gamma; positions_fractional; species; composition |
| no structure | formula or composition: "Li3PS4" or {"Li": 3, "P": 1, "S": 4} |

AFLOW's lists may be strings with "," and, between atoms, ";".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ase import Atoms
from pymatgen.core import Structure

from qdgnn_ase.data.partial import check_ordered, composition_atoms, structure_atoms

Row = Mapping[str, Any]


def crystal(row: Row, *, partial: bool = False) -> Atoms:
    """The structure of a row; everything else goes to ``atoms.info``.

    Args:
        row: In one of the forms of this module.
        partial: Take disordered structures and compositions without a structure too.

    Raises:
        ValueError: If the row is of no known form, or its structure is not valid.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"a row must be a JSON object, got {row!r:.80}")
    for keys, read in _FORMS.items():
        if all(row.get(key) is not None for key in keys):
            return with_values(read(row), row, keys, partial=partial)
    for key in _FORMULA if partial else ():
        if row.get(key) is not None:
            return with_values(composition_atoms(row[key]), row, (), partial=True)
    forms = "; ".join(", ".join(keys) for keys in _FORMS)
    raise ValueError(f"a row must have the keys of one of {forms}; got {sorted(row)}")


def with_values(atoms: Atoms, row: Row, keys: tuple[str, ...], *, partial: bool) -> Atoms:
    """``atoms`` with the row's other values, and with the occupancies of shared sites."""
    if not partial:
        check_ordered(atoms)
    kept = {"occupancy": atoms.info["occupancy"]} if "occupancy" in atoms.info else {}
    atoms.info = {name: value for name, value in row.items() if name not in keys} | kept
    return atoms


def ordered_atoms(structure: Structure) -> Atoms:
    """Atoms of a structure.

    Raises:
        ValueError: If it holds dummy species or partially occupied sites.
    """
    atoms = structure_atoms(structure)
    check_ordered(atoms)
    return atoms


def _plain(row: Row) -> Atoms:
    return Atoms(row["species"], cell=row["lattice"], scaled_positions=row["frac_coords"], pbc=True)


def _pymatgen(row: Row) -> Atoms:
    structure = row["structure"]
    values = json.loads(structure) if isinstance(structure, str) else structure
    return structure_atoms(Structure.from_dict(values))


def _jarvis(row: Row) -> Atoms:
    atoms = row["atoms"]
    places = "positions" if atoms.get("cartesian") else "scaled_positions"
    symbols = [symbol.strip() for symbol in atoms["elements"]]
    return Atoms(symbols, cell=atoms["lattice_mat"], pbc=True, **{places: atoms["coords"]})


def _oqmd(row: Row) -> Atoms:
    pairs = [site.split("@") for site in row["sites"]]
    scaled = [[float(value) for value in place.split()] for _, place in pairs]
    symbols = [symbol.strip() for symbol, _ in pairs]
    return Atoms(symbols, cell=row["unit_cell"], scaled_positions=scaled, pbc=True)


def _aflow(row: Row) -> Atoms:
    counts = [int(float(count)) for count in _list(row["composition"], ",")]
    species = [symbol.strip() for symbol in _list(row["species"], ",")]
    symbols = [s for s, n in zip(species, counts, strict=True) for _ in range(n)]
    scaled = [_list(place, ",") for place in _list(row["positions_fractional"], ";")]
    cell = [float(value) for value in _list(row["geometry"], ",")]
    return Atoms(symbols, cell=cell, scaled_positions=np.array(scaled, float), pbc=True)


def _list(values: Any, separator: str) -> list[Any]:
    return values.split(separator) if isinstance(values, str) else list(values)


_FORMULA = ("formula", "composition")
_FORMS: dict[tuple[str, ...], Callable[[Row], Atoms]] = {
    ("lattice", "species", "frac_coords"): _plain,
    ("structure",): _pymatgen,
    ("atoms",): _jarvis,
    ("unit_cell", "sites"): _oqmd,
    ("geometry", "positions_fractional", "species", "composition"): _aflow,
}
