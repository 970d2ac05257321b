"""`qdgnn dft-references`: the table of free atoms and elements."""

from __future__ import annotations

import json
from pathlib import Path

import click
from ase.data import atomic_numbers
from rich.console import Console

from qdgnn_dft.backend import backend_of
from qdgnn_dft.references import (
    Table,
    atom_energy,
    element_energy,
    free_atom,
    load_references,
    scale_of,
)
from qdgnn_dft.store import ResultStore

console = Console(markup=False)


@click.command("dft-references")
@click.argument("elements", nargs=-1, required=True)
@click.option("--output", "-o", type=Path, required=True, help="Table, *.json; is added to.")
@click.option("--store", default="references.db", show_default=True, help="Result store.")
@click.option("--backend", default="gpaw", show_default=True)
@click.option("--kind", type=click.Choice(["atoms", "elements", "both"]), default="both")
def dft_references(
    elements: tuple[str, ...], output: Path, store: str, backend: str, kind: str
) -> None:
    """Energies of the free atoms and of the crystals or molecules of ELEMENTS.

    They turn total energies into cohesive and formation energies.
    """
    if unknown := [symbol for symbol in elements if symbol not in atomic_numbers]:
        raise click.UsageError(f"ELEMENTS must be symbols such as Si, got {', '.join(unknown)}")
    try:
        chosen = backend_of(backend)
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    results = ResultStore(store)
    functions = {"atoms": atom_energy, "elements": element_energy}
    for symbol in elements:
        for name, function in functions.items():
            if kind not in (name, "both"):
                continue
            entry = function(symbol, chosen, results)
            table: Table = load_references(output) if output.is_file() else {}
            scale = table.setdefault(scale_of(chosen.settings(free_atom(symbol))), {})
            scale.setdefault(name, {})[symbol] = entry
            _write(output, table)
            console.print(f"{symbol}, {name}: {entry['energy']:.4f} eV, {entry['cpu_seconds']} s")


def _write(path: Path, table: Table) -> None:
    """Write the table to a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)
