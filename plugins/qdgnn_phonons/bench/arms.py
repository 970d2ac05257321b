"""Which displacements teach a model most: phonon, matched Gaussian or one-sided uniform frames.

For each seed, arm and size a model is trained on frames of that arm and tested on molecular
dynamics of the labelling calculator itself. The arms have the same <u^2> and sizes; seeds choose
frames and weights. Labels come from any ASE calculator; ``annotate`` adds others (a band gap), and
``learn`` trains and tests whatever model is wanted on the labelled files.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.units import GPa
from numpy.typing import NDArray

from qdgnn_ase import (
    ExtrapolationWarning,
    QDGNNCalculator,
    TrainConfig,
    fit,
    label,
    labels,
    read_structures,
    run_tasks,
)
from qdgnn_phonons.arms import Arm, md_frames, sample_frames
from qdgnn_phonons.config import PhononConfig
from qdgnn_phonons.crystal import relax_crystal, supercell_multiples
from qdgnn_phonons.files import write_atomically
from qdgnn_phonons.harmonic import harmonic_phonons
from qdgnn_phonons.modes import NormalModes, normal_modes

Row = dict[str, Any]
Array = NDArray[np.float64]
ARMS: tuple[Arm, ...] = ("phonon", "gaussian", "uniform")
Factory = Callable[[], Calculator]
Annotate = Callable[[Atoms, Calculator], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that determines the comparison of one crystal."""

    supercell: tuple[int, int, int] | None = None
    """Multiples; None takes `PhononConfig`'s."""
    temperatures: tuple[float, ...] = (300.0, 600.0)
    """K, of training and test frames; each has the same share of a training set."""
    sizes: tuple[int, ...] = (20, 80)
    """Training frames."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each draws its frames and its weights."""
    n_test: int = 20
    """Frames of molecular dynamics per temperature."""
    train: dict[str, Any] = field(
        default_factory=lambda: {
            "epochs": 60,
            "max_edges": 10_000,
            "model": {"cutoff": 4.5, "hidden": 32, "n_layers": 2, "n_vectors": 8},
        }
    )
    """Fields of `TrainConfig` for the potential."""


Learn = Callable[[Path, dict[str, Path], Path, int, dict[str, Any]], Row]
"""(training file, test files by name, folder, seed, Study.train) -> scores."""


def run_study(
    atoms: Atoms,
    factory: Factory,
    folder: Path,
    study: Study,
    *,
    learn: Learn | None = None,
    annotate: Annotate | None = None,
    progress: Callable[[int, int, Row], None] | None = None,
) -> list[Row]:
    """Scores of every arm, size and seed; goes on where it was killed.

    Args:
        atoms: Crystal.
        factory: Makes the calculator that relaxes, moves and labels.
        folder: Labelled files and ``rows.jsonl``; of one study.
        study: Sizes, seeds and training.
        learn: Trains and tests; `train_potential` if not given.
        annotate: Further labels, see `qdgnn_ase.label`.
        progress: Called with the rows done, all, and the new row.

    Raises:
        ValueError: If the folder holds another study.
    """
    _claim(folder, atoms, study)
    crystal = atoms.copy()
    crystal.calc = factory()
    config = PhononConfig(supercell=study.supercell)
    crystal = relax_crystal(crystal, config)
    modes = normal_modes(harmonic_phonons(crystal, config))
    make = partial(_labelled, factory=factory, annotate=annotate)
    tests = {
        f"{temperature:g}K": make(
            partial(_test_frames, crystal, config, study, temperature),
            folder / f"test_{temperature:g}K.extxyz",
            study.n_test,
        )
        for temperature in study.temperatures
    }

    def work(job: tuple[Arm, int, int]) -> Row:
        arm, size, seed = job
        train = folder / f"{arm}_{size}_{seed}.extxyz"
        make(lambda: _train_frames(modes, arm, size, seed, study), train, size)
        scores = (learn or train_potential)(train, tests, train.with_suffix(""), seed, study.train)
        return {"arm": arm, "size": size, "seed": seed, **scores}

    jobs = [(a, n, seed) for seed in study.seeds for n in study.sizes for a in ARMS]
    items = [(f"{arm}-{size}-s{seed}", (arm, size, seed)) for arm, size, seed in jobs]
    return run_tasks(work, items, folder / "rows.jsonl", progress=progress)


def _claim(folder: Path, atoms: Atoms, study: Study) -> None:
    path = folder / "study.json"
    mine = json.loads(json.dumps({"crystal": str(atoms.symbols), **asdict(study)}))
    if path.is_file() and json.loads(path.read_text()) != mine:
        raise ValueError(f"{folder} must hold this study, got another one; choose another folder")
    write_atomically(path, lambda target: target.write_text(json.dumps(mine, indent=1)))


def _test_frames(crystal: Atoms, config: PhononConfig, study: Study, kelvin: float) -> list[Atoms]:
    multiples = config.supercell or supercell_multiples(crystal, config.min_length)
    supercell = crystal.repeat(multiples)
    supercell.calc = crystal.calc
    return md_frames(supercell, [kelvin], study.n_test, seed=10_000)


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


def train_potential(
    train: Path, tests: dict[str, Path], folder: Path, seed: int, settings: dict[str, Any]
) -> Row:
    """Train a potential on a file; errors of energy, forces and hydrostatic stress on the tests."""
    fields = {"files": [str(train)], "split_by": "frame", "val": 0.1, "test": 0.0, "seed": seed}
    best = fit(TrainConfig.from_dict(settings | fields), folder)
    calculator = QDGNNCalculator(best)
    with warnings.catch_warnings():  # an arm may have taught too narrow a range: that is the test
        warnings.simplefilter("ignore", ExtrapolationWarning)
        scores = {name: score(calculator, read_structures(path)) for name, path in tests.items()}
    shutil.rmtree(folder)  # the row has what was wanted; a killed run keeps its state
    return {"tests": scores}


def score(calculator: Calculator, frames: Sequence[Atoms]) -> Row:
    """Mean absolute error and R2 of energy (meV/atom), forces (eV/Å), hydrostatic stress (GPa).

    Energies are compared about their means: training fixes no absolute energy.
    """
    wanted, got = (np.array(values) for values in zip(*_pairs(calculator, frames), strict=True))
    wanted[:, 0] -= wanted[:, 0].mean()
    got[:, 0] -= got[:, 0].mean()
    parts = {"energy": slice(0, 1), "stress": slice(1, 2), "forces": slice(2, None)}
    return {name: _errors(got[:, part], wanted[:, part]) for name, part in parts.items()}


def _pairs(calculator: Calculator, frames: Sequence[Atoms]) -> list[tuple[Array, Array]]:
    pairs = []
    for atoms in frames:
        known = labels(atoms)
        trace = float(np.trace(known["stress"]))
        moved = atoms.copy()
        moved.calc = calculator
        energy, forces = moved.get_potential_energy(), moved.get_forces()
        pairs.append(
            (
                _vector(float(known["energy"]), trace, known["forces"]),
                _vector(float(energy), float(moved.get_stress()[:3].sum()), forces),
            )
        )
    return pairs


def _vector(energy: float, trace: float, forces: Array) -> Array:
    return np.concatenate([[1e3 * energy / len(forces), trace / 3 / GPa], np.ravel(forces)])


def _errors(got: Array, wanted: Array) -> Row:
    squares = float(((wanted - wanted.mean()) ** 2).sum())
    error = float(((got - wanted) ** 2).sum())
    r2 = 1 - error / squares if squares > 0 else float("nan")
    return {"mae": float(np.abs(got - wanted).mean()), "r2": r2}


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Mean over seeds with 95 % bootstrap intervals, and errors relative to the phonon arm's.

    The ratio's interval resamples the seeds that both arms have (geometric mean).
    """
    good = [row for row in rows if "failure" not in row]
    table = {(row["arm"], row["size"], row["seed"]): row["tests"] for row in good}
    summary = []
    for size in sorted({row["size"] for row in good}):
        for arm in ARMS:
            seeds = [s for a, n, s in table if (a, n) == (arm, size) and ("phonon", n, s) in table]
            for test in table[arm, size, seeds[0]] if seeds else ():
                for quantity in ("energy", "forces", "stress"):
                    mine = [table[arm, size, s][test][quantity] for s in seeds]
                    base = [table["phonon", size, s][test][quantity]["mae"] for s in seeds]
                    mae = np.array([cell["mae"] for cell in mine])
                    summary.append(
                        {
                            "size": size,
                            "arm": arm,
                            "test": test,
                            "quantity": quantity,
                            "seeds": len(seeds),
                            "mae": _interval(mae),
                            "ratio": [float(np.exp(x)) for x in _interval(np.log(mae / base))],
                            "r2": float(np.mean([cell["r2"] for cell in mine])),
                        }
                    )
    return summary


def _interval(values: Array) -> list[float]:
    """Mean, and 95 % bootstrap interval of it."""
    draws = np.random.default_rng(0).integers(len(values), size=(1_000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return [float(values.mean()), float(low), float(high)]


def markdown(summary: Sequence[Row]) -> str:
    """Table: a row per size, arm and test."""
    lines = [
        "| frames | arm | test | E, meV/atom | R2 | F, eV/Å | R2 | hydrostatic stress, GPa | R2 | "
        "F over phonon's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    keys = dict.fromkeys((row["size"], row["arm"], row["test"]) for row in summary)
    for key in keys:
        cells = {r["quantity"]: r for r in summary if (r["size"], r["arm"], r["test"]) == key}
        texts = [
            "{:.3g} ({:.3g}-{:.3g}) | {:.2f}".format(*cells[name]["mae"], cells[name]["r2"])
            for name in ("energy", "forces", "stress")
        ]
        ratio = "{:.2f} ({:.2f}-{:.2f})".format(*cells["forces"]["ratio"])
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {' | '.join(texts)} | {ratio} |")
    return "\n".join(lines) + "\n"


def document(name: str, study: Study, rows: Sequence[Row]) -> Row:
    """JSON document of a study."""
    failed = [row for row in rows if "failure" in row]
    return {
        "crystal": name,
        "study": asdict(study),
        "failed": failed,
        "summary": summarise(rows),
        "rows": [row for row in rows if "failure" not in row],
    }
