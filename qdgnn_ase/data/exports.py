"""A crystal out of one JSON object, in the forms of the large databases.

| form | keys |
|---|---|
| plain | lattice (3, 3) in Å, species, frac_coords |
| Materials Project, pymatgen | structure: ``Structure.as_dict()``, or its JSON as a string |
| JARVIS | atoms: lattice_mat, coords, elements, cartesian |
| OQMD | unit_cell (3, 3) in Å, sites: "Na @ 0 0 0.5" |
| AFLOW | geometry: a, b, c, alpha, beta, gamma; positions_fractional; species; composition |

AFLOW's lists may be strings with "," and, between atoms, ";".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ase import Atoms
from pymatgen.core import DummySpecies, Structure
from pymatgen.io.ase import AseAtomsAdaptor

Row = Mapping[str, Any]


def crystal(row: Row) -> Atoms:
    """The structure of a row; everything else goes to ``atoms.info``.

    Raises:
        ValueError: If the row is of no known form, or its structure is not valid.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"a row must be a JSON object, got {row!r:.80}")
    for keys, read in _FORMS.items():
        if all(row.get(key) is not None for key in keys):
            atoms = read(row)
            atoms.info = {name: value for name, value in row.items() if name not in keys}
            return atoms
    forms = "; ".join(", ".join(keys) for keys in _FORMS)
    raise ValueError(f"a row must have the keys of one of {forms}; got {sorted(row)}")


def ordered_atoms(structure: Structure) -> Atoms:
    """Atoms of a structure.

    Raises:
        ValueError: If it holds dummy species or partially occupied sites.
    """
    if any(isinstance(kind, DummySpecies) for kind in structure.composition):
        raise ValueError(f"structure must hold elements only, got {structure.composition}")
    if not structure.is_ordered:
        raise ValueError(
            f"structure must have fully occupied sites, got {structure.composition}; make an "
            "ordered one first (for example with pymatgen's OrderDisorderedStructureTransformation)"
        )
    return AseAtomsAdaptor.get_atoms(structure, msonable=False)


def _plain(row: Row) -> Atoms:
    return Atoms(row["species"], cell=row["lattice"], scaled_positions=row["frac_coords"], pbc=True)


def _pymatgen(row: Row) -> Atoms:
    structure = row["structure"]
    values = json.loads(structure) if isinstance(structure, str) else structure
    return ordered_atoms(Structure.from_dict(values))


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


_FORMS: dict[tuple[str, ...], Callable[[Row], Atoms]] = {
    ("lattice", "species", "frac_coords"): _plain,
    ("structure",): _pymatgen,
    ("atoms",): _jarvis,
    ("unit_cell", "sites"): _oqmd,
    ("geometry", "positions_fractional", "species", "composition"): _aflow,
}
