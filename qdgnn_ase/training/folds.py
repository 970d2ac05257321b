"""Files -> training, validation and test samples with their provenance."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from qdgnn_ase.data.dataset import Sample, make_samples
from qdgnn_ase.data.io import labels, read_structures
from qdgnn_ase.data.splits import Fold, folds_of, reduced_formula
from qdgnn_ase.training.config import TrainConfig

log = logging.getLogger(__name__)

Provenance = dict[str, Any]


def load_folds(config: TrainConfig) -> tuple[dict[Fold, list[Sample]], Provenance]:
    """Samples of the training and validation folds, and what they are made of.

    The test fold's frames are counted but not kept: no step of training can see them.

    Raises:
        ValueError: If the training or validation fold is empty.
    """
    frames: dict[Fold, list[Atoms]] = {"train": [], "val": [], "test": []}
    files = []
    for name in config.files:
        counts = _sort(read_structures(name), config, frames)
        digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        files.append({"name": Path(name).name, "sha256": digest, **counts})
        log.info("%s: %s", name, counts)
    folds: dict[Fold, list[Sample]] = {}
    for fold in ("train", "val"):
        if not frames[fold]:
            raise ValueError(
                f"the {fold} fold must hold at least one frame, got none of {files}; "
                "give more formulas, split_by 'frame', other shares val and test, or limits"
            )
        folds[fold] = make_samples(frames[fold], config.model.cutoff)
    return folds, {"files": files, "train_config": _without_folders(config)}


def _without_folders(config: TrainConfig) -> dict[str, Any]:
    """The config for a checkpoint: names of files, not where they lay on this machine."""
    values = config.to_dict()
    values["files"] = [Path(name).name for name in config.files]
    values["init"] = Path(config.init).name if config.init else None
    return values


def _sort(
    frames: list[Atoms], config: TrainConfig, folds: dict[Fold, list[Atoms]]
) -> dict[str, int]:
    """Append each usable frame to its fold; returns how many went where."""
    counts = dict.fromkeys(("train", "val", "test", "too_large", "too_wild", "unlabelled"), 0)
    names = [reduced_formula(atoms) for atoms in frames]
    places = folds_of(
        names, val=config.val, test=config.test, seed=config.split_seed, by=config.split_by
    )
    for atoms, fold in zip(frames, places, strict=True):
        reason = _unusable(atoms, config, fold)
        counts[reason or fold] += 1
        if reason is None:
            folds[fold].append(atoms)
    return counts


def _unusable(atoms: Atoms, config: TrainConfig, fold: Fold) -> str | None:
    values = labels(atoms)
    if len(atoms) > config.max_atoms:
        return "too_large"
    if not any(np.isfinite(value).any() for value in values.values()):
        return "unlabelled"
    wild = np.nanmax(np.abs(values["forces"]), initial=0.0) > config.max_force
    return "too_wild" if wild and fold != "test" else None
