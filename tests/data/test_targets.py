"""Labelled structures from every form; wrong columns and values are named."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect

from qdgnn_ase.data.targets import bound_table, label_table, read_columns, read_labelled


def row(symbol: str, **columns: Any) -> str:
    atoms = bulk(symbol)
    crystal = {
        "lattice": atoms.cell.array.tolist(),
        "species": list(atoms.symbols),
        "frac_coords": atoms.get_scaled_positions().tolist(),
    }
    return json.dumps(crystal | columns)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [row("Cu", gap=0.0, logk=2.0), row("Si", gap=0.6, logk=None), row("Al", logk=1.5)]
    path.write_text("\n".join(rows))
    return path


def test_json_lines(lines: Path) -> None:
    found = read_labelled(lines, {"band_gap": "gap", "bulk_modulus": "log10:logk"})
    assert [str(item.atoms.symbols) for item in found] == ["Cu", "Si2", "Al"]
    assert found[0].labels == {"band_gap": 0.0, "bulk_modulus": pytest.approx(100.0)}
    assert np.isnan(found[1].labels["bulk_modulus"])
    assert found[2].name == "rows.jsonl, row 3"
    table = label_table(found, ("band_gap", "metal_probability", "bulk_modulus"))
    nan = np.nan
    wanted = [[0, 1, 100], [0.6, 0, nan], [nan, nan, 10**1.5]]
    np.testing.assert_allclose(table, wanted)


@pytest.mark.parametrize("suffix", ["extxyz", "db"])
def test_files_of_ase(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    for symbol, value in (("Cu", 1.25), ("Si", 2.5)):
        if suffix == "db":
            connect(path).write(bulk(symbol), hull=value)
        else:
            atoms = bulk(symbol)
            atoms.info["hull"] = value
            ase.io.write(path, atoms, append=True)
    found = read_labelled(path, {"energy_above_hull": "hull"})
    assert [item.labels["energy_above_hull"] for item in found] == [1.25, 2.5]


def test_cif_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, symbol in (("a", "Cu"), ("b", "Si")):
        ase.io.write(tmp_path / f"{name}.cif", bulk(symbol))
    (tmp_path / "broken.cif").write_text("data_x\n_cell_length_a nonsense\n")
    (tmp_path / "id_prop.csv").write_text("a,0.5,10\nbroken,1,1\nb,,20\nmissing,1,1\n")
    with caplog.at_level(logging.INFO):
        found = read_labelled(tmp_path, {"band_gap": "1", "shear_modulus": "2"})
    assert [item.labels["shear_modulus"] for item in found] == [10.0, 20.0]
    assert np.isnan(found[1].labels["band_gap"])
    assert "broken.cif" in caplog.text
    assert "missing.cif" in caplog.text
    assert "2 of 4 structures read" in caplog.text


def test_bad_value_in_a_cif_folder_names_its_structure(tmp_path: Path) -> None:
    """Not its place among those that could be read."""
    for name in ("a", "c"):
        ase.io.write(tmp_path / f"{name}.cif", bulk("Cu"))
    (tmp_path / "id_prop.csv").write_text("a,0.5\nmissing,1\nc,none\n")
    with pytest.raises(ValueError, match=r"id c: 1 must be a number or empty, got 'none'"):
        read_labelled(tmp_path, {"band_gap": "1"})


def test_damaged_database(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    connect(path).write(bulk("Cu"), hull=1.0)
    path.write_bytes(path.read_bytes()[:100] + b"\0" * 3000)
    with pytest.raises(ValueError, match=r"rows\.db must be an ASE database, got a damaged one"):
        read_labelled(path, {"energy_above_hull": "hull"})


def test_infinite_label_is_an_error(lines: Path) -> None:
    lines.write_text(lines.read_text() + "\n" + row("Ag", gap=float("inf")))
    with pytest.raises(ValueError, match="row 4: gap must be finite or empty, got inf"):
        read_labelled(lines, {"band_gap": "gap"})


def test_cif_folder_that_names_one_twice(tmp_path: Path) -> None:
    (tmp_path / "id_prop.csv").write_text("a,1\nb,2\na,3\n")
    with pytest.raises(ValueError, match="got twice: a"):
        read_labelled(tmp_path, {"band_gap": "1"})


def test_folder_without_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold id_prop\.csv"):
        read_labelled(tmp_path, {"band_gap": "1"})


def test_unknown_column_lists_the_columns(lines: Path) -> None:
    with pytest.raises(ValueError, match=r"column 'gapp' for band_gap, got \['gap', 'logk'\]"):
        read_labelled(lines, {"band_gap": "gapp"})


def test_unknown_property(lines: Path) -> None:
    with pytest.raises(ValueError, match="got 'gap'"):
        read_labelled(lines, {"gap": "gap"})


def test_columns_of_any_name(lines: Path) -> None:
    found = read_columns(lines, {"mine": "gap"})
    assert found[1].labels == {"mine": 0.6}
    with pytest.raises(ValueError, match="column 'gapp' for mine"):
        read_columns(lines, {"mine": "gapp"})


def test_value_that_is_no_number_names_its_row(lines: Path) -> None:
    lines.write_text(lines.read_text() + "\n" + row("Ag", gap="<1E-10"))
    with pytest.raises(ValueError, match=r"row 4: gap must be a number or empty, got '<1E-10'"):
        read_labelled(lines, {"band_gap": "gap"})


def test_bounds_are_marked_and_tell_no_metal(lines: Path) -> None:
    lines.write_text(lines.read_text() + "\n" + row("Ag", gap="<0", logk="< -2"))
    columns = {"band_gap": "gap", "bulk_modulus": "log10:logk"}
    *others, last = read_labelled(lines, columns, bounds=True)
    assert not any(item.censored for item in others)
    assert last.censored == set(columns)
    assert last.labels["bulk_modulus"] == pytest.approx(0.01)
    targets = ("band_gap", "metal_probability", "bulk_modulus")
    assert bound_table([others[0], last], targets).tolist() == [[False] * 3, [True, False, True]]
    assert np.isnan(label_table([last], targets)[0, 1])
    with pytest.raises(ValueError, match="row 4: gap must be a number"):
        read_labelled(lines, {"bulk_modulus": "log10:logk"}, bounds=True, conditions={"t": "gap"})


def test_structures_are_not_shared(lines: Path) -> None:
    first, second = (read_labelled(lines, {"band_gap": "gap"})[0].atoms for _ in range(2))
    assert isinstance(first, Atoms)
    first.positions += 1.0
    assert not np.allclose(first.positions, second.positions)
