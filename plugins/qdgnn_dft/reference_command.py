"""`qdgnn dft-references`: the table of free atoms and elements."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from ase.data import atomic_numbers
from rich.console import Console

from qdgnn_dft.backend import CalculationError, backend_of
from qdgnn_dft.gpaw_backend import GPAWBackend
from qdgnn_dft.references import (
    Table,
    atom_energy,
    element_energy,
    free_atom,
    load_references,
    scale_of,
)
from qdgnn_dft.settings import DFTSettings
from qdgnn_dft.store import ResultStore

console = Console(markup=False)


@click.command("dft-references")
@click.argument("elements", nargs=-1, required=True)
@click.option("--output", "-o", type=Path, required=True, help="Table, *.json; is added to.")
@click.option("--store", default="references.db", show_default=True, help="Result store.")
@click.option("--backend", default="gpaw", show_default=True)
@click.option("--kind", type=click.Choice(["atoms", "elements", "both"]), default="both")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True)
def dft_references(
    elements: tuple[str, ...], *, output: Path, store: str, backend: str, kind: str, jobs: int
) -> None:
    """Energies of the free atoms and of the crystals or molecules of ELEMENTS.

    They turn total energies into cohesive and formation energies. One that fails is told, and the
    others go on.
    """
    if unknown := [symbol for symbol in elements if symbol not in atomic_numbers]:
        raise click.UsageError(f"ELEMENTS must be symbols such as Si, got {', '.join(unknown)}")
    try:
        scale = scale_of(backend_of(backend).settings(free_atom("H")))
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    kinds = tuple(_FUNCTIONS) if kind == "both" else (kind,)
    tasks = [(symbol, name) for symbol in elements for name in kinds]
    work = partial(_entry, backend=backend, store=store)
    failed = 0
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for (symbol, name), entry in zip(tasks, pool.map(work, tasks), strict=True):
            if isinstance(entry, str):
                failed += 1
                console.print(f"{symbol}, {name}: {entry}")
                continue
            table: Table = load_references(output) if output.is_file() else {}
            table.setdefault(scale, {}).setdefault(name, {})[symbol] = entry
            _write(output, table)
            console.print(f"{symbol}, {name}: {entry['energy']:.4f} eV, {entry['cpu_seconds']} s")
    if failed:
        raise click.ClickException(f"{failed} of {len(tasks)} energies are missing, see above")


_WITHOUT_LINES = GPAWBackend(DFTSettings(path_points=0))
_FUNCTIONS = {"atoms": atom_energy, "elements": element_energy}


def _entry(task: tuple[str, str], backend: str, store: str) -> dict[str, Any] | str:
    """Entry of the table, or why there is none; GPAW's bands are not needed."""
    symbol, name = task
    chosen = _WITHOUT_LINES if backend == "gpaw" else backend_of(backend)
    try:
        return _FUNCTIONS[name](symbol, chosen, ResultStore(store))
    except (CalculationError, ValueError) as error:
        return str(error)


def _write(path: Path, table: Table) -> None:
    """Write the table to a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)
