"""A potential's phonons against published ones: reading, comparing, tables."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.stats import spearmanr

from qdgnn_ase import Split, reduced_formula
from qdgnn_phonons.bench.compounds import Quantity

Row = dict[str, Any]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reference:
    """A published set."""

    quantity: Quantity
    file: str
    """Inside the folder of the data."""
    column: str
    key: str
    """Column that names a compound."""
    unit: str
    per_atom: bool
    """The column is per cell and shall be divided by the atoms."""
    logarithm: bool
    """Values span decades: compared by rank and by the logarithm."""


REFERENCES = (
    Reference(
        "heat_capacity",
        "heatcap_alexandria/heatcap_alexandria.jsonl.gz",
        "heat_capacity_300K",
        "material_id",
        "J/(mol K)",
        per_atom=True,
        logarithm=False,
    ),
    Reference(
        "last_peak",
        "phonons_matbench/phonons_matbench.jsonl.gz",
        "last_phdos_peak_cm-1",
        "matbench_id",
        "cm^-1",
        per_atom=False,
        logarithm=False,
    ),
    Reference(
        "conductivity",
        "kappa103/kappa103.jsonl.gz",
        "kappa_dft_W_mK_300K",
        "material_id",
        "W/(m K)",
        per_atom=False,
        logarithm=True,
    ),
)
"""Harmonic PBE (Alexandria); DFPT with PBEsol (Petretto 2018); phono3py with PBE (Pota 2024)."""


def choose(
    reference: Reference, folder: str | Path, n: int, max_atoms: int, seed: int = 0
) -> tuple[dict[str, Atoms], dict[str, float]]:
    """Compounds and their published values by key: n at random among those small enough.

    Raises:
        FileNotFoundError: If the file is missing.
    """
    structures, values = {}, {}
    for atoms in _read(Path(folder, reference.file)):
        if len(atoms) <= max_atoms:
            key = str(atoms.info[reference.key])
            structures[key] = atoms
            values[key] = atoms.info[reference.column] / (len(atoms) if reference.per_atom else 1)
    order = np.random.default_rng(seed).permutation(len(structures))[:n]
    keys = [list(structures)[index] for index in order]
    return {key: structures[key] for key in keys}, {key: values[key] for key in keys}


def compare(
    reference: Reference, rows: Sequence[Row], values: dict[str, float], unseen: Sequence[bool]
) -> Row:
    """Errors of the computed rows.

    Args:
        reference: The set.
        rows: Output of `run_tasks`.
        values: Published values by key.
        unseen: Whether the potential's training has not seen the composition, per row.
    """
    found = [reference.quantity in row for row in rows]
    good = [row for row in rows if reference.quantity in row]
    summary: Row = {
        "quantity": reference.quantity,
        "unit": reference.unit,
        "asked": len(rows),
        "computed": len(good),
        "with_imaginary_modes": sum(not row["is_stable"] for row in good),
        "failures": _reasons(rows),
    }
    if len(good) < 3:
        return summary
    got = np.array([row[reference.quantity] for row in good])
    wanted = np.array([values[row["key"]] for row in good])
    new = np.array([mark for mark, here in zip(unseen, found, strict=True) if here])
    stable = np.array([row["is_stable"] for row in good])
    parts = {"all": np.ones(len(good), dtype=bool), "stable": stable, "unseen": new}
    return summary | {
        name: _errors(got[chosen], wanted[chosen], logarithm=reference.logarithm)
        for name, chosen in parts.items()
        if chosen.sum() >= 3
    }


def _errors(got: Array, wanted: Array, *, logarithm: bool) -> Row:
    rank = spearmanr(got, wanted).statistic
    if logarithm:
        got, wanted = np.log10(got), np.log10(wanted)
    error = got - wanted
    return {
        "n": len(got),
        "mae": float(np.abs(error).mean()),
        "mae_interval": _interval(np.abs(error)),
        "mean_error": float(error.mean()),
        "median_absolute_error": float(np.median(np.abs(error))),
        "mae_of_median": float(np.abs(wanted - np.median(wanted)).mean()),
        "scale": float((got * wanted).sum() / (wanted**2).sum()),
        "spearman": float(rank),
    }


def _interval(errors: Array) -> list[float]:
    """95 % bootstrap interval of the mean over compounds."""
    draws = np.random.default_rng(0).integers(len(errors), size=(1_000, len(errors)))
    low, high = np.percentile(errors[draws].mean(axis=1), [2.5, 97.5])
    return [float(low), float(high)]


def _reasons(rows: Sequence[Row]) -> dict[str, int]:
    """Kinds of failure and how often each occurred."""
    counts: dict[str, int] = {}
    for row in rows:
        if "failure" in row:
            kind = row["failure"].split("(")[0]
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def unseen_formulas(structures: dict[str, Atoms], fold: Split) -> list[bool]:
    """Whether each structure's composition is in the test fold of the potential."""
    return [fold.holds(reduced_formula(atoms)) for atoms in structures.values()]


def markdown(summaries: Sequence[Row]) -> str:
    """Table of the errors."""
    lines = [
        "| quantity | compounds | computed | imaginary modes | of these | n | MAE | "
        "MAE of the median | mean error | scale | Spearman |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summaries:
        unit = "log10" if row["quantity"] == "conductivity" else row["unit"]
        head = f"{row['asked']} | {row['computed']} | {row['with_imaginary_modes']}"
        for part in ("all", "stable", "unseen"):
            if part in row:
                e = row[part]
                low, high = e["mae_interval"]
                lines.append(
                    f"| {row['quantity']} | {head} | {part} | {e['n']} | {e['mae']:.3g} "
                    f"({low:.3g}-{high:.3g}) {unit} | {e['mae_of_median']:.3g} | "
                    f"{e['mean_error']:.3g} | {e['scale']:.2f} | {e['spearman']:.2f} |"
                )
    return "\n".join(lines) + "\n"


def _read(path: Path) -> list[Atoms]:
    """Crystals of a JSON lines file; rows without a structure (null) are left out."""
    crystal = ("lattice", "species", "frac_coords")
    frames = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["species"]:
                cell, species, scaled = (row.pop(name) for name in crystal)
                frames.append(
                    Atoms(species, cell=cell, scaled_positions=scaled, pbc=True, info=row)
                )
    return frames
