"""`qdgnn explain` from a file to files."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from click.testing import CliRunner

from qdgnn_ase import explain
from qdgnn_ase.cli.explain import explain as command

SALT = bulk("NaCl", "rocksalt", a=5.6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ase.io.write(tmp_path / "two.extxyz", [bulk("Si"), SALT])
    return tmp_path


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_all_files(folder: Path) -> None:
    pytest.importorskip("chemiscope")
    methods = ("--method", "integrated", "--method", "gradient")
    paths = [folder / "new" / name for name in ("out.extxyz", "plot.png", "page.html")]
    output = run(
        folder / "two.extxyz",
        *methods,
        *("--index", ":", "-o", paths[0], "--plot", paths[1], "--html", paths[2]),
    )
    assert all(path.stat().st_size > 500 for path in paths)
    assert "rank correlation of integrated and gradient" in output
    frames = ase.io.read(paths[0], ":")
    assert [str(atoms.symbols) for atoms in frames] == ["Si2", "NaCl"]
    wanted = explain(SALT).atom_scores
    np.testing.assert_allclose(
        frames[1].arrays["formation_energy_integrated"], wanted, rtol=1e-4, atol=1e-7
    )
    assert "formation_energy_gradient" in frames[1].arrays


def test_last_structure_and_csv(folder: Path) -> None:
    output = run(folder / "two.extxyz", "--target", "energy", "--csv", folder / "bonds.csv")
    assert "unlike the training data" not in output
    assert "NaCl: energy = " in output
    assert "Cl-Na" in output
    assert (folder / "bonds.csv").read_text().startswith("i,j,pair,dx,dy,dz,length,integrated\n")


def test_refusals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    structure = folder / "two.extxyz"
    assert "--csv takes one structure" in run(
        structure, "--index", ":", "--csv", folder / "b.csv", code=2
    )
    assert "suffix that ASE writes" in run(structure, "-o", folder / "out.nonsense", code=2)
    assert "must have one of the suffixes" in run(structure, "--plot", "a.nonsense", code=2)
    with monkeypatch.context() as context:
        context.setattr("qdgnn_ase.cli.explain.find_spec", lambda name: None)
        output = run(structure, "--html", folder / "page.html", code=2)
        assert "pip install 'qdgnn-ase[report]'" in output
    result = CliRunner().invoke(command, [str(structure), "--target", "colour"])
    assert isinstance(result.exception, ValueError)
    assert "got 'colour'" in str(result.exception)
    assert sorted(path.name for path in folder.iterdir()) == ["two.extxyz"]


def test_strange_structures_are_marked(folder: Path) -> None:
    ase.io.write(folder / "lone.extxyz", Atoms("Xe", cell=[12] * 3, pbc=True))
    assert "Xe (unlike the training data): formation_energy" in run(folder / "lone.extxyz")


def test_a_bad_structure_is_named(folder: Path) -> None:
    ase.io.write(folder / "bad.extxyz", [SALT, bulk("Md", "fcc", a=5.0)])
    result = CliRunner().invoke(command, [str(folder / "bad.extxyz"), "--index", ":"])
    assert "structure 1: atomic numbers must lie in 1..94, got [101]" in str(result.exception)
