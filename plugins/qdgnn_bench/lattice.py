"""Lattice parameters: relax crystals that DFT has relaxed, and see how far they go.

The reference is the cell given. Doing nothing would score 0, so an error here tells of a wrong
equilibrium, never of a starting point that was not reached. A run that fails counts as an infinite
error; one that stops early counts as it is.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from matplotlib.axes import Axes
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase import Split, read_structures, reduced_formula, relax

Row = dict[str, Any]
FMAX = 0.01
"""eV/Å. The filter divides the virial by the number of atoms: 0.05 eV/Å would leave a pressure of
0.5 GPa on 15 Å^3 per atom, worth 0.3 % of a length at a bulk modulus of 50 GPa."""
STEPS = 500
METRICS = ("lengths", "volume")
FAILURES = (CalculatorError, ArithmeticError, RuntimeError, ValueError, np.linalg.LinAlgError)
"""What a potential that runs away makes calculators, filters and fits raise."""


def select(path: str, fold: Split, n: int, max_atoms: int, seed: int = 0) -> list[Atoms]:
    """``n`` structures of a file in random order, of at most ``max_atoms`` atoms and in the fold.

    Raises:
        ValueError: If there are none.
    """
    frames = [atoms for atoms in read_structures(path) if len(atoms) <= max_atoms]
    order = np.random.default_rng(seed).permutation(len(frames))
    chosen: list[Atoms] = []
    for index in order:
        if len(chosen) == n:
            break
        if fold.holds(reduced_formula(frames[index])):
            chosen.append(frames[index])
    if not chosen:
        raise ValueError(
            f"{path} must hold structures of the {fold.fold} fold with at most {max_atoms} atoms, "
            "got none"
        )
    return chosen


def lattice_error(atoms: Atoms, calculator: Calculator) -> Row:
    """Relax a copy of ``atoms``, cell included, and compare the cells.

    Returns:
        lengths (mean relative error of a, b, c) and volume (relative error), both None after a
        failure; converged; same, whether pymatgen still sees the same structure; CPU seconds.
    """
    copy = atoms.copy()
    copy.calc = calculator
    row: Row = {"formula": reduced_formula(atoms), "n_atoms": len(atoms)}
    row |= {"lengths": None, "volume": None, "converged": False, "same": False, "failure": ""}
    started = time.process_time()
    try:
        row["converged"] = relax(copy, fmax=FMAX, steps=STEPS)
        lengths = np.abs(copy.cell.lengths() / atoms.cell.lengths() - 1)
        volume = abs(copy.get_volume() / atoms.get_volume() - 1)
        row |= {"lengths": float(lengths.mean()), "volume": volume, "same": is_same(atoms, copy)}
    except FAILURES as error:
        row["failure"] = f"{type(error).__name__}: {error}"
    return row | {"seconds": time.process_time() - started}


def is_same(atoms: Atoms, relaxed: Atoms) -> bool:
    """Whether pymatgen's StructureMatcher, which scales volumes, maps one onto the other."""
    pair = [AseAtomsAdaptor.get_structure(a) for a in (atoms, relaxed)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(StructureMatcher().fit(*pair))


def summarise(rows: Sequence[Row]) -> Row:
    """Medians of relative errors with 95 % bootstrap intervals, and counts."""
    summary: Row = {
        "structures": len(rows),
        "failed": sum(bool(row["failure"]) for row in rows),
        "not_converged": sum(not row["converged"] and not row["failure"] for row in rows),
        "left": sum(not row["same"] and not row["failure"] for row in rows),
        "seconds": sum(row["seconds"] for row in rows),
    }
    for name in METRICS:
        values = [np.inf if row[name] is None else row[name] for row in rows]
        summary[name], summary[f"{name}_interval"] = median(values)
    return summary


def median(values: Sequence[float], n_bootstrap: int = 2_000) -> tuple[float, list[float]]:
    """Median and its 95 % bootstrap interval; infinite values may be among them."""
    array: NDArray[np.float64] = np.array(values, dtype=np.float64)
    draws = np.random.default_rng(0).integers(len(array), size=(n_bootstrap, len(array)))
    medians = np.sort(np.median(array[draws], axis=1))  # np.percentile would subtract infinities
    bounds = [medians[round(q * (n_bootstrap - 1))] for q in (0.025, 0.975)]
    return float(np.median(array)), [float(bound) for bound in bounds]


def percent(value: float, interval: Sequence[float]) -> str:
    """A share and its interval as text in %."""
    low, high = (100 * bound for bound in interval)
    return f"{100 * value:.2f} ({low:.2f}-{high:.2f})"


def markdown(summaries: dict[str, Row]) -> str:
    """Table with one row per potential."""
    lines = [
        "| potential | structures | a, b, c: median error, % | volume, % | not converged | "
        "left the structure | failed | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in summaries.items():
        errors = " | ".join(percent(row[m], row[f"{m}_interval"]) for m in METRICS)
        counts = f"{row['not_converged']} | {row['left']} | {row['failed']}"
        lines.append(
            f"| {name} | {row['structures']} | {errors} | {counts} | {row['seconds']:.0f} |"
        )
    return "\n".join([*lines, "", "The start is the DFT cell: doing nothing would score 0."])


def draw(axes: Axes, rows: dict[str, list[Row]]) -> None:
    """Share of structures within an error of the lengths, one curve per potential."""
    for name, mine in rows.items():
        errors = np.sort([np.inf if row["lengths"] is None else row["lengths"] for row in mine])
        share = np.arange(1, len(errors) + 1) / len(errors)
        finite = np.isfinite(errors)
        axes.step(100 * errors[finite], 100 * share[finite], where="post", label=name)
    axes.axvline(2.0, color="0.6", linestyle=":")
    axes.set(xscale="log", xlabel="mean error of a, b, c (%)", ylabel="structures (%)")
    axes.legend()
