"""`qdgnn train`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

from qdgnn_ase.cli.common import console, progress_bar
from qdgnn_ase.nn.speed import tune_process
from qdgnn_ase.training.config import TrainConfig
from qdgnn_ase.training.fit import fit


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False))
@click.option("--output", "-o", type=Path, required=True, help="Folder of the run.")
def train(config: str, output: Path) -> None:
    """Train a potential from a JSON config, or go on with the run in the output folder.

    The config's only required key is "files", a list of labelled structure files.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        parsed = TrainConfig.from_dict(json.loads(Path(config).read_text()))
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"{config} must be a JSON object of TrainConfig: {error}") from error
    tune_process()
    best = fit_with_bar(parsed, output)
    console.print(f"best model: {best}; curve: {output / 'history.png'}")


def fit_with_bar(config: TrainConfig, output: Path) -> Path:
    """`fit` with a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task("training", total=config.epochs, note="")

        def progress(epoch: int, share: float, parts: dict[str, float]) -> None:
            note = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
            bar.update(task, completed=epoch + share, note=f"epoch {epoch + 1}: {note}")

        return fit(config, output, progress)
