"""Selections of ASE databases, and rows that take results."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.db import connect
from numpy.testing import assert_allclose

from qdgnn_ase import read_columns, read_structures
from qdgnn_ase.data.database import append_rows, check_new, split_selection, write_rows


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Cu, Ag and NaCl with gaps; copper has results of EMT."""
    path = tmp_path / "set.db"
    copper = bulk("Cu")
    copper.calc = EMT()
    copper.get_forces()
    with connect(path) as rows:
        rows.write(copper, gap=0.0, label="metal")
        rows.write(bulk("Ag"), gap=0.1, label="metal")
        rows.write(bulk("NaCl", "rocksalt", a=5.6), gap=5.0, label="salt")
    return path


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        ("natoms<2", [1, 2]),
        ("gap>0.05,label=metal", [2]),
        ("Cl", [3]),
        ("id=2", [2]),
        ("energy<100", [1]),
        ("0", [1]),
        ("-1", [3]),
        ("1:", [2, 3]),
    ],
)
def test_selection(database: Path, selection: str, ids: list[int]) -> None:
    frames = read_structures(f"{database}@{selection}")
    assert [atoms.info["id"] for atoms in frames] == ids
    assert read_structures(f"{database}@{selection}", "-1")[0].info["id"] == ids[-1]


def test_rows_keep_results_and_key_value_pairs(database: Path) -> None:
    copper = read_structures(database)[0]
    assert copper.info == {"id": 1, "gap": 0.0, "label": "metal"}
    expected = bulk("Cu")
    expected.calc = EMT()
    assert_allclose(copper.get_potential_energy(), expected.get_potential_energy())


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("gap>9", r"set\.db must hold a row of the selection 'gap>9', got none; .*'gap', 'label'"),
        ("7", "must hold a row of the selection '7', got none"),
        ("gap<<", "must hold a row of the selection"),
        ("natoms<two", "must come with a selection of ASE's syntax, got 'natoms<two'"),
        ("gap>>1", "must come with a selection of ASE's syntax"),
    ],
)
def test_bad_selection(database: Path, selection: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_structures(f"{database}@{selection}")


def test_labels_of_a_selection(database: Path) -> None:
    rows = read_columns(f"{database}@natoms<2", {"band_gap": "gap"})
    assert [row.labels["band_gap"] for row in rows] == [0.0, 0.1]
    assert rows[1].name.endswith("id 2")
    with pytest.raises(FileNotFoundError, match=r"none\.db"):
        read_columns(database.with_name("none.db@natoms<2"), {"band_gap": "gap"})
    assert not database.with_name("none.db").exists()


def test_names_without_selection(tmp_path: Path) -> None:
    assert split_selection("a@b.xyz") == (Path("a@b.xyz"), "")
    literal = tmp_path / "odd.db@name"
    literal.write_text("")
    assert split_selection(literal) == (literal, "")


def test_rows_take_what_ase_can_store(tmp_path: Path) -> None:
    atoms = bulk("Cu")
    atoms.info = {"id": 7, "K": 1.5, "number_text": "12", "path": [1, 2], "good": "yes", "CO2": 1}
    append_rows(tmp_path / "new" / "a.db", [(atoms, {"converged": True})])
    row = connect(tmp_path / "new" / "a.db").get(1)
    assert row.key_value_pairs == {"source_id": 7, "good": "yes", "converged": True}
    assert row.data == {"K": 1.5, "number_text": "12", "path": [1, 2], "CO2": 1}


def test_new_databases_only(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    write_rows(path, [(bulk("Cu"), {})])
    with pytest.raises(FileExistsError, match=r"a\.db must be a new file"):
        write_rows(path, [(bulk("Ag"), {})])
    with pytest.raises(ValueError, match=r"must end in \.db, got .*a\.json"):
        check_new(tmp_path / "a.json")
    assert [row.formula for row in connect(path).select()] == ["Cu"]


def test_a_database_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    def rows() -> list[tuple[Atoms, dict[str, float]]]:
        return [(bulk("Cu"), {}), (bulk("Ag"), {"K": 1.0})]

    with pytest.raises(ValueError, match="Bad key: K"):
        write_rows(tmp_path / "a.db", rows())
    assert not (tmp_path / "a.db").exists()
    write_rows(tmp_path / "a.db", rows()[:1])
    assert len(connect(tmp_path / "a.db")) == 1
