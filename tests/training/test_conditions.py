"""Training with conditions: from columns of the data to `predict` and the commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from ase.build import bulk
from ase.io import write
from click.testing import CliRunner

from qdgnn_ase import Predictor, PropertyTrainConfig, fit, predict
from qdgnn_ase.cli.evaluate import evaluate
from qdgnn_ase.cli.predict import predict as predict_command
from qdgnn_ase.cli.train import train
from qdgnn_ase.data.dataset import join
from qdgnn_ase.training.config import parse_config
from qdgnn_ase.training.property_task import PropertyTask
from qdgnn_ase.training.step import compiled_step, eager_step, example_batch

SALT = bulk("NaCl", "rocksalt", a=5.0)
SMALL = {"cutoff": 4.0, "hidden": 16, "n_layers": 1, "n_vectors": 4, "n_pair": 8, "n_heads": 2}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Salts whose heat capacity saturates with the temperature; the pressure is mostly absent."""
    frames = []
    for k, cation in enumerate(("Li", "Na", "K", "Mg", "Ca", "Sr")):
        for anion in ("F", "Cl", "O", "S"):
            for temperature in (100.0, 300.0, 900.0):
                atoms = bulk(cation + anion, "rocksalt", a=5.0)
                atoms.info = {"T": temperature, "cv": 25 * temperature / (temperature + 50 * k)}
                atoms.info |= {"p": 1.0} if temperature == 300.0 else {}
                frames.append(atoms)
    path = tmp_path_factory.mktemp("rows") / "rows.extxyz"
    write(path, frames)
    return path


@pytest.fixture(scope="module")
def config(rows: Path) -> PropertyTrainConfig:
    return PropertyTrainConfig.from_dict(
        {
            "sources": [
                {
                    "file": str(rows),
                    "columns": {"heat_capacity": "cv"},
                    "conditions": {"temperature": "T", "pressure": "p"},
                }
            ],
            "trunk": SMALL,
            "n_members": 3,
            "epochs": 12,
            "learning_rate": 3e-2,
            "ema": 0.5,
            "max_edges": 400,
            "val": 0.2,
            "test": 0.2,
        }
    )


@pytest.fixture(scope="module")
def best(config: PropertyTrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(config, tmp_path_factory.mktemp("run"))


def test_it_learns_the_temperature(config: PropertyTrainConfig, best: Path) -> None:
    assert config.conditions == ("pressure", "temperature")
    cold, hot = (
        predict(SALT, best, {"temperature": t})["heat_capacity"].value for t in (100.0, 900.0)
    )
    assert hot > cold + 1.0
    many = predict([SALT, SALT], best, [{"temperature": 100.0}, {"temperature": 900.0}])
    assert [row["heat_capacity"].value for row in many] == pytest.approx([cold, hot], rel=1e-4)


def test_domain_of_conditions(best: Path) -> None:
    def inside(**conditions: float) -> bool:
        return bool(predict(SALT, best, conditions)["heat_capacity"].in_domain)

    assert inside(temperature=500.0), "between those of training; the pressure was absent there too"
    assert not inside(temperature=2000.0)
    assert not inside(pressure=1.0), "no temperature was absent"


def test_unknown_condition(best: Path) -> None:
    with pytest.raises(ValueError, match=r"structure 0: conditions must be .*got \['humidity'\]"):
        predict(SALT, best, {"humidity": 0.5})
    with pytest.raises(ValueError, match=r"trained with, \[\], got \['temperature'\]"):
        predict(SALT, "properties", {"temperature": 300.0})
    with pytest.raises(ValueError, match=r"must be finite, got \['temperature'\]"):
        predict(SALT, best, {"temperature": float("inf")})
    with pytest.raises(ValueError, match="one for each of 1 structures"):
        predict(SALT, best, [{}, {}])


def test_config_and_domain_are_in_the_checkpoint(config: PropertyTrainConfig, best: Path) -> None:
    assert parse_config(json.loads(json.dumps(config.to_dict()))) == config
    fusion = Predictor(best).model.conditions
    assert fusion is not None
    assert fusion.highest.tolist() == [1.0, 900.0]
    assert fusion.absent.tolist() == [1.0, 0.0]


@pytest.mark.slow
def test_traced_step_with_conditions(
    config: PropertyTrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced, and run without inductor, which takes minutes."""
    monkeypatch.setattr(torch, "compile", lambda program, **_: program)
    task = PropertyTask(config)
    samples = task.load()[0]["train"]
    model = task.start(samples)
    compiled = compiled_step(model, task.objective, example_batch(model, samples))
    for batch in (join(samples[:9]), join(samples[5:22])):
        loss, _, gradients = compiled(batch)
        wanted_loss, _, wanted = eager_step(model, task.objective)(batch)
        assert float(loss) == pytest.approx(float(wanted_loss), rel=1e-5)
        for got, want in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


def test_commands(rows: Path, best: Path, tmp_path: Path) -> None:
    salt, table = tmp_path / "salt.extxyz", tmp_path / "o.csv"
    write(salt, SALT)
    arguments = [str(salt), "--model", str(best), "--csv", str(table)]
    found = []
    for value in ("100", "900"):
        done = CliRunner().invoke(
            predict_command, [*arguments, "--condition", f"temperature={value}"]
        )
        assert done.exit_code == 0, done.output
        (row,) = csv.DictReader(table.read_text().splitlines())
        found.append(float(row["heat_capacity"]))
    assert found[1] > found[0] + 1.0
    for wrong, match in (("humidity=1", "humidity"), ("temperature=hot", "hot"), ("300", "NAME=")):
        done = CliRunner().invoke(predict_command, [*arguments, "--condition", wrong])
        assert done.exit_code == 2, done.output
        assert match in done.output

    target = ["--target", "heat_capacity=cv"]
    errors = []
    for conditions in (["--condition", "temperature=T"], []):
        done = CliRunner().invoke(
            evaluate,
            [str(rows), "--model", str(best), *target, *conditions, "--json", str(tmp_path / "e")],
        )
        assert done.exit_code == 0, done.output
        document = json.loads((tmp_path / "e").read_text())
        errors.append(document["files"]["rows.extxyz"]["heat_capacity"]["mae"])
    assert errors[0] < 0.95 * errors[1], "the temperature reaches the model"


def test_train_command(rows: Path, tmp_path: Path) -> None:
    arguments = [str(rows), "--target", "heat_capacity=cv", "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(train, [*arguments, "--condition", "temperature=Temp"])
    assert done.exit_code == 2
    assert "must have a column 'Temp' for temperature" in done.output
    done = CliRunner().invoke(train, [str(rows), "-o", "run", "--condition", "temperature=T"])
    assert "--condition and --level need --target" in done.output
