"""The result store: nothing lost, doubled or changed, whatever happens to writers and file."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.db import connect

from qdgnn_dft import store as store_module
from qdgnn_dft.equivalent import equivalent_record
from qdgnn_dft.record import Record, checksum, record_key, structure_document
from qdgnn_dft.store import ResultStore
from qdgnn_dft.store_trial import damage_files, kill_writers, trial_record


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results.db")


def test_a_record_comes_back_as_it_was(store: ResultStore) -> None:
    record = trial_record(3)
    assert store.get(record.key) is None
    store.put(record)
    store.put(record)
    assert store.get(record.key) == record
    assert [found.key for found in store.records()] == [record.key]
    assert [found.key for found in store.records("NaCl")] == [record.key]
    assert list(store.records("KCl")) == []


def test_ase_reads_the_file(store: ResultStore) -> None:
    record = trial_record(1)
    store.put(record)
    row = connect(store.address).get(1)
    assert row.energy == record.values["energy"]
    assert np.allclose(row.forces, record.values["forces"])
    assert row.toatoms() == record.atoms()


@pytest.mark.parametrize("formula", ["InF", "NaN", "O2"])
def test_formulas_that_read_as_numbers(store: ResultStore, formula: str) -> None:
    """ASE refuses texts such as InF, which Python reads as infinity."""
    atoms = Atoms(formula, np.arange(6.0).reshape(2, 3), cell=[5, 5, 5], pbc=True)
    record = _record_of(atoms)
    store.put(record)
    assert store.get(record.key) == record


def test_key_is_that_of_structure_and_settings() -> None:
    atoms, settings = bulk("Si"), {"backend": "x", "cutoff_ev": 400.0}
    key = record_key(atoms, settings)
    noise = atoms.copy()
    noise.positions += 1e-10
    assert record_key(noise, settings) == key
    assert record_key(atoms, settings | {"cutoff_ev": 500.0}) != key
    changed = []
    for change in ("positions", "cell", "pbc", "numbers", "magnetic moments"):
        other = atoms.copy()
        if change == "positions":
            other.positions[1, 0] += 2e-8
        elif change == "cell":
            other.set_cell(other.cell.array * (1 + 1e-7))
        elif change == "pbc":
            other.pbc = (True, True, False)
        elif change == "numbers":
            other.numbers[0] = 32
        else:
            other.set_initial_magnetic_moments([1.0, -1.0])
        changed.append(record_key(other, settings))
    assert len({key, *changed}) == 6


def test_a_structure_that_is_not_finite_has_no_key() -> None:
    atoms = bulk("Si")
    atoms.positions[0, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        record_key(atoms, {})


@pytest.mark.parametrize("column", ["data", "unique_id"])
def test_a_damaged_row_is_not_used_and_is_replaced(
    store: ResultStore, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = trial_record(0), trial_record(1)
    store.put(first)
    store.put(second)
    _change_bytes(store.address, column, row=1)
    assert store.get(first.key) is None
    assert store.get(second.key) == second
    assert store.inspect().damaged == 1
    store.put(first)
    assert store.get(first.key) == first
    if column == "data":  # the file was rebuilt, and the old one is there
        assert "damaged" in caplog.text
        assert Path(f"{store.address}.damaged-1").is_file()
        assert store.inspect().damaged == 0


def test_energies_of_ase_columns_are_never_returned(store: ResultStore) -> None:
    record = trial_record(0)
    store.put(record)
    with sqlite3.connect(store.address) as connection:
        connection.execute("UPDATE systems SET energy = 1e6")
    assert store.get(record.key) == record


def test_without_the_checksum_a_changed_number_would_pass(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: the test of damages sees it when the check is gone."""
    record = trial_record(0)
    store.put(record)
    text = record.to_text()
    digit = text.index('"band_gap":') + len('"band_gap":')
    wrong = text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :]
    _replace_in_data(store.address, text, wrong)
    assert store.get(record.key) is None
    monkeypatch.setattr(store_module, "checksum", lambda text: checksum(record.to_text()))
    returned = store.get(record.key)
    assert returned is not None
    assert returned != record


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00" + bytes(4000)])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.db"
    path.write_bytes(content)
    store, record = ResultStore(path), trial_record(0)
    assert store.get(record.key) is None
    store.put(record)
    assert store.get(record.key) == record
    if content:
        assert Path(f"{path}.damaged-1").read_bytes() == content


def test_a_locked_file_is_no_damage(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    record = trial_record(0)
    store.put(record)

    def locked(self: object) -> sqlite3.Connection:
        return sqlite3.connect(store.address, timeout=0.0)

    monkeypatch.setattr("ase.db.sqlite.SQLite3Database._connect", locked)
    other = sqlite3.connect(store.address, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OSError, match="cannot be used"):
        store.get(record.key)
    with pytest.raises(OSError, match="cannot be used"):
        store.put(trial_record(1))
    other.close()
    assert store.get(record.key) == record


def test_address_must_be_a_database() -> None:
    with pytest.raises(ValueError, match=r"store must be a file \*\.db"):
        ResultStore("results.json")


def test_killed_writers(tmp_path: Path) -> None:
    result = kill_writers(tmp_path / "s.db", rows=60, writers=3, kills=4)
    assert (result.rows, result.lost, result.duplicated, result.corrupt) == (60, 0, 0, 0)


def test_damaged_files(tmp_path: Path) -> None:
    result = damage_files(tmp_path, damages=10, rows=8)
    assert result.noticed >= 2
    assert (result.values_changed, result.unusable) == (0, 0)


@pytest.mark.slow
def test_killed_writers_and_damaged_files_at_length(tmp_path: Path) -> None:
    killed = kill_writers(tmp_path / "s.db", rows=400, writers=4, kills=20, seed=1)
    assert (killed.rows, killed.lost, killed.duplicated, killed.corrupt) == (400, 0, 0, 0)
    damaged = damage_files(tmp_path, damages=60, rows=12, seed=1)
    assert (damaged.values_changed, damaged.unusable) == (0, 0)


def test_equivalent_structures(store: ResultStore) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    record = _record_of(atoms)
    store.put(record)
    settings = record.settings | {"k_mesh": [2, 2, 2]}  # of the other cell
    cubic = make_supercell(atoms, [[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    cubic.rotate(30, "x", rotate_cell=True)
    cubic.positions += 0.7
    assert equivalent_record(store, cubic, settings) == record
    assert equivalent_record(store, cubic, settings | {"cutoff_ev": 1.0}) is None
    strained = cubic.copy()
    strained.set_cell(cubic.cell.array * 1.02, scale_atoms=True)
    assert equivalent_record(store, strained, settings) is None
    assert equivalent_record(store, bulk("KCl", "rocksalt", a=5.64), settings) is None


def _record_of(atoms: Atoms) -> Record:
    record = trial_record(0)
    settings = {"backend": "trial", "cutoff_ev": 500.0, "k_mesh": [8, 8, 8]}
    other = {name: record.values[name] for name in ("energy", "band_gap")}
    structure = structure_document(atoms)
    return replace(record, structure=structure, settings=settings, values=other)


_READ = {
    "data": "SELECT data FROM systems WHERE id = ?",
    "unique_id": "SELECT unique_id FROM systems WHERE id = ?",
}
_WRITE = {
    "data": "UPDATE systems SET data = ? WHERE id = ?",
    "unique_id": "UPDATE systems SET unique_id = ? WHERE id = ?",
}


def _change_bytes(address: str, column: str, row: int) -> None:
    with sqlite3.connect(address) as connection:
        value = connection.execute(_READ[column], (row,)).fetchone()[0]
        if isinstance(value, str):
            changed: object = "0" + value[1:] if value[0] != "0" else "1" + value[1:]
        else:
            changed = value[:100] + bytes([value[100] ^ 1]) + value[101:]
        connection.execute(_WRITE[column], (changed, row))


def _replace_in_data(address: str, old: str, new: str) -> None:
    quoted = [text.replace('"', '\\"').encode() for text in (old, new)]
    with sqlite3.connect(address) as connection:
        data = connection.execute("SELECT data FROM systems").fetchone()[0]
        assert quoted[0] in data
        connection.execute("UPDATE systems SET data = ?", (data.replace(*quoted),))
