"""One crystal in the form of every database, from files of every kind."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from numpy.testing import assert_allclose
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase import read_labelled, read_structures
from qdgnn_ase.data.exports import crystal

NACL = bulk("NaCl", "rocksalt", a=5.64)
CELL, SCALED = NACL.cell.tolist(), [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"lattice": CELL, "species": ["Na", "Cl"], "frac_coords": SCALED},
    "Materials Project": {"structure": AseAtomsAdaptor.get_structure(NACL).as_dict()},
    "JARVIS": {
        "atoms": {
            "lattice_mat": CELL,
            "coords": SCALED,
            "elements": ["Na", "Cl"],
            "cartesian": False,
        }
    },
    "JARVIS, cartesian": {
        "atoms": {
            "lattice_mat": CELL,
            "coords": NACL.positions.tolist(),
            "elements": ["Na ", "Cl "],
            "cartesian": True,
        }
    },
    "OQMD": {"unit_cell": CELL, "sites": ["Na @ 0 0 0", "Cl @ 0.5 0.5 0.5"]},
    "AFLOW": {
        "geometry": [*NACL.cell.lengths().tolist(), 60.0, 60.0, 60.0],
        "positions_fractional": SCALED,
        "species": ["Na", "Cl"],
        "composition": [1, 1],
    },
    "AFLOW, text": {
        "geometry": ",".join(str(x) for x in [*NACL.cell.lengths(), 60.0, 60.0, 60.0]),
        "positions_fractional": "0,0,0;0.5,0.5,0.5",
        "species": "Na,Cl",
        "composition": "1,1",
    },
}


def check(atoms: Atoms) -> None:
    """Rock salt, however the cell is turned."""
    assert atoms.get_chemical_formula() == "ClNa"
    assert atoms.pbc.all()
    assert_allclose(atoms.cell.cellpar(), NACL.cell.cellpar(), atol=1e-6)
    assert_allclose(atoms.get_scaled_positions(), SCALED, atol=1e-9)


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    atoms = crystal(FORMS[name] | {"band_gap": 5.0})
    check(atoms)
    assert atoms.info == {"band_gap": 5.0}


@pytest.mark.parametrize("kind", ["list", "data", "gzip"])
def test_json_exports(tmp_path: Path, kind: str) -> None:
    rows = [row | {"band_gap": k} for k, row in enumerate(FORMS.values())]
    text = json.dumps({"data": rows, "meta": {}} if kind == "data" else rows)
    path = tmp_path / ("rows.json.gz" if kind == "gzip" else "rows.json")
    path.write_bytes(gzip.compress(text.encode()) if kind == "gzip" else text.encode())
    found = read_labelled(path, {"band_gap": "band_gap"})
    assert [row.labels["band_gap"] for row in found] == list(range(len(FORMS)))
    for row in found:
        check(row.atoms)


def test_json_of_ase_is_still_read(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.json", NACL)
    check(read_structures(tmp_path / "a.json")[0])


def test_csv(tmp_path: Path) -> None:
    """A whole CIF, or pymatgen's JSON, in a cell; an empty cell is a missing label."""
    path = tmp_path / "rows.csv"
    structure = AseAtomsAdaptor.get_structure(NACL)
    with path.open("w", newline="") as lines:
        table = csv.DictWriter(lines, ["id", "cif", "structure", "gap"])
        table.writeheader()
        table.writerow({"id": "a", "cif": structure.to(fmt="cif"), "gap": "5.0"})
        table.writerow({"id": "b", "structure": json.dumps(structure.as_dict()), "gap": "na"})
        table.writerow({"id": "c", "structure": json.dumps(structure.as_dict())})
    found = read_labelled(path, {"band_gap": "gap"})
    assert_allclose([row.labels["band_gap"] for row in found], [5.0, np.nan, np.nan])
    for row in found:
        assert sorted(row.atoms.symbols) == ["Cl", "Na"]
        assert row.atoms.get_volume() == pytest.approx(NACL.get_volume())


def test_parquet(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "rows.parquet"
    text = json.dumps(AseAtomsAdaptor.get_structure(NACL).as_dict())
    pandas.DataFrame({"structure": [text, text], "gap": [5.0, None]}).to_parquet(path)
    first, second = read_labelled(path, {"band_gap": "gap"})
    check(first.atoms)
    assert first.labels["band_gap"] == 5.0
    assert np.isnan(second.labels["band_gap"])


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"pip install 'qdgnn-ase\[tables\]'"):
        read_structures(path)


def test_an_empty_cif_leaves_the_other_form(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([FORMS["OQMD"] | {"cif": None}]))
    check(read_structures(path)[0])


def test_disordered_structure_names_its_row(tmp_path: Path) -> None:
    mixed = Structure(CELL, [{"Na": 0.5, "K": 0.5}, "Cl"], SCALED)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([FORMS["plain"], {"structure": mixed.as_dict()}]))
    with pytest.raises(ValueError, match=r"rows\.json, row 2.*fully occupied sites"):
        read_structures(path)


def test_unknown_form_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unit_cell, sites.*got \['positions', 'symbols'\]"):
        crystal({"symbols": ["Na"], "positions": [[0, 0, 0]]})


def test_composition_that_does_not_fit_its_species() -> None:
    with pytest.raises(ValueError, match="argument"):
        crystal(FORMS["AFLOW"] | {"composition": [1]})
