"""The card and the README's table say what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.emt import EMT
from click.testing import CliRunner

from qdgnn_ase import Split, read_structures
from qdgnn_ase import reduced_formula as name
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.training.config import TrainConfig
from qdgnn_ase.training.fit import fit
from qdgnn_bench.card import card
from qdgnn_bench.peers import cells

ALLOYS = Path(__file__).parents[1] / "data_files" / "alloys_emt.extxyz"
TINY = QDGNNConfig(cutoff=4.0, hidden=16, n_layers=1, n_vectors=4, n_radial=6, n_pair=8, n_heads=2)
MARKS = "<!-- errors: made by `qdgnn bench-card` -->", "<!-- end of errors -->"

pytestmark = pytest.mark.filterwarnings("ignore::qdgnn_ase.ExtrapolationWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    first = TrainConfig(files=(str(ALLOYS),), model=TINY, epochs=1, val=0.2, test=0.2)
    start = fit(first, folder / "first")
    second = TrainConfig(
        files=(str(ALLOYS),), model=TINY, epochs=1, val=0.2, test=0.2, init=str(start)
    )
    return fit(second, folder / "second")


def test_card_and_readme(model: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    arguments = [str(ALLOYS), "--model", str(model), "--readme", str(readme), "--note", "a note"]
    result = CliRunner().invoke(card, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    errors = json.loads(model.with_suffix(".json").read_text())["errors"][ALLOYS.name]
    text = model.with_suffix(".md").read_text()
    for place in (readme.read_text(), text):
        assert f"{errors['energy_mae']:.3f} (" in place
        assert f"{errors['forces_mae']:.3f} (" in place
    assert "old" not in readme.read_text()
    assert readme.read_text().startswith("before\n")
    assert readme.read_text().endswith("after\n")
    assert "- a note" in text
    assert "### Stage 1" in text
    assert "### Stage 2" in text
    assert "## Beside" not in text
    assert str(ALLOYS.parent) not in text  # names of files, not where they lay


def peer(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    """EMT in the place of M3GNet, CHGNet with energies that lie elsewhere."""

    class Elsewhere(EMT):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            super().calculate(*args, **kwargs)
            self.results["energy"] += 7.0
            self.results["forces"] = self.results["forces"] + 0.5

    def load(kind: type[EMT]) -> EMT:
        calls.append(kind.__name__)
        return kind()

    monkeypatch.setattr("qdgnn_matgl.load_m3gnet", lambda folder: load(EMT))
    monkeypatch.setattr("qdgnn_matgl.load_chgnet", lambda: load(Elsewhere))


def test_peers_beside(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    peer(monkeypatch, calls)
    cache = tmp_path / "peers.json"
    arguments = [str(ALLOYS), "--model", str(model), "--m3gnet", str(tmp_path), "--chgnet"]
    arguments += ["--peers-cache", str(cache)]
    texts = []
    for _ in range(2):  # the second time from the cache
        result = CliRunner().invoke(card, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        texts.append(model.with_suffix(".md").read_text())
    assert calls == ["EMT", "Elsewhere"]
    assert texts[0] == texts[1]
    document = json.loads(model.with_suffix(".json").read_text())
    errors, peers = document["errors"][ALLOYS.name], document["peers"][ALLOYS.name]
    exact, other, zero = peers["M3GNet-MP-2021"], peers["CHGNet"], peers["zero forces"]
    for row in (exact, other, zero):
        assert row["frames"] == errors["frames"] > 0
        assert row["forces_mae"]["first"] == pytest.approx(errors["forces_mae"])
    assert exact["energy_mae"]["second"] < 1e-4
    assert exact["energy_mae"]["difference"] == pytest.approx(errors["energy_mae"], abs=1e-4)
    assert "energy_mae" not in other  # another reference
    assert other["forces_mae"]["second"] == pytest.approx(0.5, abs=1e-4)
    labelled = [a for a in read_structures(ALLOYS) if Split("test", 0.2, 0.2, 0).holds(name(a))]
    forces = np.concatenate([np.abs(a.get_forces()).ravel() for a in labelled])
    assert zero["forces_mae"]["second"] == pytest.approx(forces.mean())
    assert "## Beside M3GNet-MP-2021 and CHGNet on the same frames" in texts[0]
    assert "M3GNet-MP-2021: ours is lower in 0 of 3 cells" in texts[0]
    assert "CHGNet: ours is lower in" in texts[0]
    assert "of 2 cells" in texts[0]
    assert "/ - " not in texts[0]


def test_cells_are_counted() -> None:
    def row(difference: float, low: float, high: float) -> dict[str, Any]:
        return {"first": 1.0, "second": 1.0, "difference": difference, "interval": [low, high]}

    comparison = {
        "a": {"P": {"energy_mae": row(-1, -2, -0.5), "forces_mae": row(-1, -2, 1)}},
        "b": {"P": {"energy_mae": row(1, 0.5, 2), "stress_mae": row(1, -1, 3)}},
    }
    assert cells(comparison, "P") == {
        "cells": 4,
        "lower": 2,
        "surely_lower": 1,
        "surely_higher": 1,
    }


def test_readme_without_marks_is_refused(model: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no table here\n")
    result = CliRunner().invoke(card, [str(ALLOYS), "--model", str(model), "--readme", str(readme)])
    assert result.exit_code == 2
    assert "must hold the block" in result.output
    assert readme.read_text() == "no table here\n"


def test_tables_of_other_benchmarks(model: Path, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "speed.md").write_text("# Heading\n| atoms | ms |\n")
    (tables / "solids.md").write_text("| a | b |\n")
    (tables / "conductivity.md").write_text("of properties\n")
    block = "<!-- speed: made by `qdgnn bench-speed` -->\nold\n<!-- end of speed -->\n"
    readme = tmp_path / "README.md"
    others = "<!-- comparison: made by another -->\nkept\n<!-- end of comparison -->\n"
    readme.write_text(f"{MARKS[0]}\nold\n{MARKS[1]}\n{block}{others}")
    arguments = [str(ALLOYS), "--model", str(model), "--readme", str(readme)]
    refused = CliRunner().invoke(card, arguments)
    assert refused.exit_code == 2  # a block without its table would go stale
    assert "old" in readme.read_text()
    arguments += ["--tables", str(tables), "--note", "kept"]
    CliRunner().invoke(card, arguments, catch_exceptions=False)
    assert "old" not in readme.read_text()
    assert "| atoms | ms |" in readme.read_text()
    text = model.with_suffix(".md").read_text()
    assert "## Solids\n| a | b |" in text
    assert "of properties" not in text
    assert others in readme.read_text()
    assert "## Speed\n## Heading" in text
    CliRunner().invoke(card, arguments[:-2], catch_exceptions=False)
    assert "- kept" in model.with_suffix(".md").read_text()
