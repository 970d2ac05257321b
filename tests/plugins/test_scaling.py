"""Time and memory of training against the number of structures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from click.testing import CliRunner

from qdgnn_bench import scaling
from qdgnn_bench.property_rows import Rows, write_rows


def test_exponent() -> None:
    rows = [{"structures": n, "epoch_s": 0.02 * n**1.3} for n in (100, 500, 2500)]
    assert scaling.exponent(rows) == pytest.approx(1.3)
    assert np.isnan(scaling.exponent(rows[:1]))


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    salts = [
        bulk(a + b, "rocksalt", a=5.0 + 0.01 * k)
        for a in ("Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba", "Li")
        for b in ("F", "Cl", "Br", "O", "S", "Se")
        for k in range(3)
    ]
    file = tmp_path / "rows.jsonl"
    write_rows(file, [Rows(salts, np.arange(float(len(salts)))[:, None])], ["formation_energy"])
    output = tmp_path / "scaling.json"
    arguments = [str(file), "--target", "formation_energy=formation_energy", "--json", str(output)]
    result = CliRunner().invoke(scaling.scaling, [*arguments, "--sizes", "40,80"])
    assert result.exit_code == 0, result.output
    document = json.loads(output.read_text())
    assert [row["structures"] for row in document["rows"]] == [40, 80]
    assert all(row["epoch_s"] > 0 and row["peak_mb"] > 100 for row in document["rows"])
    assert output.with_suffix(".md").read_text() in result.output
