"""What is learned in the study of arms, by which model, and how it is scored.

* calculator: energy, forces and stress of the calculator, by a potential.
* tight_binding: these, and the gap of full tight binding (tier T1) of each frame by a property
  model that starts from the trunk of that potential: from so few frames of one crystal gaps are
  hardly learned without. There are no quantum descriptors: T1 made the labels, so it is no input.

A frame of a supercell is a structure of its own; the gap is that of the supercell on the mesh that
`qdgnn_ase.tight_binding` chooses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.units import GPa
from numpy.typing import NDArray

from qdgnn_ase import (
    ExtrapolationWarning,
    Predictor,
    PropertyTrainConfig,
    QDGNNCalculator,
    TrainConfig,
    fit,
    labels,
    read_structures,
    tight_binding,
)

Row = dict[str, Any]
Array = NDArray[np.float64]
Labels = Literal["calculator", "tight_binding"]
Annotate = Callable[[Atoms, Calculator], dict[str, Any]]
Learn = Callable[[Path, dict[str, Path], Path, int, dict[str, Any]], Row]
"""(training file, test files by name, folder of the run, seed, training settings) -> scores."""

QUANTITIES = {
    "band_gap": "gap, meV",
    "forces": "forces, eV/Å",
    "energy": "energy, meV/atom",
    "stress": "hydrostatic stress, GPa",
}
"""Name -> heading; the first one of a study decides which arm is better."""
_GAP = "t1_gap"


@dataclass(frozen=True, slots=True)
class Learner:
    """Labels beyond the calculator's, the model for them, and its training."""

    learn: Learn
    train: dict[str, Any]
    """Fields of `TrainConfig`; those that differ for the property model stand in "properties"."""
    annotate: Annotate | None = None


def tight_binding_labels(atoms: Atoms, calculator: Calculator) -> dict[str, Any]:
    """Gap of a frame in eV."""
    return {_GAP: float(tight_binding(atoms).band_gap[0])}


def train_potential(
    train: Path, tests: dict[str, Path], folder: Path, seed: int, settings: dict[str, Any]
) -> Row:
    """Train a potential on a file; errors of forces, energy and hydrostatic stress on the tests."""
    fields = settings | {"files": [str(train)], "seed": seed}
    calculator = QDGNNCalculator(fit(TrainConfig.from_dict(fields), folder))
    with warnings.catch_warnings():  # an arm may have taught too narrow a range: that is the test
        warnings.simplefilter("ignore", ExtrapolationWarning)
        scores = {name: score(calculator, read_structures(path)) for name, path in tests.items()}
    return {"tests": scores}


def train_properties(
    train: Path, tests: dict[str, Path], folder: Path, seed: int, settings: dict[str, Any]
) -> Row:
    """Train a potential, and from its trunk a property model; errors of both on the tests.

    The model of the properties is ``folder / "gap" / "best.safetensors"``.

    Raises:
        ValueError: If the trunk has quantum descriptors.
    """
    if (quantum := settings["model"].get("quantum", "t0")) != "none":
        raise ValueError(
            f"model must have quantum 'none' where tight binding made the labels, got {quantum!r}"
        )
    common = {name: value for name, value in settings.items() if name != "properties"}
    scores = train_potential(train, tests, folder / "potential", seed, common)["tests"]
    own = {
        "sources": [{"file": str(train), "columns": {"band_gap": _GAP}}],
        "trunk": common.pop("model"),
        "init": str(folder / "potential" / "best.safetensors"),
        "seed": seed,
    }
    config = PropertyTrainConfig.from_dict(common | settings["properties"] | own)
    predictor = Predictor(fit(config, folder / "gap"), device="cpu")
    for name, path in tests.items():
        scores[name] = _gap_score(predictor, path) | scores[name]
    return {"tests": scores}


_SETTINGS: dict[str, Any] = {
    "split_by": "frame",
    "val": 0.1,
    "test": 0.0,
    "epochs": 30,
    "max_edges": 1_500,
    "learning_rate": 5e-3,
    "ema": 0.95,
    "model": {"quantum": "none", "cutoff": 4.0, "hidden": 32, "n_layers": 2}
    | {"n_vectors": 8, "n_heads": 4, "n_pair": 16, "n_radial": 8},
}
_PROPERTIES = {"n_members": 4, "bag": 1.0, "weights": {"metal_probability": 0.0}}
LEARNERS: dict[Labels, Learner] = {
    "calculator": Learner(train_potential, _SETTINGS),
    "tight_binding": Learner(
        train_properties, _SETTINGS | {"properties": _PROPERTIES}, tight_binding_labels
    ),
}


def _gap_score(predictor: Predictor, path: Path) -> Row:
    frames = read_structures(path)
    found = predictor(frames)
    wanted = np.array([1e3 * float(atoms.info[_GAP]) for atoms in frames])
    got = np.array([1e3 * row["band_gap"].value for row in found])
    return {"band_gap": errors(got, wanted)}


def score(calculator: Calculator, frames: Sequence[Atoms]) -> Row:
    """Errors of forces (eV/Å), energy (meV/atom) and hydrostatic stress (GPa), see `errors`.

    Energies are compared about their means: training fixes no absolute energy.
    """
    wanted, got = (np.array(values) for values in zip(*_pairs(calculator, frames), strict=True))
    wanted[:, 0] -= wanted[:, 0].mean()
    got[:, 0] -= got[:, 0].mean()
    parts = {"forces": slice(2, None), "energy": slice(0, 1), "stress": slice(1, 2)}
    return {name: errors(got[:, part], wanted[:, part]) for name, part in parts.items()}


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


def errors(got: Array, wanted: Array) -> Row:
    """Mean absolute error, and R2, which is NaN where the wanted values have no spread."""
    squares = float(((wanted - wanted.mean()) ** 2).sum())
    error = float(((got - wanted) ** 2).sum())
    r2 = 1 - error / squares if squares > 0 else float("nan")
    return {"mae": float(np.abs(got - wanted).mean()), "r2": r2}
