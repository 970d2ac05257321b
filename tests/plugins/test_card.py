"""The card and the README's table say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from qdgnn_ase.nn.model import QDGNNConfig
from qdgnn_ase.training.config import TrainConfig
from qdgnn_ase.training.fit import fit
from qdgnn_bench.card import card

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
    assert str(ALLOYS.parent) not in text  # names of files, not where they lay


def test_readme_without_marks_is_refused(model: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no table here\n")
    result = CliRunner().invoke(card, [str(ALLOYS), "--model", str(model), "--readme", str(readme)])
    assert result.exit_code == 2
    assert "must hold the lines" in result.output
    assert readme.read_text() == "no table here\n"
