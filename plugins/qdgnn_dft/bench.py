"""`qdgnn bench-dft`: gaps, cohesive and formation energies and forces against published PBE values.

Gaps are computed at the lattice constants of the cited work, cohesive energies at PBE's own, as
there; without spin-orbit coupling and zero-point energies, as there. Of the perovskites no
published cohesive energy is at hand: ours are told and not judged. The formation energies of
BaTiO3 and, for comparison, MgO are those of the Materials Project without its correction of oxygen.
Spin-orbit coupling is checked on the valence band of GaAs, whose edge it raises by a third of the
splitting, magnetism on the moment of iron.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import click
from ase import Atoms
from ase.build import bulk
from rich.console import Console

from qdgnn_ase import measured
from qdgnn_dft.backend import Backend, backend_of, evaluate
from qdgnn_dft.gpaw_backend import GPAWBackend
from qdgnn_dft.record import Record
from qdgnn_dft.references import Table, derived_values, load_references, missing_references
from qdgnn_dft.settings import DFTSettings
from qdgnn_dft.store import ResultStore

Row = dict[str, Any]
TOLERANCE = 0.1
"""eV, eV/atom or Bohr magnetons."""
_STEP = 0.01
"""Å, of the finite difference of energies."""
_FORCE_TOLERANCE = 0.02
"""eV/Å."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published PBE value, the range of several, or none: then ours is told and not judged."""

    lattice: float
    """Å."""
    low: float = nan
    high: float = nan
    source: str = ""

    def deviation(self, value: float) -> float:
        """Distance of a value from the range, with sign."""
        return min(value - self.low, 0.0) + max(value - self.high, 0.0)


_BETZINGER = "Betzinger et al., Phys. Rev. B 81, 195117 (2010), FLAPW, and VASP therein"
_SHISHKIN = "Shishkin, Kresse, Phys. Rev. B 75, 235102 (2007), values as remembered"
_PAIER = "Paier et al., J. Chem. Phys. 124, 154709 (2006), values as remembered"
_LANG = "Lang et al., Phys. Lett. A 378, 290 (2014), values as remembered"
_PROJECT = "Materials Project, mp-2998"
_UNCORRECTED = (
    "Materials Project, mp-1265 and mp-2998, of 2018, less its correction of 0.70229 eV per oxygen"
)
_VURGAFTMAN = "Vurgaftman et al., J. Appl. Phys. 89, 5815 (2001), experiment"

STRUCTURES = {
    "Si": "diamond",
    "MgO": "rocksalt",
    "NaCl": "rocksalt",
    "LiF": "rocksalt",
    "BaTiO3": "perovskite",
    "CsPbI3": "perovskite",
}
GAPS: dict[str, Published] = {
    "Si": Published(lattice=5.430, low=0.62, high=0.62, source=_SHISHKIN),
    "MgO": Published(lattice=4.189, low=4.75, high=4.84, source=_BETZINGER),
    "NaCl": Published(lattice=5.569, low=5.08, high=5.20, source=_BETZINGER),
    "LiF": Published(lattice=4.010, low=9.20, high=9.20, source=_SHISHKIN),
    "BaTiO3": Published(lattice=4.036, low=1.67, high=1.67, source=_PROJECT),
    "CsPbI3": Published(lattice=6.400, low=1.48, high=1.48, source=_LANG),
}
DIRECT_GAPS: dict[str, Published] = {
    "Si": Published(lattice=5.430, low=2.56, high=2.57, source=_BETZINGER),
}
COHESIVE: dict[str, Published] = {
    "Si": Published(lattice=5.469, low=4.56, high=4.56, source=_PAIER),
    "MgO": Published(lattice=4.258, low=4.98, high=4.98, source=_PAIER),
    "NaCl": Published(lattice=5.702, low=3.10, high=3.10, source=_PAIER),
    "LiF": Published(lattice=4.068, low=4.33, high=4.33, source=_PAIER),
    "BaTiO3": Published(lattice=4.036),
    "CsPbI3": Published(lattice=6.400),
}
FORMATION: dict[str, Published] = {
    "MgO": Published(lattice=4.256, low=-2.714, high=-2.714, source=_UNCORRECTED),
    "BaTiO3": Published(lattice=4.036, low=-3.071, high=-3.071, source=_UNCORRECTED),
}

SPLITTING = Published(lattice=5.653, low=0.34, high=0.34, source=_VURGAFTMAN)
"""Of the valence band of GaAs by spin-orbit coupling, eV."""
_KITTEL = "Kittel, Introduction to Solid State Physics, experiment"
MOMENT = Published(lattice=2.866, low=2.22, high=2.22, source=_KITTEL)
"""Of iron, Bohr magnetons per atom."""


@click.command("bench-dft")
@click.option("--solid", "solids", multiple=True, type=click.Choice(list(STRUCTURES)))
@click.option("--store", default="bench-dft.db", show_default=True, help="Goes on where it was.")
@click.option("--references", type=click.Path(exists=True), help="Table of references.")
@click.option("--json", "output", type=Path, help="Write every row to this file.")
@click.option("--markdown", "table_file", type=Path, help="Write the table to this file.")
def bench_dft(
    *,
    solids: tuple[str, ...],
    store: str,
    references: str | None,
    output: Path | None,
    table_file: Path | None,
) -> None:
    """Gaps, cohesive and formation energies and forces of GPAW; exit code 1 if one is off."""
    try:
        backend_of("gpaw")
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    results = ResultStore(store)
    rows: list[Row] = []
    with Console().status("starting") as status:
        for solid in solids or tuple(STRUCTURES):
            rows += solid_rows(solid, results, references, status.update)
        status.update("GaAs: spin-orbit splitting")
        rows.append(splitting_row(results))
        status.update("Fe: magnetic moment")
        record = evaluate(bulk("Fe", a=MOMENT.lattice), _gpaw(DFTSettings(path_points=0)), results)
        moment = record.values["total_magnetic_moment"]
        rows.append(_row("Fe", "magnetic moment", moment, MOMENT, record))
        status.update("forces of distorted silicon")
        rows.append(force_row(distorted_silicon(), results))
    text = markdown(rows)
    click.echo(text)
    if output:
        document = {**measured(), "rows": rows}
        output.write_text(json.dumps(document, indent=1) + "\n")
    if table_file:
        table_file.write_text(text + "\n")
    if any(row["passed"] is False for row in rows):
        raise click.exceptions.Exit(1)


def solid_rows(
    solid: str, store: ResultStore, references: str | None, show: Callable[[str], None]
) -> list[Row]:
    """Rows of a solid's gaps and cohesive energy."""
    show(f"{solid}: gap")
    record = evaluate(crystal(solid, GAPS[solid].lattice), _gpaw(), store)
    rows = [_row(solid, "gap", record.values["band_gap"], GAPS[solid], record)]
    if solid in DIRECT_GAPS:
        direct = record.values["band_gap_direct"]
        rows.append(_row(solid, "direct gap", direct, DIRECT_GAPS[solid], record, again=True))
    only_mesh = _gpaw(DFTSettings(path_points=0))
    for quantity, published in (("cohesive energy", COHESIVE), ("formation energy", FORMATION)):
        if solid in published:
            show(f"{solid}: {quantity}")
            record = evaluate(crystal(solid, published[solid].lattice), only_mesh, store)
            value = _derived(quantity.replace(" ", "_"), record, load_references(references))
            rows.append(_row(solid, quantity, value, published[solid], record))
    return rows


def _derived(name: str, record: Record, table: Table) -> float:
    """A cohesive or formation energy.

    Raises:
        click.ClickException: If the table lacks an element.
    """
    derived = derived_values(record, table)
    if name not in derived:
        reasons = missing_references(record.atoms(), record.settings, table)
        raise click.ClickException(reasons[name])
    return derived[name]


def splitting_row(store: ResultStore) -> Row:
    """Three times what spin-orbit coupling takes away from the gap of GaAs."""
    atoms = bulk("GaAs", "zincblende", a=SPLITTING.lattice)
    plain, coupled = (
        evaluate(atoms, _gpaw(DFTSettings(path_points=0, spin_orbit=coupling)), store)
        for coupling in (False, True)
    )
    value = 3 * (plain.values["band_gap"] - coupled.values["band_gap"])
    return _row("GaAs", "spin-orbit splitting", value, SPLITTING, coupled)


def force_row(atoms: Atoms, store: ResultStore) -> Row:
    """Force on the first atom along x against a central difference of free energies.

    On a coarse mesh, of which both are functions: the cell has no symmetry left.
    """
    backend = _gpaw(DFTSettings(path_points=0, k_density=1.5))
    records = [evaluate(_moved(atoms, step), backend, store) for step in (0.0, _STEP, -_STEP)]
    plus, minus = (record.values["free_energy"] for record in records[1:])
    numerical = -(plus - minus) / (2 * _STEP)
    analytic = records[0].values["forces"][0][0]
    return {
        "solid": str(atoms.symbols),
        "quantity": "force, eV/Å",
        "lattice": None,
        "value": analytic,
        "published": [numerical, numerical],
        "source": f"central difference of {_STEP} Å",
        "deviation": analytic - numerical,
        "cutoff_ev": records[0].settings["cutoff_ev"],
        "k_mesh": records[0].settings["k_mesh"],
        "cpu_seconds": round(sum(record.provenance["cpu_seconds"] for record in records), 1),
        "passed": abs(analytic - numerical) < _FORCE_TOLERANCE,
    }


def distorted_silicon() -> Atoms:
    """The primitive cell with one atom off its site."""
    atoms = bulk("Si", a=5.469)
    atoms.positions[0] += [0.10, 0.05, 0.02]
    return atoms


def markdown(rows: Sequence[Row]) -> str:
    """Table of all rows."""
    lines = [
        "| solid | quantity | a, Å | value | published | deviation | k-mesh, cutoff eV | CPU s | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        judged = ["-", "-"]
        if row["published"]:
            low, high = row["published"]
            known = f"{low:.2f}" if low == high else f"{low:.2f}-{high:.2f}"
            judged = [known, f"{row['deviation']:+.3f}"]
        mesh = "x".join(str(n) for n in row["k_mesh"])
        lines.append(
            f"| {row['solid']} | {row['quantity']} | {row['lattice'] or '-'} | {row['value']:.3f} "
            f"| {' | '.join(judged)} | {mesh}, {row['cutoff_ev']:.0f} "
            f"| {row['cpu_seconds']} | {_VERDICTS[row['passed']]} |"
        )
    sources = sorted({row["source"] for row in rows if row["source"]})
    return "\n".join([*lines, "", f"Sources: {'; '.join(sources)}."])


_VERDICTS = {True: "ok", False: "OFF", None: "-"}


def _gpaw(settings: DFTSettings | None = None) -> Backend:
    return GPAWBackend(settings or DFTSettings())


def crystal(solid: str, lattice: float) -> Atoms:
    """Primitive cell of one of `STRUCTURES`; ``lattice`` in Å."""
    if STRUCTURES[solid] != "perovskite":
        return bulk(solid, STRUCTURES[solid], a=lattice)
    middles = [(0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5)]
    places = [(0.0, 0.0, 0.0), (0.5, 0.5, 0.5), *middles]
    return Atoms(solid, scaled_positions=places, cell=[lattice] * 3, pbc=True)


def _moved(atoms: Atoms, step: float) -> Atoms:
    moved = atoms.copy()
    moved.positions[0, 0] += step
    return moved


def _row(
    solid: str, quantity: str, value: float, published: Published, record: Any, again: bool = False
) -> Row:
    per_atom = ("cohesive energy", "formation energy")
    units = dict.fromkeys(per_atom, "eV/atom") | {"magnetic moment": "Bohr magnetons"}
    deviation = None if isnan(published.low) else published.deviation(value)
    return {
        "solid": solid,
        "quantity": f"{quantity}, {units.get(quantity, 'eV')}",
        "lattice": published.lattice,
        "value": value,
        "published": None if deviation is None else [published.low, published.high],
        "source": published.source,
        "deviation": deviation,
        "cutoff_ev": record.settings["cutoff_ev"],
        "k_mesh": record.settings["k_mesh"],
        "cpu_seconds": 0.0 if again else round(record.provenance["cpu_seconds"], 1),
        "key": record.key,
        "version": record.provenance["version"],
        "passed": None if deviation is None else abs(deviation) <= TOLERANCE,
    }
