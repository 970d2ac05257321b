"""`qdgnn bench-fidelity`: a run on a few salts, and its statistics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from click.testing import CliRunner

from qdgnn_ase import LabelledStructure
from qdgnn_bench.dft_labels import BACKEND
from qdgnn_bench.fidelity import _calculated, _of_store, fidelity, summarise
from qdgnn_dft.backend import make_record
from qdgnn_dft.store import ResultStore


def test_gain_is_paired_and_parts_are_told_apart() -> None:
    names, labels = ("NaCl", "KCl", "LiF", "MgO"), (0.0, 2.0, 0.0, 1.0)
    frames = [Atoms(name) for name in names]
    for frame, label in zip(frames, labels, strict=True):
        frame.info = {"label": label, "input": 0.5}
    errors = {
        "without": [np.array([0.4, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0])],
        "with": [np.array([0.2, 0.5, 0.0, 0.5]), np.array([0.2, 0.5, 0.0, 0.5])],
    }
    found = summarise(errors, frames)
    assert found["all"]["rows"] == 4
    assert found["all"]["without"]["mae"] == pytest.approx(0.55)
    assert found["all"]["with"]["mae"] == pytest.approx(0.3)
    assert found["all"]["gain"] == pytest.approx(0.25)
    assert found["not zero"]["rows"] == 2
    assert found["not zero"]["input"]["mae"] == pytest.approx(1.0)
    assert found["not zero"]["gain"] == pytest.approx(0.5)
    assert found["not zero"]["gain_interval"] == pytest.approx([0.5, 0.5])


def salts() -> list[Atoms]:
    """Sixty, with a label that is the anion's."""
    frames = []
    for cation in ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Zn"):
        for k, anion in enumerate(("F", "Cl", "Br", "O", "S", "Se")):
            frames.append(bulk(cation + anion, "rocksalt", a=5.0))
            frames[-1].info["gap"] = float(k)
    return frames


def test_values_come_out_of_a_store(tmp_path: Path) -> None:
    rows = [LabelledStructure(atoms, {"band_gap": 1.0}, "test") for atoms in salts()[:4]]
    store = ResultStore(tmp_path / "s.db")
    for gap, row in enumerate(rows[:3]):
        values = {"energy": -1.0, "band_gap": float(gap)}
        store.put(make_record(row.atoms, BACKEND.settings(row.atoms), values, {}))
    known = _calculated(rows, "band_gap", str(tmp_path / "s.db"))
    assert _of_store([row.atoms for row in rows[2::-1]], known) == [2.0, 1.0, 0.0]
    assert len(known) == 3
    assert _calculated(rows, "bulk_modulus", str(tmp_path / "s.db")) == {}


@pytest.mark.slow
def test_only_rows_of_the_store_are_taken(tmp_path: Path) -> None:
    data, store = tmp_path / "salts.extxyz", ResultStore(tmp_path / "s.db")
    write(data, salts())
    for atoms in salts()[:50]:
        values = {"energy": -1.0, "band_gap": atoms.info["gap"] / 2}
        store.put(make_record(atoms, BACKEND.settings(atoms), values, {}))
    arguments = [str(data), "--target", "band_gap=gap", "--level", "gpaw/GLLB-SC", "--seeds", "0"]
    arguments += ["--epochs", "1", "-o", str(tmp_path / "runs"), "--store", str(tmp_path / "s.db")]
    report = tmp_path / "r.json"
    done = CliRunner().invoke(fidelity, [*arguments, "--json", str(report)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document = json.loads(report.read_text())
    assert document["input"] == "gpaw/PBE"
    assert document["train"] + document["test"] < 50  # the rest is the validation fold
    config = json.loads((tmp_path / "runs" / "with-0" / "config.json").read_text())
    assert config["sources"][0]["levels"] == {"label": "gpaw/GLLB-SC", "input": "gpaw/PBE"}
    assert "that GPAW computed" in done.output


@pytest.mark.slow
def test_command_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    frames = salts()
    data = tmp_path / "salts.extxyz"
    write(data, frames)
    arguments = [str(data), "--target", "band_gap=gap", "--level", "gpaw/GLLB-SC", "--seeds", "0"]
    arguments += ["--epochs", "1", "-o", str(tmp_path / "runs"), "--json", str(tmp_path / "r.json")]
    done = CliRunner().invoke(fidelity, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "r.json").read_text())
    row = document["errors"]["all"]
    assert row["rows"] == document["test"] > 0
    assert row["with"]["mae"] != row["without"]["mae"]
    best = tmp_path / "runs" / "with-0" / "best.safetensors"
    before = best.stat().st_mtime_ns
    again = CliRunner().invoke(fidelity, arguments, catch_exceptions=False)
    assert again.output == done.output
    assert best.stat().st_mtime_ns == before
    wrong = CliRunner().invoke(fidelity, [*arguments, "--target", "young_modulus=gap"])
    assert wrong.exit_code == 2
    assert "--target must be NAME=COLUMN" in wrong.output
    assert "got young_modulus=gap" in wrong.output
    write(data, frames[1:])
    with pytest.raises(ValueError, match="data files must be those"):
        CliRunner().invoke(fidelity, arguments, catch_exceptions=False)
