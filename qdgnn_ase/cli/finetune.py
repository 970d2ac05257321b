"""`qdgnn finetune`: a model on a user's frames, with errors before and after.

Typical frames are those of one material, for which a split by formula leaves folds empty. They are
then split by frame: the held-out errors are those of other frames of the same material.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import click
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from rich.table import Table

from qdgnn_ase.cli.common import console, model_option
from qdgnn_ase.cli.evaluate import training_split, without_nan
from qdgnn_ase.cli.train import fit_with_bar
from qdgnn_ase.data.io import labels, read_structures
from qdgnn_ase.data.splits import SplitBy, folds_of, reduced_formula
from qdgnn_ase.inference.calculator import QDGNNCalculator
from qdgnn_ase.inference.domain import ExtrapolationWarning
from qdgnn_ase.inference.evaluate import METRICS, Split, frame_errors, summarise
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.speed import tune_process
from qdgnn_ase.training.checkpoint import load_model, write_atomic
from qdgnn_ase.training.claim import check_claim
from qdgnn_ase.training.config import TrainConfig
from qdgnn_ase.training.folds import load_folds
from qdgnn_ase.training.replay import replay_frames
from qdgnn_ase.training.start import start_model

Array = NDArray[np.float64]

_COLUMNS = {
    "energy_mae": "E MAE\neV/atom",
    "energy_mae_shifted": "E MAE\n- median",
    "forces_mae": "F MAE\neV/Å",
    "stress_mae": "S MAE\nGPa",
}
_VAL = _TEST = 0.1
_MAX_ATOMS = 1_000
_BATCHES = 40
"""Batches per epoch, about: with fewer, a small set would take too few steps."""
_NEIGHBORS = 60
"""Edges per atom of a dense crystal."""
_ATOMS_SEEN = 500_000
"""Atoms that a run passes in all, so a small set is passed more often: minutes on one core."""
_LEFT_OUT = {
    "too_large": f"more than {_MAX_ATOMS} atoms",
    "too_wild": "a force above the limit",
    "unlabelled": "no labels",
}

_file = click.Path(exists=True, dir_okay=False)


@click.command()
@click.argument("files", nargs=-1, required=True, type=_file)
@model_option
@click.option("--output", "-o", type=Path, required=True, help="Folder of the run.")
@click.option(
    "--old",
    multiple=True,
    type=_file,
    help="File that the model was trained on: tells what is forgotten, on its test fold.",
)
@click.option(
    "--keep",
    multiple=True,
    type=_file,
    help="File that the model was trained on: as many of its frames as yours are trained along.",
)
@click.option(
    "--split-by",
    type=click.Choice(["formula", "frame"]),
    help="By formula if that fills every fold, else by frame.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Chosen by the number of frames.")
@click.option("--learning-rate", default=5e-4, show_default=True)
def finetune(
    *,
    files: tuple[str, ...],
    model: str,
    output: Path,
    old: tuple[str, ...],
    keep: tuple[str, ...],
    split_by: SplitBy | None,
    epochs: int | None,
    learning_rate: float,
) -> None:
    """Train a model on your labelled FILES (extxyz ...) and tell what that changed.

    The element references are refitted to your energies first, so another functional or other
    pseudopotentials are no obstacle. The run goes on where it was killed.
    """
    network = load_model(model)[0]
    frames = [_labelled_frames(name) for name in files]
    config = _config(network, model, files, frames, split_by or _split_that_works(frames))
    config = replace(config, epochs=epochs or config.epochs, learning_rate=learning_rate)
    kept = output / "keep.extxyz"
    run = replace(config, files=(*files, str(kept))) if keep else config
    old_fold = training_split(model, load_model(model)[1], "test") if old or keep else None
    check_claim(output, run)
    tune_process()
    folds, provenance = load_folds(config)
    refitted = start_model(config, folds["train"])
    _say_what(config, provenance["files"], _unseen(network, frames))
    if keep:
        change = (refitted.element_energies - network.element_energies).numpy()
        _write_kept(kept, keep, model, change, sum(map(len, frames)))
    best = fit_with_bar(run, output)
    models: dict[str, QDGNN | str] = {
        "as it was": network,
        "references refitted": refitted,
        "fine-tuned": str(best),
    }
    held_out = _errors(models, files, Split.of_training(config.to_dict(), "test"))
    del models["references refitted"]
    forgotten = {Path(name).name: _errors(models, [name], old_fold) for name in old}
    console.print(_table("your test frames", held_out))
    for name, report in forgotten.items():
        console.print(_table(f"{name}, the model's own test fold", report))
    document = {
        "model": model,
        "config": run.to_dict(),
        "files": provenance["files"],
        "units": METRICS,
        "held_out": held_out,
        "old": forgotten,
    }
    write_atomic(output / "report.json", json.dumps(document, indent=2, allow_nan=False).encode())
    console.print(f"model: {best}; figures: {output / 'report.json'}")


def _labelled_frames(name: str) -> list[Atoms]:
    frames = read_structures(name)
    if not any(np.isfinite(value).any() for atoms in frames for value in labels(atoms).values()):
        raise click.UsageError(
            f"{name} must hold energies, forces or stress, got {len(frames)} frames without any; "
            "write them with ase.io.write while the calculator is attached, as extxyz"
        )
    return frames


def _split_that_works(frames: Sequence[Sequence[Atoms]]) -> SplitBy:
    """By formula if no fold is empty and most frames are for training, else by frame."""
    folds: Counter[str] = Counter()
    for part in frames:
        names = [reduced_formula(atoms) for atoms in part]
        folds.update(folds_of(names, val=_VAL, test=_TEST, seed=0))
    filled = len(folds) == 3 and folds["train"] >= 0.5 * folds.total()
    return "formula" if filled else "frame"


def _config(
    network: QDGNN,
    model: str,
    files: tuple[str, ...],
    frames: Sequence[Sequence[Atoms]],
    split_by: SplitBy,
) -> TrainConfig:
    """Epochs and batches by the size of the data."""
    n_atoms = sum(len(atoms) for part in frames for atoms in part)
    return TrainConfig(
        files=files,
        model=network.config,
        init=model,
        epochs=min(100, max(10, round(_ATOMS_SEEN / n_atoms))),
        max_edges=min(40_000, max(1_000, _NEIGHBORS * n_atoms // _BATCHES)),
        max_atoms=_MAX_ATOMS,
        val=_VAL,
        test=_TEST,
        split_by=split_by,
    )


def _unseen(network: QDGNN, frames: Sequence[Sequence[Atoms]]) -> list[str]:
    numbers = {int(z) for part in frames for atoms in part for z in atoms.numbers}
    return [chemical_symbols[z] for z in sorted(numbers) if not int(network.counts[z])]


def _write_kept(path: Path, files: Sequence[str], model: str, change: Array, n: int) -> None:
    """Write ``n`` frames of the model's own training on the energy scale of the new one."""
    config = load_model(model)[1]["training"]["train_config"]
    frames = replay_frames(files, config, change, n)
    path.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(path, frames, format="extxyz")
    console.print(f"{len(frames)} frames of the model's own training are trained along")


def _say_what(config: TrainConfig, files: Sequence[dict[str, Any]], unseen: list[str]) -> None:
    """Split, frames left out, elements that the model does not know."""
    if config.split_by == "frame":
        console.print(
            f"Split by frame: in each of up to 5 stretches of a composition's frames the last "
            f"{config.test:.0%} are the test, the {config.val:.0%} before them choose the best "
            "epoch. The test errors are those of other frames of the same materials and say "
            "nothing about other materials."
        )
    else:
        console.print("Split by formula: no composition of the test is trained on.")
    for row in files:
        console.print(
            f"{row['name']}: {row['train']} frames to train on, {row['val']} to choose the best "
            f"epoch, {row['test']} to test"
        )
        for key, reason in _LEFT_OUT.items():
            if row[key]:
                console.print(f"{row['name']}: left out {row[key]}: {reason}")
    if unseen:
        console.print(f"new to the model: {', '.join(unseen)}; nothing is known about them yet")
    console.print(f"{config.epochs} epochs, learning rate {config.learning_rate:g}")


def _errors(
    models: Mapping[str, QDGNN | str], files: Sequence[str], split: Split | None
) -> dict[str, dict[str, Any]]:
    """Metrics of each model on the frames of the split of all files together."""
    report = {}
    for name, model in models.items():
        calculator = QDGNNCalculator(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)
            parts = [frame_errors(calculator, path, split=split) for path in files]
        row = summarise([error for part in parts for error in part.errors])
        report[name] = without_nan({k: v for k, v in row.items() if not k.endswith("_interval")})
    return report


def _table(title: str, report: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=f"Errors on {title}")
    for heading in ("", "frames", *_COLUMNS.values()):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in report.items():
        values = [row.get(metric) for metric in _COLUMNS]
        cells = ["-" if value is None else f"{value:.4f}" for value in values]
        table.add_row(name, str(row["frames"]), *cells)
    return table
