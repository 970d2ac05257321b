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

from qdgnn_bench.fidelity import fidelity, summarise


def test_gain_is_paired_and_parts_are_told_apart() -> None:
    names, labels = ("NaCl", "KCl", "LiF", "MgO"), (0.0, 2.0, 0.0, 1.0)
    frames = [Atoms(name) for name in names]
    for frame, label in zip(frames, labels, strict=True):
        frame.info = {"label": label, "predicted": 0.5}
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


@pytest.mark.slow
def test_command_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    frames = []
    for cation in ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Zn"):
        for k, anion in enumerate(("F", "Cl", "Br", "O", "S", "Se")):
            frames.append(bulk(cation + anion, "rocksalt", a=5.0))
            frames[-1].info["gap"] = float(k)
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
