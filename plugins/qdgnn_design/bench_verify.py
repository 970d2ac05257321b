"""The case study's check by DFT: GPAW beside the models, where it is installed.

At the geometry that the default potential relaxed, the gap of the same functional that the property
model learned (PBE) stands beside the model's; forces and pressure of DFT there say how good that
geometry is. The start goes along as a control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from ase.formula import Formula

from qdgnn_design.bench_statistics import table_lines
from qdgnn_design.run import DesignResult

if TYPE_CHECKING:
    from qdgnn_dft import Backend, ResultStore

Row = dict[str, Any]

K_DENSITY = 2.2
"""Points per Å^-1 of reciprocal length (2 pi included)."""


@dataclass(frozen=True, slots=True)
class Relaxed:
    """A structure as the potential relaxed it."""

    name: str
    """Rank of a candidate, or that it is the start."""
    atoms: Atoms
    band_gap: float
    """By the property model, eV."""


def best_relaxed(result: DesignResult, n: int = 2) -> list[Relaxed]:
    """The best candidates that pass the filter, those that meet all targets first."""
    passed = [
        Relaxed(str(rank), ranked.relaxed, ranked.relaxed_values.values["band_gap"])
        for rank, ranked in sorted(
            enumerate(result.candidates, start=1), key=lambda pair: not pair[1].outcome.hit
        )
        if ranked.verdict.passed and ranked.relaxed is not None and ranked.relaxed_values
    ]
    return passed[:n]


def verification(structures: Sequence[Relaxed], out: Path) -> Row:
    """DFT of each, kept in ``out / "dft.db"``; or what to do where GPAW is not installed."""
    from qdgnn_dft import ResultStore

    try:
        backend = gpaw()
    except ImportError as error:
        return {"missing": str(error)}
    store = ResultStore(out / "dft.db")
    return {"rows": [_checked(each, backend, store, out / "dft.logs") for each in structures]}


def gpaw() -> Backend:
    """Plane waves, PBE, the gap over a mesh that holds the zone boundary.

    Raises:
        ImportError: If GPAW is not installed; it says what to do.
    """
    from qdgnn_dft import DFTSettings, backend_of
    from qdgnn_dft.gpaw_backend import GPAWBackend

    backend_of("gpaw")
    return GPAWBackend(DFTSettings(k_density=K_DENSITY, path_points=0))


def verification_lines(document: Row) -> list[str]:
    """The check as a sentence and a table."""
    if "missing" in document:
        return ["Not verified: GPAW is not installed (`make dft` brings it).", ""]
    heads = ["", "formula", "band gap: model (eV)", "DFT (eV)", "largest force (eV/Å)"]
    heads += ["pressure (GPa)", "cutoff (eV), mesh", "CPU minutes"]
    return [
        "The start and the best candidates that pass the filter by DFT (GPAW, PBE, "
        f"{K_DENSITY:g} points per Å⁻¹, gap over the mesh) at the geometry that the default "
        "potential relaxed; forces and pressure would be 0 had DFT relaxed it.",
        "",
        *table_lines(heads, [_cells(row) for row in document["rows"]]),
        "",
    ]


def _checked(each: Relaxed, backend: Backend, store: ResultStore, logs: Path) -> Row:
    """Model and DFT of one structure, or why DFT has no result."""
    from qdgnn_dft import CalculationError, RefusedError, evaluate

    formula = str(each.atoms.symbols)
    row = {"name": each.name, "formula": formula, "band_gap_model": each.band_gap}
    try:
        record = evaluate(each.atoms, backend, store, logs / f"{each.name}_{formula}.txt")
    except (CalculationError, RefusedError) as error:
        return row | {"failure": str(error)}
    values = record.values
    return row | {
        "band_gap_dft": values["band_gap"],
        "force": float(np.linalg.norm(values["forces"], axis=1).max()),
        "pressure_gpa": -float(np.mean(values["stress"][:3])) / units.GPa,
        "settings": dict(record.settings),
        "version": record.provenance["version"],
        "cpu_seconds": record.provenance["cpu_seconds"],
    }


def _cells(row: Row) -> list[str]:
    formula = Formula(row["formula"]).format("metal")
    head = [row["name"], formula, f"{row['band_gap_model']:.2f}"]
    if "failure" in row:
        return [*head, row["failure"], *[""] * 4]
    mesh = " x ".join(str(n) for n in row["settings"]["k_mesh"])
    return [
        *head,
        f"{row['band_gap_dft']:.2f}",
        f"{row['force']:.2f}",
        f"{row['pressure_gpa']:+.1f}",
        f"{row['settings']['cutoff_ev']:g}, {mesh}",
        f"{row['cpu_seconds'] / 60:.0f}",
    ]
