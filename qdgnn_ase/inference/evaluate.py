"""Errors of a calculator on labelled structures, with intervals over formulas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
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
from qdgnn_ase.data.splits import Fold, fold_of, reduced_formula

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
    """Grouped split of a training run; chooses the frames that an evaluation sees."""

    fold: Fold
    val: float
    test: float
    seed: int

    def holds(self, formula: str) -> bool:
        """True if the formula is in the fold."""
        return fold_of(formula, val=self.val, test=self.test, seed=self.seed) == self.fold


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
    frames = read_structures(path)
    errors, seconds, skipped = [], 0.0, Counter[str]()
    for index, atoms in enumerate(frames):
        formula = reduced_formula(atoms) if len(atoms) else ""
        reason = _skip(atoms, formula, max_atoms, split)
        if reason is None:
            started = perf_counter()
            try:
                errors.append(frame_error(calculator, atoms, formula))
            except CalculatorError as error:
                reason = str(error)
            seconds += perf_counter() - started
        if reason is not None:
            skipped[reason] += 1
        if progress:
            progress((index + 1) / len(frames))
    return {
        **summarise(errors),
        "skipped": dict(skipped),
        "ms_per_atom": 1e3 * seconds / max(1, sum(error.n_atoms for error in errors)),
    }


def frame_error(calculator: Calculator, atoms: Atoms, formula: str) -> FrameError:
    """Compare one structure's stored labels with the calculator.

    Raises:
        CalculatorError: If the calculator refuses the structure.
    """
    wanted = labels(atoms)
    bare = atoms.copy()
    calculator.calculate(bare, ["energy", "forces", "stress"])
    got = calculator.results
    stress = got.get("stress")
    full = np.full((3, 3), np.nan) if stress is None else voigt_6_to_full_3x3_stress(stress)
    return FrameError(
        formula=formula,
        n_atoms=len(atoms),
        energy=float(got["energy"] - wanted["energy"]) / len(atoms),
        forces=float(np.abs(got["forces"] - wanted["forces"]).sum()),
        stress=float(np.abs(full - wanted["stress"]).mean()) / GPa,
    )


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
    groups = np.array([formulas.index(error.formula) for error in errors])
    table = np.array([[e.energy, e.forces, e.stress, e.n_atoms] for e in errors], dtype=np.float64)
    metrics = _metrics(table, np.ones(len(errors)))
    rng = np.random.default_rng(0)
    draws = rng.multinomial(
        len(formulas), np.full(len(formulas), 1 / len(formulas)), size=n_bootstrap
    )
    resampled = [_metrics(table, draw[groups].astype(np.float64)) for draw in draws]
    intervals = {
        f"{name}_interval": [
            float(x) for x in np.nanpercentile([row[name] for row in resampled], [2.5, 97.5])
        ]
        for name in METRICS
        if np.isfinite(metrics[name])
    }
    return {**metrics, **intervals, **counts}


def _skip(atoms: Atoms, formula: str, max_atoms: int | None, split: Split | None) -> str | None:
    if max_atoms is not None and len(atoms) > max_atoms:
        return f"more than {max_atoms} atoms"
    if split is not None and not split.holds(formula):
        return f"not in the {split.fold} fold"
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
