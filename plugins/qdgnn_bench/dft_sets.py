"""Published DFT sets as training frames on the energy scale of a model.

``python -m qdgnn_bench.dft_sets MODEL OUTPUT FILE...`` takes the FILEs of one set. Sets differ in
pseudopotentials and cutoffs, which shifts their energies by a constant per element: the part of
(label - model) that is linear in the composition is taken off the labels. What is left is another
method or another error; where it is large the energies are dropped, forces and stress are kept.

The order of the shear components of a stress in VASP's kbar differs between published files of
even one set; it is the one of six that agrees with the model, by a clear margin.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import ase.io
import click
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa
from numpy.typing import NDArray

from qdgnn_ase import (
    ExtrapolationWarning,
    QDGNNCalculator,
    composition_matrix,
    fit_element_energies,
    fold_of,
    labels,
    read_structures,
    reduced_formula,
)

Array = NDArray[np.float64]
Results = Sequence[dict[str, Any]]

MAX_RESIDUAL = 0.05
"""Mean absolute energy error after the fit, eV/atom, above which a set's energies are dropped."""
_KBAR = -0.1 * GPa
"""VASP's stress is in kbar with compression positive."""
_MARGIN = 0.1
"""By which the correlation of the best shear order must exceed the second's."""
_SHEARS = [list(order) for order in permutations((3, 4, 5))]


def stress_from_kbar(kbar: Array, predicted: Array) -> tuple[Array, list[str]]:
    """Stress in ASE's order, sign and unit, and the shear order that was found.

    Args:
        kbar: (n, 6), xx yy zz and three shears in an unknown order; compression positive.
        predicted: (n, 6), a model's stress in eV/Å^3, tension positive, xx yy zz yz xz xy.

    Raises:
        ValueError: If no order agrees clearly better with the model than the others.
    """
    stress = _KBAR * kbar
    ranked = sorted(
        ((_correlation(stress[:, order], predicted[:, 3:]), order) for order in _SHEARS),
        reverse=True,
    )
    (best, order), (second, _) = ranked[:2]
    if not best >= second + _MARGIN:
        raise ValueError(
            "one shear order must agree clearly with the model, got correlations "
            f"{[round(value, 2) for value, _ in ranked]}; take more frames, or another sign or unit"
        )
    names = dict(zip(order, ("yz", "xz", "xy"), strict=True))
    return stress[:, [0, 1, 2, *order]], [names[column] for column in (3, 4, 5)]


def on_scale(
    frames: Sequence[Atoms], predictions: Results, max_residual: float = MAX_RESIDUAL
) -> tuple[list[Atoms], dict[str, Any]]:
    """Frames with energies on the scale of a model, or without, and the figures of the set.

    Args:
        frames: One set, labelled.
        predictions: The model's results for them.
        max_residual: See `MAX_RESIDUAL`.

    Raises:
        ValueError: If no energy is known, or the stress has the wrong sign.
    """
    wanted = [labels(atoms) for atoms in frames]
    composition = composition_matrix([atoms.numbers for atoms in frames])
    energies = np.array([float(row["energy"]) for row in wanted])
    excess = energies - np.array([row["energy"] for row in predictions])
    known = np.isfinite(excess)
    shift = fit_element_energies(composition[known], excess[known])
    residual = (excess - composition @ shift)[known] / composition[known].sum(axis=1)
    mae = float(np.abs(residual).mean())
    kept = mae <= max_residual
    on_model = energies - composition @ shift if kept else np.full(len(frames), np.nan)
    moved = [
        labelled(atoms, energy, row["forces"], full_3x3_to_voigt_6_stress(row["stress"]))
        for atoms, energy, row in zip(frames, on_model, wanted, strict=True)
    ]
    elements = np.flatnonzero(composition.any(axis=0))
    return moved, {
        "shift_ev": {chemical_symbols[z]: float(shift[z]) for z in elements},
        "energy_residual_mae": mae,
        "energies_kept": kept,
        **_checked(wanted, predictions),
    }


def labelled(atoms: Atoms, energy: float, forces: Array, stress: Array) -> Atoms:
    """Bare copy with those labels that are finite; eV, eV/Å, eV/Å^3 (6,)."""
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    values: dict[str, Any] = {"energy": float(energy), "forces": forces, "stress": stress}
    known = {name: value for name, value in values.items() if np.isfinite(value).all()}
    bare.calc = SinglePointCalculator(bare, **known)
    return bare


def _checked(wanted: Results, predictions: Results) -> dict[str, Any]:
    """How forces and stress agree with the model."""
    empty = np.full(6, np.nan)
    stress = _agreement(
        np.array([full_3x3_to_voigt_6_stress(row["stress"]) for row in wanted]),
        np.array([row.get("stress", empty) for row in predictions]),
    )
    if stress is not None and stress["correlation"] < 0:
        raise ValueError(
            "stress must have the model's sign (tension positive), got a correlation of "
            f"{stress['correlation']:.2f}; check sign, unit and order of the labels"
        )
    forces, from_model = (
        np.concatenate([row["forces"] for row in rows]) for rows in (wanted, predictions)
    )
    return {
        "forces_max": float(np.nanmax(np.abs(forces))),
        "forces": _agreement(forces, from_model),
        "stress": stress,
    }


def _agreement(wanted: Array, got: Array) -> dict[str, float] | None:
    """Correlation, slope of predicted on label, mean absolute difference; None without labels."""
    known = np.isfinite(wanted) & np.isfinite(got)
    x, y = wanted[known], got[known]
    correlation = _correlation(x, y)
    if not np.isfinite(correlation):
        return None
    return {
        "correlation": correlation,
        "slope": float(correlation * y.std() / x.std()),
        "mae": float(np.abs(x - y).mean()),
    }


def _correlation(x: Array, y: Array) -> float:
    """Pearson's; NaN where one of them does not vary."""
    varies = x.size > 1 and x.std() > 0 and y.std() > 0
    return float(np.corrcoef(x.ravel(), y.ravel())[0, 1]) if varies else np.nan


def _sample(path: str, limit: int | None, seed: int) -> list[Atoms]:
    """At most ``limit`` random frames of a file, in its order."""
    frames = read_structures(path)
    chosen = np.random.default_rng(seed).permutation(len(frames))[:limit]
    return [frames[index] for index in sorted(chosen)]


def _with_stress(
    frames: Sequence[Atoms], predictions: Results, key: str
) -> tuple[list[Atoms], list[str]]:
    """Frames with the stress that ``info[key]`` holds in kbar, and its shear order."""
    if missing := sum(key not in atoms.info for atoms in frames):
        raise ValueError(f"every frame must hold {key!r} in its info, {missing} do not")
    kbar = np.array([atoms.info[key] for atoms in frames], dtype=np.float64)
    stresses, order = stress_from_kbar(kbar, np.array([row["stress"] for row in predictions]))
    values = [labels(atoms) for atoms in frames]
    return [
        labelled(atoms, float(row["energy"]), row["forces"], stress)
        for atoms, row, stress in zip(frames, values, stresses, strict=True)
    ], order


@click.command()
@click.argument("model")
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--limit", type=click.IntRange(min=1), help="Random frames taken of each file.")
@click.option("--kbar-key", help="Info entry with VASP's stress in kbar, compression positive.")
@click.option("--seed", default=0, show_default=True)
def main(
    *,
    model: str,
    output: Path,
    files: tuple[str, ...],
    limit: int | None,
    kbar_key: str | None,
    seed: int,
) -> None:
    """Put the FILEs of one set on the energy scale of MODEL: OUTPUT (extxyz) and OUTPUT.json."""
    calculator = QDGNNCalculator(model)
    frames: list[Atoms] = []
    predictions: list[dict[str, Any]] = []
    rows = []
    for name in files:
        some = _sample(name, limit, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)
            results = calculator.predict_batch(some)
        order = None
        if kbar_key is not None:
            some, order = _with_stress(some, results, kbar_key)
        digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        rows.append({"name": Path(name).name, "sha256": digest, "shear_order": order})
        frames += some
        predictions += results
    moved, figures = on_scale(frames, predictions)
    folds = [fold_of(reduced_formula(atoms)) for atoms in frames]
    report = {
        "model": Path(model).name,
        "files": rows,
        "limit": limit,
        "seed": seed,
        "frames": len(frames),
        "folds": {fold: folds.count(fold) for fold in ("train", "val", "test")},
        **figures,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(output, moved, format="extxyz")
    text = json.dumps(report, indent=1)
    output.with_name(f"{output.name}.json").write_text(text + "\n")
    click.echo(text)


if __name__ == "__main__":
    main()
