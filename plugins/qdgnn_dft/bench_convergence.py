"""`qdgnn bench-dft-convergence`: what the defaults of cutoff and mesh leave open.

Each solid is computed at the defaults, at 1,000 eV and at half as many points again along each
axis. The deviations from the two better ones are summed, for the energy as it is and less the free
atoms' energies at the same cutoff: that is what differences of energies feel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from ase import Atoms
from rich.console import Console

from qdgnn_ase import measured
from qdgnn_dft.backend import backend_of, evaluate
from qdgnn_dft.bench import GAPS, crystal
from qdgnn_dft.gpaw_backend import GPAWBackend
from qdgnn_dft.references import free_atom
from qdgnn_dft.settings import DFTSettings
from qdgnn_dft.store import ResultStore

Row = dict[str, Any]

SOLIDS = {name: crystal(name, GAPS[name].lattice) for name in ("Si", "MgO", "NaCl")}
HIGH_CUTOFF = 1_000.0
"""eV."""
DENSER = 1.5
"""Times the default density of points."""
ENERGY_TOLERANCE, GAP_TOLERANCE = 0.010, 0.050
"""eV/atom and eV."""


@click.command("bench-dft-convergence")
@click.option("--store", default="bench-dft.db", show_default=True, help="Goes on where it was.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also writes a .md beside.")
def bench_convergence(store: str, output: Path | None) -> None:
    """Defaults against higher cutoff and denser mesh on three solids; exit code 1 if one is off."""
    try:
        backend_of("gpaw")
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    results = ResultStore(store)
    rows = []
    with Console(stderr=True).status("starting") as status:
        for name, atoms in SOLIDS.items():
            status.update(name)
            rows.append({"solid": name, **deviations(atoms, results)})
    document = {
        **measured(),
        "rows": rows,
    }
    click.echo(markdown(document))
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
        output.with_suffix(".md").write_text(markdown(document))
    if not all(row["passed"] for row in rows):
        raise click.exceptions.Exit(1)


def deviations(atoms: Atoms, store: ResultStore) -> Row:
    """Of energy, cohesive energy (eV/atom) and gap (eV): default less better, summed."""
    default = DFTSettings()
    harder = DFTSettings(cutoff_ev=HIGH_CUTOFF)
    denser = DFTSettings(k_density=DENSER * default.k_density)
    base, cutoff, mesh = (
        evaluate(atoms, GPAWBackend(settings), store) for settings in (default, harder, denser)
    )
    energies, gaps = (
        [record.values[name] for record in (base, cutoff, mesh)] for name in ("energy", "band_gap")
    )
    by_cutoff, by_mesh = ((energies[0] - other) / len(atoms) for other in energies[1:])
    atoms_by_cutoff = _free_atoms(atoms, base.settings["cutoff_ev"], store) - _free_atoms(
        atoms, HIGH_CUTOFF, store
    )
    row = {
        "cutoff_ev": base.settings["cutoff_ev"],
        "k_mesh": base.settings["k_mesh"],
        "denser_mesh": mesh.settings["k_mesh"],
        "energy_by_cutoff": by_cutoff,
        "energy_by_mesh": by_mesh,
        "energy": by_cutoff + by_mesh,
        "cohesive_energy": atoms_by_cutoff - by_cutoff - by_mesh,
        "gap": 2 * gaps[0] - gaps[1] - gaps[2],
    }
    passed = abs(row["energy"]) <= ENERGY_TOLERANCE and abs(row["gap"]) <= GAP_TOLERANCE
    return row | {"passed": passed}


def _free_atoms(atoms: Atoms, cutoff: float, store: ResultStore) -> float:
    """Mean energy of the free atoms of a structure at one cutoff, eV/atom."""
    backend = GPAWBackend(DFTSettings(cutoff_ev=cutoff, path_points=0))
    symbols = list(atoms.symbols)
    energies = {s: evaluate(free_atom(s), backend, store).values["energy"] for s in set(symbols)}
    return float(sum(energies[symbol] for symbol in symbols) / len(symbols))


def markdown(document: Mapping[str, Any]) -> str:
    """Table in meV."""
    rows: Sequence[Row] = document["rows"]
    lines = [
        f"Default settings less {HIGH_CUTOFF:.0f} eV and less a mesh {DENSER} times as dense, "
        f"{document['date']}, {document['machine']}.",
        "",
        "| solid | default | by cutoff, meV/atom | by mesh, meV/atom | energy, meV/atom "
        "| cohesive energy, meV/atom | gap, meV | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mesh = "x".join(str(n) for n in row["k_mesh"])
        shown = ("energy_by_cutoff", "energy_by_mesh", "energy", "cohesive_energy", "gap")
        numbers = " | ".join(f"{1e3 * row[name]:+.1f}" for name in shown)
        verdict = "ok" if row["passed"] else "OFF"
        default = f"{row['cutoff_ev']:.0f} eV, {mesh}"
        lines.append(f"| {row['solid']} | {default} | {numbers} | {verdict} |")
    return "\n".join(lines) + "\n"
