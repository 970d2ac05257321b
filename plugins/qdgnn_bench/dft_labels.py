"""`qdgnn bench-dft-labels`: label a set by DFT, compare with its values, see what the labels teach.

Structures of `ELEMENTS` are drawn by a hash of the structure, those with a gap first: metals teach
little about gaps. A plane-wave calculation of each gives formation energy and gap, beside those of
the set; all energies, those of the elements too, have the same cutoff, whose error cancels. The
set's energies may have other references (perov5's are competing phases): they are compared after
an offset for each element too, fitted to other formulas, beside a fit of elements alone. Then
gradient boosting learns the set's gap, in cross-validation grouped by formula, from composition
(T0), tight binding (T1), the calculation (T3) and, as a control, the calculation of another
structure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms
from rich.console import Console

from qdgnn_ase import LabelledStructure, measured, read_labelled
from qdgnn_bench.dft_labels_study import Labelled, markdown, study
from qdgnn_bench.t1_experiment import FOLDS
from qdgnn_dft.backend import CalculationError, backend_of, evaluate
from qdgnn_dft.gpaw_backend import GPAWBackend
from qdgnn_dft.record import Record, record_key
from qdgnn_dft.references import element_energy
from qdgnn_dft.settings import DFTSettings
from qdgnn_dft.store import ResultStore

ELEMENTS = (
    *("Li", "Na", "K", "Rb", "Be", "Mg", "Ca", "Sr", "Ba", "Sc", "Y", "Ti", "Zr", "Hf", "Nb", "Ta"),
    *("Cu", "Ag", "Au", "Zn", "Cd", "Al", "In", "Si", "Ge", "Sn", "Pb", "As", "Sb", "Bi"),
    *("N", "O", "F", "S"),
)
"""Not magnetic, with a crystal of few atoms or a molecule as reference."""
SETTINGS = DFTSettings(cutoff_ev=500.0, k_density=2.2, path_points=0)
"""An even mesh of 4 x 4 x 4 points for a cubic perovskite holds Gamma, X, M and R."""
BACKEND = GPAWBackend(SETTINGS)
REFERENCE = GPAWBackend(DFTSettings(cutoff_ev=SETTINGS.cutoff_ev, path_points=0))
"""Metals need denser meshes."""


@click.command("bench-dft-labels")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--energy", required=True, metavar="COLUMN", help="Formation energy, eV/atom.")
@click.option("--gap", required=True, metavar="COLUMN", help="Band gap, eV.")
@click.option("-n", "n_rows", default=300, show_default=True, help="Structures to label.")
@click.option("--store", required=True, help="Result store; goes on where it was.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seeds", default=5, show_default=True, help="Cross-validations that are averaged.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also writes a .md beside.")
def dft_labels(
    file: Path,
    *,
    energy: str,
    gap: str,
    n_rows: int,
    store: str,
    jobs: int,
    seeds: int,
    output: Path | None,
) -> None:
    """Label structures of FILE with GPAW; compare with its columns; ablation of T0, T1 and T3."""
    try:
        backend_of("gpaw")
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    rows = chosen(read_labelled(file, {"formation_energy": energy, "band_gap": gap}), n_rows)
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(jobs, mp_context=context) as pool,
        Console(stderr=True).status("elements") as status,
    ):
        energies = list(pool.map(partial(_element, store=store), ELEMENTS))
        found = pool.map(partial(_record, store=store), [row.atoms for row in rows])
        labelled, failures = sorted_out(rows, found, status.update)
    if len(labelled) < FOLDS:
        reasons = "; ".join(f"{formula}: {reason}" for formula, reason in failures.items())
        raise click.ClickException(
            f"the study needs {FOLDS} labelled structures, got {len(labelled)}; {reasons}; what "
            f"was labelled is in {store}"
        )
    document = {
        "file": file.name,
        "columns": {"formation_energy": energy, "band_gap": gap},
        **measured(),
        "k_density": SETTINGS.k_density,
        "failures": failures,
        **study(labelled, dict(zip(ELEMENTS, energies, strict=True)), seeds),
    }
    click.echo(markdown(document))
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
        output.with_suffix(".md").write_text(markdown(document))


def chosen(rows: Sequence[LabelledStructure], n: int) -> list[LabelledStructure]:
    """Rows of `ELEMENTS` with both labels, those with a gap first.

    Raises:
        click.UsageError: If there are fewer than folds.
    """
    usable = [
        row
        for row in rows
        if set(row.atoms.symbols) <= set(ELEMENTS) and np.isfinite(list(row.labels.values())).all()
    ]
    if len(usable) < FOLDS or n < FOLDS:
        raise click.UsageError(
            f"-n must be at least {FOLDS} and FILE hold so many labelled structures of "
            f"{', '.join(ELEMENTS)}, got {n} and {len(usable)}"
        )
    usable.sort(key=lambda row: (row.labels["band_gap"] == 0, record_key(row.atoms, {})))
    return usable[:n]


def sorted_out(
    rows: Sequence[LabelledStructure], found: Iterable[Record | str], show: Callable[[str], None]
) -> tuple[Labelled, dict[str, str]]:
    """Rows with their records, and the reasons of those that failed by formula."""
    labelled: Labelled = []
    failures = {}
    for row, record in zip(rows, found, strict=True):
        if isinstance(record, str):
            failures[str(row.atoms.symbols)] = record
        else:
            labelled.append((row, record))
        show(f"{len(labelled)} of {len(rows)} labelled, {len(failures)} failed")
    return labelled, failures


def _element(symbol: str, store: str) -> dict[str, Any]:
    return element_energy(symbol, REFERENCE, ResultStore(store))


def _record(atoms: Atoms, store: str) -> Record | str:
    try:
        return evaluate(atoms, BACKEND, ResultStore(store))
    except CalculationError as error:
        return str(error)
