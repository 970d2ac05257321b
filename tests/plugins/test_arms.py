"""Arms are trained on their own config, scored on the validation fold, and never twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import qdgnn_bench.arms as arms_module
from qdgnn_bench.arms import arm_config, arms, located, markdown

ALLOYS = Path(__file__).parents[1] / "data_files" / "alloys_emt.extxyz"
FAST = {"learning_rate": 1e-2, "ema": 0.5, "max_edges": 600}
MODEL = {"cutoff": 4.0, "hidden": 16, "n_layers": 1, "n_vectors": 4, "n_radial": 6, "n_pair": 8}

pytestmark = pytest.mark.filterwarnings("ignore::qdgnn_ase.ExtrapolationWarning")


@pytest.fixture
def spec() -> dict[str, Any]:
    return {
        "base": {"files": [ALLOYS.name], "model": MODEL | {"n_heads": 2}, "val": 0.2, "test": 0.2}
        | FAST,
        "arms": {"t0": {}, "none": {"model": {"quantum": "none"}}, "slow": {"learning_rate": 1e-9}},
        "files": [ALLOYS.name],
        "minutes": 0.03,
        "seeds": [0, 1],
    }


def test_configs_differ_in_the_arms_fields_only(spec: dict[str, Any]) -> None:
    base, none = (arm_config(spec, name, seed=1, epochs=3) for name in ("t0", "none"))
    assert (base.model.quantum, none.model.quantum) == ("t0", "none")
    assert none.model.cutoff == base.model.cutoff == 4.0
    assert (none.seed, none.epochs) == (1, 3)


@pytest.mark.slow
def test_equal_time_on_the_validation_fold(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"t0": 0.2, "none": 0.15, "slow": 0.2}
    monkeypatch.setattr(arms_module, "epoch_seconds", lambda _, folder: seconds[folder.parent.name])
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    arguments = [str(path), "-o", str(tmp_path / "out"), "--data", str(ALLOYS.parent)]
    result = CliRunner().invoke(arms, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "arms.json").read_text())
    runs = {(r["arm"], r["seed"]): r for r in document["results"]}
    assert {name: runs[name, 0]["epochs"] for name in seconds} == {"t0": 9, "none": 12, "slow": 9}
    assert len(runs) == 6
    assert runs["t0", 0]["errors"] != runs["t0", 1]["errors"]
    frames = runs["t0", 0]["errors"][ALLOYS.name]["frames"]
    assert 0 < frames < 30  # of 60: one fold
    slow, base = (runs[name, 0]["errors"][ALLOYS.name]["forces_mae"] for name in ("slow", "t0"))
    assert slow > 1.1 * base  # an untrained arm loses
    assert str(tmp_path) not in json.dumps(document["specification"]["arms"])
    assert str(ALLOYS.parent) not in json.dumps(document)


def test_finished_runs_are_not_trained_again(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms_module, "epoch_seconds", lambda *_: 1.2)
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    arguments = [str(path), "-o", str(tmp_path / "out"), "--data", str(ALLOYS.parent)]
    arguments += ["--only", "t0"]
    CliRunner().invoke(arms, arguments, catch_exceptions=False)
    monkeypatch.delattr(arms_module, "fit")
    result = CliRunner().invoke(arms, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    wrong = CliRunner().invoke(arms, [*arguments[:-1], "t1"])
    assert wrong.exit_code == 2
    assert "--only must be of" in wrong.output


def test_an_arm_that_diverges_is_named_and_the_others_go_on(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms_module, "epoch_seconds", lambda *_: 1.8)
    spec["arms"] = {"wild": {"learning_rate": 1e30, "clip": 1e30}, "t0": {}}
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec | {"seeds": [0]}))
    arguments = [str(path), "-o", str(tmp_path / "out"), "--data", str(ALLOYS.parent)]
    result = CliRunner().invoke(arms, arguments)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "arms.md").read_text()
    assert "Diverged: wild (seed 0)." in text
    assert "| t0 |" in text
    assert "| wild |" not in text


def test_an_arm_may_have_files_of_its_own_and_all_must_exist(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    spec["arms"]["more"] = {"files": [ALLOYS.name, "teacher.extxyz"]}
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    data = tmp_path / "data"
    data.mkdir()
    (data / ALLOYS.name).symlink_to(ALLOYS)
    arguments = [str(path), "-o", str(tmp_path / "out"), "--data", str(data)]
    wrong = CliRunner().invoke(arms, arguments)
    assert wrong.exit_code == 2
    assert f"files of a specification must exist, got {data / 'teacher.extxyz'}" in wrong.output
    (data / "teacher.extxyz").symlink_to(ALLOYS)
    found = located(spec, data)
    config = arm_config(found, "more", seed=0, epochs=1)
    assert config.files == (str(data / ALLOYS.name), str(data / "teacher.extxyz"))
    assert arm_config(found, "t0", seed=0, epochs=1).files == (str(data / ALLOYS.name),)


def test_ratios_are_to_the_first_arm(spec: dict[str, Any]) -> None:
    def result(name: str, seed: int, forces: float) -> dict[str, Any]:
        errors = {"energy_mae": 1.0, "forces_mae": forces, "stress_mae": 1.0}
        return {
            "arm": name,
            "seed": seed,
            "epochs": 2,
            "epoch_cpu_seconds": 1.0,
            "parameters": 10,
            "errors": {"a": errors, "b": errors | {"forces_mae": 4 * forces}},
        }

    results = [result("t0", 0, 1.0), result("t0", 1, 2.0), result("none", 0, 1.1)]
    text = markdown({"specification": spec, "results": results, "date": "today"})
    row = next(line for line in text.splitlines() if line.startswith("| none"))
    assert "| 2.750 | 1.100 |" in row  # to seed 0 of t0, not to the mean of the seeds
