"""`qdgnn tune`: the best trial becomes a config; the study goes on where it was."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from click.testing import CliRunner

from qdgnn_ase.cli.tune import suggested, tune
from qdgnn_ase.training.config import parse_config

optuna = pytest.importorskip("optuna")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = []
    for k, (a, b) in enumerate((a, b) for a in ("Na", "K", "Mg", "Ca", "Sr") for b in "FOSI"):
        atoms = bulk(a + ("Cl" if b == "I" else b), "rocksalt", a=5.0)
        crystal = {"lattice": atoms.cell.tolist(), "species": list(atoms.symbols)}
        scaled = atoms.get_scaled_positions().tolist()
        lines.append(json.dumps(crystal | {"frac_coords": scaled, "gap": 0.1 * k}))
    path.write_text("\n".join(lines))
    return path


def run(rows: Path, *options: str) -> Any:
    arguments = [str(rows), "--target", "band_gap=gap", "--epochs", "1", "-o"]
    result = CliRunner().invoke(tune, [*arguments, str(rows.parent / "study"), *options])
    assert result.exit_code == 0, result.output
    return result.output


def loss(folder: Path) -> float:
    with (folder / "history.csv").open() as lines:
        return min(float(row["val_loss"]) for row in csv.DictReader(lines))


def test_the_best_trial_becomes_a_config(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qdgnn_ase.cli.tune.tune_process", lambda: None)
    run(rows, "--trials", "1")
    study = rows.parent / "study"
    output = run(rows, "--trials", "3")
    losses = [loss(study / f"trial-{k}") for k in range(3)]
    assert not (study / "trial-3").exists(), "one trial was done before"
    best = losses.index(min(losses))
    assert f"trial {best}, validation loss {min(losses):.4f}" in output
    config = json.loads((study / "best.json").read_text())
    assert config == json.loads((study / f"trial-{best}" / "config.json").read_text())
    rates = {
        json.loads((study / f"trial-{k}/config.json").read_text())["learning_rate"]
        for k in range(3)
    }
    assert len(rates) == 3, "a resumed sampler must not repeat itself"


def test_architecture_is_fixed_with_a_potential_to_start_from() -> None:
    values = {"sources": [{"file": "a", "columns": {"band_gap": "b"}}], "init": "default"}
    names = {"learning_rate": 1e-3, "weight_decay": 1e-3, "bag": 0.7}
    config = suggested(optuna.trial.FixedTrial(names), values, fixed=True)
    assert config.trunk == parse_config(values).trunk  # type: ignore[union-attr]
    assert (config.learning_rate, config.bag) == (1e-3, 0.7)
    with pytest.raises(TypeError, match="property model"):
        suggested(optuna.trial.FixedTrial(names), {"files": ["a"]}, fixed=True)
