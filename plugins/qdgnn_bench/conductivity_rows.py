"""Measured ionic conductors (OBELiX): structures, features of them, and rows for training."""

from __future__ import annotations

import csv
import gzip
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from pymatgen.core import Composition, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifParser

from qdgnn_ase import Predictor, as_atoms, fold_of, reduced_formula
from qdgnn_bench.trivial import composition_features

Array = NDArray[np.float64]
Row = dict[str, Any]
_LABEL = "Ionic conductivity (S cm-1)"
_LARGEST_FORMULA = 100


@dataclass(frozen=True, slots=True, eq=False)
class Conductors:
    """Measured conductors; all sequences have one entry a row."""

    formulas: list[str]
    """Reduced formula."""
    publications: list[str]
    """DOI."""
    composition: Array
    """Features of the composition."""
    formula: Array
    """Embedding of the composition."""
    structure: Array
    """Features of the structure with its occupancies, of the composition where there is none."""
    most_likely: Array
    """The same of the structure with the most likely elements."""
    has_structure: NDArray[np.bool_]
    """Whether there is one."""
    log_conductivity: Array
    """log10 of S/cm; of a censored row its upper bound."""
    censored: NDArray[np.bool_]
    """Whether the measurement says "less than" only."""


def read_conductors(table: Path, cifs: Path, predictor: Predictor) -> Conductors:
    """Features and labels of the rows of OBELiX's CSV and of JSON lines with "ID" and "cif"."""
    rows, structures = read_obelix(table, cifs)
    compositions = [Composition(row["True Composition"]) for row in rows]
    formula = predictor.embedding(compositions)
    values = [row[_LABEL].strip() for row in rows]
    return Conductors(
        formulas=[row["reduced_formula"] for row in rows],
        publications=[row["DOI"] for row in rows],
        composition=composition_features([_formula_unit(row) for row in compositions]),
        formula=formula,
        structure=structure_features(structures, formula, predictor, as_atoms),
        most_likely=structure_features(structures, formula, predictor, most_likely),
        has_structure=np.array([structure is not None for structure in structures]),
        log_conductivity=np.log10([float(value.removeprefix("<")) for value in values]),
        censored=np.array([value.startswith("<") for value in values]),
    )


def read_obelix(table: Path, cifs: Path) -> tuple[list[dict[str, str]], list[Structure | None]]:
    """Rows of the CSV, and the structure of each where there is one that can be read."""
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    with gzip.open(cifs, "rt", encoding="utf-8") as texts:
        by_id = {row["ID"]: row["cif"] for row in map(json.loads, texts)}
    return rows, [_structure(by_id.get(row["ID"])) for row in rows]


def training_rows(table: Path, cifs: Path) -> tuple[list[Row], list[Row]]:
    """Rows for ``qdgnn train``: of each measurement its structure or else its composition, and
    once more the compositions of those structures, which few rows are too little to do without.

    A structure whose composition is in another fold than that of the table is not used: a fold of
    one composition would know the other.
    """
    rows, structures = read_obelix(table, cifs)
    measured, compositions = [], []
    for row, structure in zip(rows, structures, strict=True):
        known = {"id": row["ID"], "ionic_conductivity": row[_LABEL].strip()}
        composition = Composition(row["True Composition"])
        if structure is None or _fold(structure) != _fold(composition):
            measured.append(known | {"composition": composition.as_dict()})
            continue
        measured.append(known | {"structure": structure.as_dict()})
        same = structure.composition.element_composition
        compositions.append(known | {"composition": same.as_dict()})
    return measured, compositions


def _fold(material: Structure | Composition) -> str:
    return fold_of(reduced_formula(as_atoms(material)))


def _formula_unit(composition: Composition) -> Atoms:
    """Atoms in the proportions of the composition."""
    counts, _ = composition.get_integer_formula_and_factor(max_denominator=_LARGEST_FORMULA)
    return Atoms(counts)


def _structure(cif: str | None) -> Structure | None:
    """Structure of a CIF; None where there is none or it cannot be read."""
    if cif is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rounding and occupancies, which are expected here
        try:
            return CifParser.from_str(cif, check_cif=False).parse_structures(primitive=True)[0]
        except (ValueError, KeyError, IndexError):
            return None


def most_likely(structure: Structure) -> Atoms:
    """Each site with its most likely element; sites that are less than half full are empty."""
    sites = [site for site in structure if sum(site.species.values()) >= 0.5]
    species = [max(site.species.items(), key=lambda item: item[1])[0].symbol for site in sites]
    coordinates = [site.frac_coords for site in sites]
    return AseAtomsAdaptor.get_atoms(
        Structure(structure.lattice, species, coordinates), msonable=False
    )


def structure_features(
    structures: Sequence[Structure | None],
    formula: Array,
    predictor: Predictor,
    convert: Callable[[Structure], Atoms],
) -> Array:
    """Embedding, atoms per volume (1/Å^3) and order, (n, hidden + 2).

    Args:
        structures: None where there is none.
        formula: Embeddings of the compositions, which stand where there is none; density and order
            are then NaN.
        predictor: Property model.
        convert: What it is shown of a structure.
    """
    features = np.hstack([formula, np.full((len(formula), 2), np.nan)])
    for row, structure in zip(features, structures, strict=True):
        if structure is not None:
            row[:-2] = predictor.embedding([convert(structure)])[0]
            row[-2] = structure.composition.num_atoms / structure.volume
            row[-1] = float(structure.is_ordered)
    return features
