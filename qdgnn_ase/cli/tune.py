"""`qdgnn tune`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from qdgnn_ase.cli.common import console
from qdgnn_ase.cli.train import data_config, fit_with_bar
from qdgnn_ase.nn.speed import tune_process
from qdgnn_ase.training.checkpoint import load_property_model, write_atomic
from qdgnn_ase.training.config import PropertyTrainConfig, parse_config


@click.command()
@click.argument("source", type=click.Path(exists=True))
@click.option(
    "--target", "targets", multiple=True, required=True, metavar="NAME=COLUMN", help="As in train."
)
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--epochs", type=int, help="Per trial; as many as train would take if not given.")
@click.option(
    "--init",
    default="none",
    show_default=True,
    help="Potential to start from; its architecture is then fixed.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--output", "-o", type=Path, required=True, help="Folder of the study.")
def tune(
    source: str,
    *,
    targets: tuple[str, ...],
    trials: int,
    epochs: int | None,
    init: str,
    seed: int,
    output: Path,
) -> None:
    """Search the hyperparameters of a property model with optuna's TPE; resumable.

    The least validation loss wins; no trial sees the test fold. best.json in the output folder is
    a config for `qdgnn train`.
    """
    optuna = _optuna()
    values = data_config(source, targets, init)
    values |= {} if epochs is None else {"epochs": epochs}
    output.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{output / 'study.db'}", study_name="qdgnn", load_if_exists=True
    )
    done = sum(trial.state.is_finished() for trial in study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed + done)  # the same seed would repeat
    tune_process()

    def loss(trial: Any) -> float:
        folder = output / f"trial-{trial.number}"
        config = suggested(trial, values, fixed=init != "none")
        best = fit_with_bar(config, folder)
        value: float = load_property_model(best)[2]["training"]["val_loss"]
        console.print(f"trial {trial.number}: validation loss {value:.4f}, {trial.params}")
        return value

    study.optimize(loss, n_trials=max(0, trials - done), catch=(FloatingPointError,))
    _report(study, values, output, fixed=init != "none")


def suggested(trial: Any, values: dict[str, Any], *, fixed: bool) -> PropertyTrainConfig:
    """Config of a trial.

    Args:
        trial: Of optuna; anything with its ``suggest_`` methods.
        values: Config that the suggestions change.
        fixed: Keep the architecture.
    """
    config = parse_config(values)
    if not isinstance(config, PropertyTrainConfig):
        raise TypeError(f"values must be those of a property model, got {sorted(values)}")
    trunk = config.trunk
    if not fixed:
        trunk = replace(
            trunk,
            hidden=trial.suggest_categorical("hidden", [64, 96, 128]),
            n_layers=trial.suggest_int("n_layers", 2, 4),
            quantum=trial.suggest_categorical("quantum", ["t0", "t0_moments"]),
        )
    return replace(
        config,
        trunk=trunk,
        learning_rate=trial.suggest_float("learning_rate", 3e-4, 5e-3, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
        bag=trial.suggest_float("bag", 0.5, 1.0),
    )


def _report(study: Any, values: dict[str, Any], output: Path, *, fixed: bool) -> None:
    if not any(trial.value is not None for trial in study.trials):
        raise click.ClickException("no trial ended with a finite loss: no best.json")
    best = suggested(study.best_trial, values, fixed=fixed)
    write_atomic(output / "best.json", json.dumps(best.to_dict(), indent=2).encode())
    console.print(
        f"best of {len(study.trials)}: trial {study.best_trial.number}, validation loss "
        f"{study.best_value:.4f}; qdgnn train {output / 'best.json'} -o RUN"
    )


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise click.UsageError("tune needs optuna: pip install 'qdgnn-ase[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    module: ModuleType = optuna
    return module
