"""`qdgnn describe`: descriptors of a provider as columns that training reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from click.testing import CliRunner, Result

from qdgnn_ase import Described, Level, descriptor_provider, predict, read_labelled
from qdgnn_ase.cli.describe import describe, with_columns


@pytest.fixture
def salts(tmp_path: Path) -> Path:
    frames = [bulk("NaCl", "rocksalt", a=5.64), bulk("MgO", "rocksalt", a=4.21)]
    for k, atoms in enumerate(frames):
        atoms.info["gap"] = 5.0 + k
    path = tmp_path / "salts.extxyz"
    write(path, frames)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(describe, [str(argument) for argument in arguments])


def test_predictions_become_columns_of_the_same_structures(salts: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "described.extxyz"
    done = run(salts, "--provider", "qdgnn", "-o", out)
    assert done.exit_code == 0, done.output
    assert "qdgnn_band_gap (2)" in done.output
    assert "--level COLUMN=qdgnn/PBE" in done.output
    rows = read_labelled(out, {"band_gap": "gap"}, conditions={"band_gap": "qdgnn_band_gap"})
    assert [row.labels["band_gap"] for row in rows] == [5.0, 6.0]
    for row, atoms in zip(rows, read(salts, ":"), strict=True):
        expected = predict(atoms)["band_gap"].value
        assert row.conditions["band_gap"] == pytest.approx(expected, abs=1e-3)
        assert np.allclose(row.atoms.positions, atoms.positions)
    again = run(salts, "--provider", "qdgnn", "-o", out)
    assert again.exit_code == 2
    assert "exists already" in again.output


def test_missing_values_are_no_columns_and_have_reasons(salts: Path, tmp_path: Path) -> None:
    out = tmp_path / "described.extxyz"
    done = run(salts, "--provider", "dft", "--option", f"store={tmp_path / 'r.db'}", "-o", out)
    assert done.exit_code == 0, done.output
    assert "values missing in 2 structures: not in store" in done.output
    assert "no column" in done.output
    assert [set(atoms.info) for atoms in read(out, ":")] == [{"gap"}] * 2


def test_a_refused_structure_does_not_end_the_run(salts: Path, tmp_path: Path) -> None:
    write(salts, bulk("NaCl", "rocksalt", a=0.5), append=True)
    out = tmp_path / "described.extxyz"
    done = run(salts, "--provider", "qdgnn", "-o", out)
    assert done.exit_code == 0, done.output
    assert "values missing in 1 structures: " in done.output
    assert "3 structures with" in done.output
    assert "qdgnn_band_gap (2)" in done.output
    assert ["qdgnn_band_gap" in atoms.info for atoms in read(out, ":")] == [True, True, False]


def test_values_of_atoms_become_arrays_and_their_spread() -> None:
    found = Described(
        values={"charges": np.array([0.5, -0.5]), "band_gap": np.array(np.nan)},
        mask={"charges": True, "band_gap": False},
        level=Level("xtb", "GFN1-xTB"),
        provenance={},
    )
    atoms = with_columns(Atoms("NaCl", positions=np.eye(3)[:2]), found, "xtb")
    assert atoms.arrays["xtb_charges"].tolist() == [0.5, -0.5]
    assert atoms.info == {"xtb_charges_std": 0.5}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--provider", "dftt", "-o", "out.extxyz"], "must be one of"),
        (["--provider", "dft", "-o", "out.extxyz"], "'store'"),
        (
            ["--provider", "qdgnn", "--option", "model", "-o", "out.extxyz"],
            "--option must be NAME=",
        ),
        (["--provider", "qdgnn", "--option", "model=none.st", "-o", "out.extxyz"], "none.st"),
        (["--provider", "qdgnn", "-o", "out.cif"], "must be an extxyz file"),
    ],
)
def test_wrong_input(
    salts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(salts, *arguments)
    assert done.exit_code == 2, done.output
    assert match in done.output.replace("\n", " ")


def test_provider_of_the_property_model() -> None:
    provider = descriptor_provider("qdgnn")
    found = provider(bulk("Si"))
    assert found.level == Level("qdgnn", "PBE")
    assert set(found.values) == set(provider.units) == set(found.mask)
    assert found.values["bulk_modulus"].shape == ()
    assert "bulk_modulus" not in found.provenance["out_of_domain"]
