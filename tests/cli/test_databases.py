"""Commands on selections of ASE databases, and databases as their output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io.trajectory import Trajectory
from click.testing import CliRunner, Result
from numpy.testing import assert_allclose

from qdgnn_ase import QDGNN, QDGNNCalculator, predict, save_model
from qdgnn_ase.cli import group

pytestmark = pytest.mark.filterwarnings("ignore::qdgnn_ase.ExtrapolationWarning")


@pytest.fixture
def folder(small_potential: QDGNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small potential and four labelled salts, one of them impossible."""
    monkeypatch.chdir(tmp_path)
    save_model("tiny.safetensors", small_potential)
    with connect("set.db") as rows:
        for name, lattice in {"NaCl": 5.6, "KCl": 6.3, "LiF": 4.0, "MgO": 0.4}.items():
            atoms = bulk(name, "rocksalt", a=lattice)
            forces = 0.1 * atoms.positions
            atoms.calc = SinglePointCalculator(atoms, energy=-8.0, forces=forces)
            rows.write(atoms, gap=lattice, tried=name == "KCl")
    return tmp_path


def qdgnn(*arguments: Any, code: int = 0) -> Result:
    result = CliRunner().invoke(group, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


RELAX = ("relax", "set.db@gap>1", "--model", "tiny.safetensors")


def test_relax_a_selection(folder: Path) -> None:
    result = qdgnn(*RELAX, "--steps", 2, "--fmax", 1e-9, code=1)
    assert "3 relaxed, 3 of them NOT converged, 0 left out" in result.output
    rows = list(connect("set_relaxed.db").select())
    assert [row.source_id for row in rows] == [1, 2, 3]
    for row in rows:
        assert (row.converged, row.tried) == (False, row.source_id == 2)
        atoms = row.toatoms()
        assert atoms.cell.lengths()[0] != pytest.approx(row.gap / 2**0.5)
        atoms.calc = QDGNNCalculator("tiny.safetensors")
        assert row.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        assert_allclose(row.forces, atoms.get_forces(), atol=1e-4)
        assert_allclose(row.stress, atoms.get_stress(), atol=1e-5)


def test_relax_goes_on_and_names_what_fails(folder: Path) -> None:
    options = ("--model", "tiny.safetensors", "--fmax", 100, "-o", "out.db")
    qdgnn("relax", "set.db@KCl", *options)
    result = qdgnn("relax", "set.db@:", *options, code=1)
    assert "2 relaxed, 0 of them NOT converged, 1 left out, 1 done before" in result.output
    assert "left out: id 4: " in result.output
    assert [row.source_id for row in connect("out.db").select()] == [2, 1, 3]
    again = qdgnn("relax", "set.db@KCl", *options)
    assert "0 relaxed" in again.output
    other = qdgnn("relax", "set.db@KCl", *options, "--fixed-cell")
    assert "1 relaxed" in other.output


def test_relax_adds_a_row_to_a_database(folder: Path) -> None:
    ase.io.write("a.extxyz", bulk("NaCl", "rocksalt", a=5.6))
    for _ in range(2):
        qdgnn("relax", "a.extxyz", "--model", "tiny.safetensors", "--fmax", 100, "-o", "b.db")
    assert [row.natoms for row in connect("b.db").select()] == [2, 2]


def test_every_step_of_a_relaxation_keeps_its_results(folder: Path) -> None:
    for options in ((), ("--fixed-cell",)):
        atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
        atoms.rattle(0.1, seed=0)
        ase.io.write("a.extxyz", atoms)
        command = ("relax", "a.extxyz", "--model", "tiny.safetensors", "--trajectory", "a.traj")
        qdgnn(*command, "--steps", 3, "--fmax", 1e-9, *options, code=1)
        with Trajectory("a.traj") as steps:
            assert len(steps) == 4
            for step in steps:
                again = step.copy()
                again.calc = QDGNNCalculator("tiny.safetensors")
                energy = step.get_potential_energy()
                assert energy == pytest.approx(again.get_potential_energy(), abs=1e-5)
                assert_allclose(step.get_forces(), again.get_forces(), atol=1e-4)
                assert_allclose(step.get_stress(), again.get_stress(), atol=1e-5)


def test_predictions_as_key_value_pairs(folder: Path) -> None:
    qdgnn("predict", "set.db@gap>5", "--db", "out.db")
    rows = list(connect("out.db").select())
    assert [(row.source_id, row.gap) for row in rows] == [(1, 5.6), (2, 6.3)]
    for row in rows:
        expected = predict(row.toatoms())
        pairs = row.key_value_pairs
        assert pairs["predicted_band_gap"] == pytest.approx(expected["band_gap"].value, abs=1e-4)
        assert pairs["predicted_band_gap_std"] > 0
        assert pairs["source"] == "set.db@gap>5"
        shared = [value for value in expected.values() if not value.own_domain]
        assert pairs["in_domain"] == all(value.in_domain for value in shared)
        assert row.energy == -8.0  # the source's results stay
    assert len(list(connect("out.db").select("predicted_band_gap>0.1"))) == 2


def test_errors_as_key_value_pairs(folder: Path) -> None:
    qdgnn("evaluate", "set.db@gap>5", "--model", "tiny.safetensors", "--db", "out.db")
    rows = list(connect("out.db").select())
    assert [row.source_id for row in rows] == [1, 2]
    for row in rows:
        atoms = row.toatoms()
        atoms.calc = QDGNNCalculator("tiny.safetensors")
        error = (atoms.get_potential_energy() + 8.0) / 2
        assert row.energy_error == pytest.approx(error, abs=1e-5)
        wanted = abs(atoms.get_forces() - 0.1 * atoms.positions).mean()
        assert row.forces_mae == pytest.approx(wanted, abs=1e-5)
        assert "stress_mae" not in row  # no label


def test_properties_of_a_selection(folder: Path) -> None:
    result = qdgnn("evaluate", "set.db@gap>5", "--target", "band_gap=gap")
    assert "structures" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*RELAX, "-o", "out.extxyz"), "is relaxed into another .db file, got out.extxyz"),
        ((*RELAX, "-o", "set.db"), "is relaxed into another .db file, got set.db"),
        ((*RELAX, "--trajectory", "a.traj"), "--trajectory is of one structure"),
        (("relax", "none.db@gap>1"), "File 'none.db' does not exist"),
        (("predict", "set.db@gap>5", "--db", "set.db"), "set.db must be a new file"),
        (("predict", "set.db@gap>5", "--db", "a.json"), "must end in .db, got a.json"),
        (
            ("evaluate", "set.db", "--target", "band_gap=gap", "--db", "out.db"),
            "--db is of potentials",
        ),
    ],
)
def test_bad_options(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in " ".join(qdgnn(*arguments, code=2).output.split())
    assert sorted(path.name for path in folder.iterdir()) == ["set.db", "tiny.safetensors"]
