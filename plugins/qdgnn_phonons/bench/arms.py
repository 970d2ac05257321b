"""Which displacements teach a model most: phonon, matched Gaussian or one-sided uniform frames.

For each seed, arm and size a model is trained on frames of that arm and tested on molecular
dynamics of the labelling calculator itself. The arms have the same <u^2> and sizes; seeds choose
frames and weights. What is learned is `Study.labels`, see `arms_models`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from qdgnn_ase import claim_folder, label, read_structures, run_tasks
from qdgnn_phonons.arms import Arm, md_frames, sample_frames
from qdgnn_phonons.bench.arms_models import LEARNERS, Annotate, Labels, Learner
from qdgnn_phonons.config import PhononConfig
from qdgnn_phonons.crystal import relax_crystal, supercell_multiples
from qdgnn_phonons.harmonic import harmonic_phonons
from qdgnn_phonons.modes import NormalModes, normal_modes
from qdgnn_phonons.stability import Policy

Row = dict[str, Any]
ARMS: tuple[Arm, ...] = ("phonon", "gaussian", "uniform")
Factory = Callable[[], Calculator]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that determines the comparison of one crystal."""

    supercell: tuple[int, int, int] | None = None
    """Multiples; None takes `PhononConfig`'s."""
    policy: Policy = "refuse"
    """What to do with modes without a restoring force when frames are drawn."""
    labels: Labels = "calculator"
    """What is learned."""
    temperatures: tuple[float, ...] = (300.0, 600.0)
    """K, of training and test frames; each has the same share of a training set."""
    sizes: tuple[int, ...] = (20, 80)
    """Training frames, validation included."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each draws its frames and its weights."""
    n_test: int = 20
    """Frames of molecular dynamics per temperature."""
    timestep_fs: float = 2.0
    """Of the molecular dynamics."""
    train: dict[str, Any] = field(default_factory=dict)
    """Fields of the training config that differ from the learner's."""


def run_study(
    atoms: Atoms,
    factory: Factory,
    folder: Path,
    study: Study,
    *,
    learner: Learner | None = None,
    progress: Callable[[int, int, Row], None] | None = None,
) -> list[Row]:
    """Scores of every arm, size and seed; goes on where it was killed.

    Args:
        atoms: Crystal.
        factory: Makes the calculator that relaxes, moves and labels.
        folder: Labelled files, ``rows.jsonl`` and runs; of one study.
        study: Sizes, seeds and training.
        learner: Another one than that of `Study.labels`.
        progress: Called with the rows done, all, and the new row.

    Raises:
        ValueError: If the folder holds another study.
        ImaginaryModesError: If there are modes without a restoring force and the policy is
            "refuse".
    """
    learner = learner or LEARNERS[study.labels]
    settings = learner.train | study.train
    fixed = {k: v for k, v in asdict(study).items() if k not in ("sizes", "seeds")}  # may be added
    plan = {"crystal": str(atoms.symbols), **fixed, "train": settings}
    claim_folder(folder / "study.json", plan)
    crystal = atoms.copy()
    crystal.calc = factory()
    config = PhononConfig(supercell=study.supercell)
    crystal = relax_crystal(crystal, config)
    modes = normal_modes(harmonic_phonons(crystal, config), study.policy)
    make = partial(_labelled, factory=factory, annotate=learner.annotate)
    tests = {}
    for temperature in study.temperatures:
        name = f"{temperature:g}K"
        frames = partial(_test_frames, crystal, config, study, temperature)
        tests[name] = make(frames, md_file(folder, name), study.n_test)

    def work(job: tuple[Arm, int, int]) -> Row:
        arm, size, seed = job
        train = run_folder(folder, arm, size, seed).with_suffix(".extxyz")
        make(lambda: _train_frames(modes, arm, size, seed, study), train, size)
        scores = learner.learn(train, tests, train.with_suffix(""), seed, settings)
        notes = {"modes": len(modes.frequencies), "without_force": modes.n_without_force}
        return {"arm": arm, "size": size, "seed": seed, **notes, **scores}

    jobs = [(a, n, seed) for seed in study.seeds for n in study.sizes for a in ARMS]
    items = [(f"{arm}-{size}-s{seed}", (arm, size, seed)) for arm, size, seed in jobs]
    return run_tasks(work, items, folder / "rows.jsonl", progress=progress)


def run_folder(folder: Path, arm: str, size: int, seed: int) -> Path:
    """Where a study keeps the run of a model."""
    return folder / f"{arm}_{size}_{seed}"


def md_file(folder: Path, name: str) -> Path:
    """Where a study keeps the molecular dynamics of a test, "300K" for instance."""
    return folder / f"test_{name}.extxyz"


def _test_frames(crystal: Atoms, config: PhononConfig, study: Study, kelvin: float) -> list[Atoms]:
    multiples = config.supercell or supercell_multiples(crystal, config.min_length)
    supercell = crystal.repeat(multiples)
    supercell.calc = crystal.calc
    return md_frames(supercell, [kelvin], study.n_test, seed=10_000, timestep_fs=study.timestep_fs)


def _train_frames(modes: NormalModes, arm: Arm, size: int, seed: int, study: Study) -> list[Atoms]:
    share, rest = divmod(size, len(study.temperatures))
    frames: list[Atoms] = []
    for place, temperature in enumerate(study.temperatures):
        frames += sample_frames(modes, arm, [temperature], share + (place < rest), seed)
    order = np.random.default_rng(seed).permutation(len(frames))  # validation sees all of them
    return [frames[index] for index in order]


def _labelled(
    frames: Callable[[], list[Atoms]],
    path: Path,
    n: int,
    *,
    factory: Factory,
    annotate: Annotate | None,
) -> Path:
    """Labelled file of n frames; made again only where frames are missing."""
    if not path.is_file() or len(read_structures(path)) < n:
        counts = label(frames(), factory, path, annotate=annotate)
        if counts.failed:
            raise ValueError(f"all frames of {path} must be labelled, {counts.failed} failed")
    return path
