"""Active learning: select, label, fine-tune, repeat; beside the same with a random selection.

A run is a folder that goes on where it was killed: ``test.extxyz``, and per arm the labels of each
round and the runs of the fine-tuning.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from qdgnn_ase import (
    ExtrapolationWarning,
    QDGNNCalculator,
    TrainConfig,
    evaluate,
    fit,
    label,
    load_model,
    split_indices,
)
from qdgnn_dft.selection import select

log = logging.getLogger(__name__)

Arm = Literal["active", "random"]
_SPLITS: tuple[Literal["frame", "formula"], ...] = ("frame", "formula")
_VAL = 0.15


@dataclass(frozen=True, kw_only=True)
class ActiveConfig:
    """What determines a run, the structures aside."""

    model: str = "default"
    """Embedded model or checkpoint that is fine-tuned in every round."""
    start: int = 8
    """Random structures that are labelled before the first selection."""
    batch: int = 8
    """Structures that are labelled per round."""
    rounds: int = 3
    """Selections."""
    epochs: int = 30
    """Of each fine-tuning."""
    learning_rate: float = 5e-4
    """Of each fine-tuning."""
    seed: int = 0
    """Of the start, of the random arm and of the training."""

    def __post_init__(self) -> None:
        for name in ("start", "batch", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.start < 3 or self.rounds < 0:
            raise ValueError(
                f"start must be at least 3 (one frame chooses the best epoch) and rounds at least "
                f"0, got {self.start} and {self.rounds}"
            )


def run_arm(
    arm: Arm,
    pool: Sequence[Atoms],
    test_file: Path,
    factory: Callable[[], Calculator],
    config: ActiveConfig,
    folder: Path,
    *,
    jobs: int = 1,
    show: Callable[[str], None] = log.info,
) -> list[dict[str, Any]]:
    """Errors on the test file after each round; row 0 is after the random start.

    Args:
        arm: "active", or "random" to compare with; both begin with the same structures.
        pool: Candidates without labels.
        test_file: Labelled structures that are not in the pool.
        factory: Makes the labeller; importable if ``jobs > 1``.
        config: Sizes, model and seeds.
        folder: Of this arm.
        jobs: Processes that label.
        show: Told what is going on.

    Raises:
        ValueError: If no structure could be labelled.
    """
    rng = np.random.default_rng(config.seed)
    order = [int(index) for index in rng.permutation(len(pool))]
    chosen, rows = order[: config.start], []
    taken: list[int] = []
    files: list[Path] = []
    for number in range(config.rounds + 1):
        show(f"{arm}, round {number}: labelling {len(chosen)}")
        files.append(folder / f"labelled-{number}.extxyz")
        label([pool[index] for index in chosen], factory, files[-1], jobs=jobs)
        taken += chosen
        show(f"{arm}, round {number}: training")
        model = _fine_tuned(files, config, folder / f"round-{number}")
        n_labels = sum(len(_frames(path)) for path in files)
        rows.append({"round": number, "labels": n_labels, **_errors(model, test_file)})
        left = [index for index in order if index not in taken]
        if arm == "random":
            chosen = left[: config.batch]
        else:
            features = _features(model, pool)
            picks = select(
                [features[index] for index in left],
                [features[index] for index in taken],
                config.batch,
            )
            chosen = [left[index] for index in picks]
        if not chosen:
            break
    return rows


def _frames(path: Path) -> list[Atoms]:
    frames: list[Atoms] = ase.io.read(path, ":") if path.stat().st_size else []
    return frames


def _fine_tuned(files: Sequence[Path], config: ActiveConfig, folder: Path) -> Path:
    names = tuple(str(path) for path in files if path.stat().st_size)
    frames = [atoms for path in files for atoms in _frames(path)]
    by, seed = _split_that_works([_frames(Path(name)) for name in names])
    n_edges = 60 * sum(len(atoms) for atoms in frames)
    train = TrainConfig(
        files=names,
        model=load_model(config.model)[0].config,
        init=config.model,
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        max_edges=max(1_000, n_edges // 8),
        max_atoms=1_000,
        val=_VAL,
        test=0.0,
        split_by=by,
        split_seed=seed,
        seed=config.seed,
        ema=0.9,
    )
    return fit(train, folder)


def _split_that_works(parts: Sequence[Sequence[Atoms]]) -> tuple[Literal["frame", "formula"], int]:
    """Split of the files that leaves neither fold empty.

    Raises:
        ValueError: If there is none.
    """
    for by in _SPLITS:
        for seed in range(20):
            splits = [split_indices(p, val=_VAL, test=0.0, seed=seed, by=by) for p in parts]
            if all(any(split[fold] for split in splits) for fold in ("train", "val")):
                return by, seed
    raise ValueError(
        f"labelled structures must fill training and validation, got {sum(map(len, parts))} frames"
    )


def _errors(model: Path, test_file: Path) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        report = evaluate(QDGNNCalculator(model), test_file)
    return {name: float(report[name]) for name in ("energy_mae", "forces_mae")}


def _features(model: Path, pool: Sequence[Atoms]) -> list[np.ndarray[Any, Any]]:
    calculator = QDGNNCalculator(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        return [calculator.get_descriptors(atoms) for atoms in pool]
