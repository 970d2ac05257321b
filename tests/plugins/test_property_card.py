"""The card of a property model says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.build import bulk
from click.testing import CliRunner
from pymatgen.core import Composition

from qdgnn_ase import PropertyTrainConfig, fit, fold_of
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.training.config import Source
from qdgnn_bench.property_card import property_card

SYMBOLS = "Li Na K Al Si Ge Fe Cr V Nb Mo W Cu Ag Au Ni Pd Pt Rh Ir Ca Sr Ba Ti Zn"
TINY = QDGNNConfig(cutoff=4.0, hidden=16, n_layers=1, n_vectors=4, n_radial=6, n_pair=8, n_heads=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "elements.jsonl"
    lines = []
    for k, symbol in enumerate(SYMBOLS.split()):
        atoms = bulk(symbol)
        lines.append(
            json.dumps(
                {
                    "lattice": atoms.cell.array.tolist(),
                    "species": list(atoms.symbols),
                    "frac_coords": atoms.get_scaled_positions().tolist(),
                    "gap": float(k % 3 == 0),
                    "logk": 1.0 + 0.05 * k,
                }
            )
        )
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    columns = {"band_gap": "gap", "bulk_modulus": "log10:logk"}
    config = PropertyTrainConfig(
        sources=(Source(file=str(data), columns=columns),),
        trunk=TINY,
        epochs=1,
        n_members=2,
        val=0.2,
        test=0.3,
    )
    return fit(config, tmp_path_factory.mktemp("run"))


def test_card_and_readme(model: Path, data: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    other = "<!-- speed: made by hand -->\nkept\n<!-- end of speed -->\n"
    readme.write_text(
        f"{other}<!-- properties: made by a test -->\nold\n<!-- end of properties -->\nafter\n"
    )
    arguments = [str(data), "--model", str(model), "--readme", str(readme), "--note", "a note"]
    result = CliRunner().invoke(property_card, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads(model.with_suffix(".json").read_text())
    errors = document["errors"][data.name]
    assert set(errors) == {"band_gap", "metal_probability", "bulk_modulus", "timing"}
    text = model.with_suffix(".md").read_text()
    for place in (readme.read_text(), text):
        assert f"{errors['band_gap']['mae']:.3f} (" in place
        assert f"{errors['bulk_modulus']['log10_mae']:.3f} (" in place
        assert "AUC" in place
    assert "old" not in readme.read_text()
    assert other in readme.read_text()
    assert "- a note" in text
    assert str(data.parent) not in text
    again = CliRunner().invoke(property_card, arguments[:3], catch_exceptions=False)
    assert again.exit_code == 0
    assert "- a note" in model.with_suffix(".md").read_text()


def test_file_that_the_model_does_not_know(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("{}")
    result = CliRunner().invoke(property_card, [str(other), "--model", str(model)])
    assert result.exit_code == 2
    assert "got other.jsonl" in result.output


def test_readme_without_the_block(model: Path, data: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing")
    arguments = [str(data), "--model", str(model), "--readme", str(readme)]
    result = CliRunner().invoke(property_card, arguments)
    assert result.exit_code == 2
    assert "must hold the block" in result.output


@pytest.mark.parametrize("n_bounds", [0, 2])
def test_card_of_a_model_with_an_added_head(
    model: Path, data: Path, tmp_path: Path, n_bounds: int
) -> None:
    """Its own file, fold and comparison, beside those of the model."""
    rows = [
        {"formula": f"Li{k % 5 + 2}{symbol}", "sigma": 10.0 ** -(k % 7)}
        for k, symbol in enumerate(SYMBOLS.split()[1:])
    ]
    formulas = [Composition(str(row["formula"])).reduced_formula for row in rows]
    folds = [fold_of(formula, val=0.2, test=0.3) for formula in formulas]
    test = [row for row, fold in zip(rows, folds, strict=True) if fold == "test"]
    for row in test[:n_bounds]:
        row["sigma"] = "<1e5"  # no prediction is above
    conductors = tmp_path / "conductors.jsonl"
    conductors.write_text("\n".join(json.dumps(row) for row in rows))
    config = PropertyTrainConfig(
        sources=(Source(file=str(conductors), columns={"ionic_conductivity": "sigma"}),),
        extend=str(model),
        trunk=TINY,
        epochs=1,
        n_members=2,
        val=0.2,
        test=0.3,
    )
    best = fit(config, tmp_path / "run")
    arguments = [str(data), str(conductors), "--model", str(best), "--note", "a note"]
    result = CliRunner().invoke(property_card, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads(best.with_suffix(".json").read_text())
    added = document["added"]["ionic_conductivity"]
    assert added["upper_bounds"] == n_bounds
    assert added["structures"] == len(test)
    known = document["errors"][conductors.name]["ionic_conductivity"]
    assert known["structures"] == len(test) - n_bounds
    total = known["log10_mae"] * known["structures"]
    assert added["errors"]["model"]["mae"] == pytest.approx(total / len(test)), (
        "bounds cost nothing"
    )
    for name in ("training mean", "boosted trees"):
        row = added["errors"][name]
        gap = row["mae"] - added["errors"]["model"]["mae"]
        assert row["difference"] == pytest.approx(gap)
    text = best.with_suffix(".md").read_text()
    assert "## Added heads against the composition alone" in text
    assert f"| ionic_conductivity | {len(test)} ({n_bounds}) |" in text
    assert "conductors.jsonl | ionic_conductivity = sigma |" in text
    assert str(tmp_path) not in text
