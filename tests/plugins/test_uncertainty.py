"""Heads against networks: which of two spreads tells the errors, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from click.testing import CliRunner

from qdgnn_ase import Prediction
from qdgnn_bench.property_rows import Rows, write_rows
from qdgnn_bench.uncertainty import compare, markdown, uncertainty

NAME = "bulk_modulus"


class Stand:
    """A predictor whose values and spreads are given; structures carry their index."""

    def __init__(self, values: np.ndarray, std: np.ndarray) -> None:
        self.values, self.std = values, std

    def __call__(self, structures: list[Atoms]) -> list[dict[str, Prediction]]:
        index = [int(atoms.info["index"]) for atoms in structures]
        return [{NAME: Prediction(self.values[k], self.std[k], "GPa", True)} for k in index]


def _stands(knows: str, n: int = 400) -> tuple[list[Stand], Rows, Rows]:
    """Errors in decades whose size is known to the heads' spread or to that of the networks."""
    rng = np.random.default_rng(0)
    size = rng.uniform(0.01, 0.3, n)
    told = {way: size if way == knows else rng.permutation(size) for way in ("heads", "networks")}
    error = size * rng.normal(size=n)
    values = 10.0 ** (2.0 + error + told["networks"] * np.array([[0.0], [1.0], [-1.0]]))
    stands = [Stand(row, told["heads"] * row * np.log(10)) for row in values]
    structures = [Atoms(f"LiNa{k + 1}", info={"index": k}) for k in range(n)]
    labels = np.full((n, 1), 100.0)
    half = n // 2
    return stands, Rows(structures[:half], labels[:half]), Rows(structures[half:], labels[half:])


def test_the_way_that_knows_the_errors_wins() -> None:
    found = {}
    for knows in ("heads", "networks"):
        stands, val, test = _stands(knows)
        found[knows] = compare(stands, val, test, (NAME,))[NAME]  # type: ignore[arg-type]
    assert found["heads"]["kept"]
    assert not found["networks"]["kept"]
    assert found["networks"]["networks"]["spearman"] > 0.25
    assert abs(found["networks"]["heads"]["spearman"]) < 0.2


def test_the_validation_rows_calibrate_both() -> None:
    stands, val, test = _stands("heads")
    found = compare(stands, val, test, (NAME,))[NAME]  # type: ignore[arg-type]
    for way in ("heads", "networks"):
        assert found[way]["within_sigma"] == pytest.approx(0.683, abs=0.1)
    for stand in stands:
        stand.std *= 7.0
    again = compare(stands, val, test, (NAME,))[NAME]  # type: ignore[arg-type]
    assert again["heads"]["calibration_error"] == pytest.approx(found["heads"]["calibration_error"])


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    symbols, anions = ("Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba"), ("F", "Cl", "Br", "I", "O")
    rows = [
        bulk(a + b, "rocksalt", a=5.0 + 0.1 * k + 0.01 * n)
        for k, a in enumerate(symbols)
        for b in anions
        for n in range(25)
    ]
    labels = np.array([[atoms.get_volume(), 0.1 * k] for k, atoms in enumerate(rows)])
    data = tmp_path / "rows.jsonl"
    write_rows(data, [Rows(rows, labels)], (NAME, "formation_energy"))
    report = tmp_path / "report.json"
    arguments = [str(data), "--target", f"{NAME}={NAME}", "--epochs", "1", "--hidden", "16"]
    arguments += [
        "--networks",
        "2",
        "--rows",
        "200",
        "-o",
        str(tmp_path / "runs"),
        "--json",
        str(report),
    ]
    result = CliRunner().invoke(uncertainty, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads(report.read_text())
    row = document["errors"][NAME]
    assert row["ratio"] == pytest.approx(row["heads"]["spearman"] / row["networks"]["spearman"])
    assert f"{NAME}: ratio of the rank correlations" in report.with_suffix(".md").read_text()
    assert str(tmp_path) not in report.read_text()
    other = [text if text != "200" else "100" for text in arguments]
    with pytest.raises(ValueError, match="data files must be those"):
        CliRunner().invoke(uncertainty, other, catch_exceptions=False)
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(data.read_text().splitlines()[::25]))
    refused = CliRunner().invoke(uncertainty, [str(few), *arguments[1:]])
    assert refused.exit_code == 2
    assert "at least 20 rows" in refused.output
    for kept, words in ((True, "the heads are kept"), (False, "the heads are not enough")):
        row["kept"] = kept
        assert words in markdown(document)


@pytest.mark.parametrize("target", ["metal_probability=x", "young_modulus=x", "bulk_modulus"])
def test_targets_that_cannot_be_compared(tmp_path: Path, target: str) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("{}")
    result = CliRunner().invoke(uncertainty, [str(data), "--target", target, "-o", str(tmp_path)])
    assert result.exit_code == 2
    assert f"got {target}" in result.output
