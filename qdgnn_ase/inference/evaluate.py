"""Errors of a calculator on labelled structures, with intervals over formulas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from ase.stress import voigt_6_to_full_3x3_stress
from ase.units import GPa
from numpy.typing import NDArray

from qdgnn_ase.data.io import labels, read_structures
from qdgnn_ase.data.splits import Fold, SplitBy, fold_of, folds_of, reduced_formula
from qdgnn_ase.inference.bootstrap import interval, resampled_weights

Array = NDArray[np.float64]

METRICS = {
    "energy_mae": "eV/atom",
    "energy_rmse": "eV/atom",
    "energy_mae_shifted": "eV/atom, after removing the file's median error",
    "energy_rmse_shifted": "eV/atom, after removing the file's median error",
    "forces_mae": "eV/Å per component",
    "stress_mae": "GPa per component of the 3x3 tensor",
}


@dataclass(frozen=True, slots=True)
class Split:
    """Split of a training run; chooses the frames that an evaluation sees."""

    fold: Fold
    val: float
    test: float
    seed: int
    by: SplitBy = "formula"
    turn: float = 0.0

    @classmethod
    def of_training(cls, config: Mapping[str, Any], fold: Fold) -> Split:
        """Fold of the run whose ``train_config`` a checkpoint holds."""
        by = config.get("split_by", "formula")
        turn = config.get("split_turn", 0.0)
        return cls(fold, config["val"], config["test"], config["split_seed"], by, turn)

    def holds(self, formula: str) -> bool:
        """True if the formula is in the fold.

        Raises:
            ValueError: If the split is by frame: a formula is then in every fold.
        """
        if self.by != "formula":
            raise ValueError("split must be by formula, got one by frame; use `select`")
        shares = {"val": self.val, "test": self.test, "turn": self.turn}
        return fold_of(formula, **shares, seed=self.seed) == self.fold

    def select(self, formulas: Sequence[str]) -> list[bool]:
        """Whether each frame of a file is in the fold, from the reduced formulas of all of them."""
        if self.by == "formula":
            return [self.holds(formula) for formula in formulas]
        folds = folds_of(formulas, val=self.val, test=self.test, seed=self.seed, by=self.by)
        return [fold == self.fold for fold in folds]


@dataclass(frozen=True, slots=True)
class FrameError:
    """Errors of one structure."""

    formula: str
    n_atoms: int
    energy: float
    """Predicted minus reference, eV/atom; NaN without a label."""
    forces: float
    """Sum of absolute component errors, eV/Å; NaN without labels."""
    stress: float
    """Mean absolute error of the 3x3 tensor, GPa; NaN without a label or volume."""
    index: int = 0
    """Place of the structure in its file."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Errors of a calculator on one file, frame by frame."""

    errors: list[FrameError]
    skipped: dict[str, int]
    """Reason -> frames."""
    seconds: float

    def report(self) -> dict[str, Any]:
        """What `evaluate` returns."""
        n_atoms = sum(error.n_atoms for error in self.errors)
        return {
            **summarise(self.errors),
            "skipped": self.skipped,
            "ms_per_atom": 1e3 * self.seconds / max(1, n_atoms),
        }


def evaluate(
    calculator: Calculator,
    path: str | Path,
    *,
    max_atoms: int | None = None,
    split: Split | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Errors on one file.

    Args:
        calculator: Any ASE calculator.
        path: File of labelled structures.
        max_atoms: Larger structures are skipped.
        split: Only frames of one fold.
        progress: Called with the share that is done.

    Returns:
        The ``METRICS``, their 95 % bootstrap intervals over formulas (``*_interval``), the counts
        ``frames``, ``atoms``, ``formulas``, ``skipped`` (reason -> frames) and ``ms_per_atom``.
    """
    return frame_errors(
        calculator, path, max_atoms=max_atoms, split=split, progress=progress
    ).report()


def frame_errors(
    calculator: Calculator,
    path: str | Path,
    *,
    max_atoms: int | None = None,
    split: Split | None = None,
    progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """Errors of every frame of one file; arguments of `evaluate`."""
    frames = read_structures(path)
    formulas = [reduced_formula(atoms) if len(atoms) else "" for atoms in frames]
    inside = split.select(formulas) if split else [True] * len(frames)
    errors, seconds, skipped = [], 0.0, Counter[str]()
    for index, (atoms, formula) in enumerate(zip(frames, formulas, strict=True)):
        reason = _skip(atoms, max_atoms, None if inside[index] else split)
        if reason is None:
            started = perf_counter()
            try:
                errors.append(frame_error(calculator, atoms, formula, index))
            except CalculatorError as error:
                reason = str(error)
            seconds += perf_counter() - started
        if reason is not None:
            skipped[reason] += 1
        if progress:
            progress((index + 1) / len(frames))
    return Evaluation(errors, dict(skipped), seconds)


def frame_error(calculator: Calculator, atoms: Atoms, formula: str, index: int = 0) -> FrameError:
    """Compare one structure's stored labels with the calculator.

    Raises:
        CalculatorError: If the calculator refuses the structure.
    """
    wanted = labels(atoms)
    bare = atoms.copy()
    calculator.calculate(bare, ["energy", "forces", "stress"])
    got = calculator.results
    stress = got.get("stress")
    full = np.full((3, 3), np.nan) if stress is None else _full(stress)
    return FrameError(
        formula=formula,
        n_atoms=len(atoms),
        energy=float(got["energy"] - wanted["energy"]) / len(atoms),
        forces=float(np.abs(got["forces"] - wanted["forces"]).sum()),
        stress=float(np.abs(full - wanted["stress"]).mean()) / GPa,
        index=index,
    )


def _full(stress: Any) -> Array:
    """(3, 3) of a stress that is so already (matgl) or has Voigt's 6 components (ASE)."""
    array = np.asarray(stress, dtype=np.float64)
    return array if array.shape == (3, 3) else voigt_6_to_full_3x3_stress(array)


def summarise(errors: Sequence[FrameError], n_bootstrap: int = 1_000) -> dict[str, Any]:
    """Metrics, bootstrap intervals over formulas and counts of frame errors."""
    formulas = sorted({error.formula for error in errors})
    counts = {
        "frames": len(errors),
        "atoms": sum(error.n_atoms for error in errors),
        "formulas": len(formulas),
    }
    if not errors:
        return counts
    table = _table(errors)
    metrics = _metrics(table, np.ones(len(errors)))
    resampled = [
        _metrics(table, weights)
        for weights in resampled_weights([error.formula for error in errors], n_bootstrap)
    ]
    intervals = {
        f"{name}_interval": interval([row[name] for row in resampled])
        for name in METRICS
        if np.isfinite(metrics[name])
    }
    return {**metrics, **intervals, **counts}


def paired_difference(
    first: Sequence[FrameError], second: Sequence[FrameError], n_bootstrap: int = 1_000
) -> dict[str, Any]:
    """Two calculators on the same file: metrics on the frames that both computed.

    Both see the same resampled formulas, so what makes a formula hard for both cancels.

    Returns:
        ``frames``, ``formulas`` and, for each of the ``METRICS`` that both have, a dict with
        ``first``, ``second``, ``difference`` (first - second) and its 95 % ``interval``.

    Raises:
        ValueError: If no frame was computed by both.
    """
    by_index = {error.index: error for error in second}
    pairs = [(error, by_index[error.index]) for error in first if error.index in by_index]
    if not pairs:
        raise ValueError("both calculators must have computed one frame of the file, got none")
    mine = [pair[0] for pair in pairs]
    tables = _table(mine), _table([pair[1] for pair in pairs])
    missing = np.isnan(tables[0]) | np.isnan(tables[1])
    for table in tables:
        table[missing] = np.nan
    ones = np.ones(len(pairs))
    values = [_metrics(table, ones) for table in tables]
    draws = resampled_weights([error.formula for error in mine], n_bootstrap)
    resampled = [[_metrics(table, weights) for table in tables] for weights in draws]
    return {
        "frames": len(mine),
        "formulas": len({error.formula for error in mine}),
        **{
            name: {
                "first": values[0][name],
                "second": values[1][name],
                "difference": values[0][name] - values[1][name],
                "interval": interval([a[name] - b[name] for a, b in resampled]),
            }
            for name in METRICS
            if np.isfinite(values[0][name] - values[1][name])
        },
    }


def _table(errors: Sequence[FrameError]) -> Array:
    """Columns energy, forces, stress, n_atoms."""
    return np.array([[e.energy, e.forces, e.stress, e.n_atoms] for e in errors], dtype=np.float64)


def _skip(atoms: Atoms, max_atoms: int | None, missed: Split | None) -> str | None:
    if max_atoms is not None and len(atoms) > max_atoms:
        return f"more than {max_atoms} atoms"
    if missed is not None:
        return f"not in the {missed.fold} fold"
    if not any(np.isfinite(value).any() for value in labels(atoms).values()):
        return "no labels"
    return None


def _metrics(table: Array, weights: Array) -> dict[str, float]:
    """Weighted metrics of columns energy, forces, stress, n_atoms; NaN = no label."""
    energy, forces, stress, n_atoms = table.T
    known = np.isfinite(energy)
    shifted = energy - _weighted_median(energy[known], weights[known])
    return {
        "energy_mae": _mean(np.abs(energy), weights),
        "energy_rmse": _mean(energy**2, weights) ** 0.5,
        "energy_mae_shifted": _mean(np.abs(shifted), weights),
        "energy_rmse_shifted": _mean(shifted**2, weights) ** 0.5,
        "forces_mae": _mean(forces / (3 * n_atoms), weights * n_atoms),
        "stress_mae": _mean(stress, weights),
    }


def _mean(values: Array, weights: Array) -> float:
    known = np.isfinite(values) & (weights > 0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else np.nan


def _weighted_median(values: Array, weights: Array) -> float:
    if not len(values) or not weights.sum():
        return np.nan
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])
