"""`qdgnn bench-md`: energy drift of constant-energy runs, and hot runs that must not explode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from rich.console import Console
from rich.table import Table

from qdgnn_ase import measured, molecular_dynamics, relax
from qdgnn_bench.argyrodite import argyrodite
from qdgnn_bench.diffusion import load_calculator

Row = dict[str, Any]


def nve_drift(atoms: Atoms, temperature: float, time_ps: float, timestep_fs: float = 1.0) -> Row:
    """Slope of a line through the total energy of a constant-energy run.

    Args:
        atoms: Relaxed cell with a calculator. Momenta are drawn at twice the temperature: half of
            the kinetic energy goes into the potential.
        temperature: Mean temperature to expect, K.
        time_ps: Length of the run, ps.
        timestep_fs: fs.

    Returns:
        drift in meV/atom/ps, its fluctuation about the line in meV/atom, mean temperature in K.
    """
    rows = molecular_dynamics(
        atoms,
        temperature=2 * temperature,
        steps=round(1e3 * time_ps / timestep_fs),
        timestep_fs=timestep_fs,
        ensemble="nve",
    )
    time = np.array([row["time_ps"] for row in rows])
    energy = 1e3 * np.array([row["total"] for row in rows]) / len(atoms)
    slope, offset = np.polyfit(time, energy, 1)
    return {
        "system": f"{atoms.get_chemical_formula()} ({len(atoms)} atoms)",
        "ensemble": "nve",
        "time_ps": time_ps,
        "timestep_fs": timestep_fs,
        "temperature": float(np.mean([row["temperature"] for row in rows])),
        "drift_mev_atom_ps": float(slope),
        "fluctuation_mev_atom": float(np.std(energy - slope * time - offset)),
    }


def hot_run(atoms: Atoms, temperature: float, time_ps: float) -> Row:
    """Constant-temperature run; ``survived`` is False if it exploded or atoms came too close."""
    try:
        rows = molecular_dynamics(atoms, temperature=temperature, steps=round(1e3 * time_ps))
    except (FloatingPointError, RuntimeError) as error:
        return _hot_row(atoms, time_ps, float("nan"), str(error))
    return _hot_row(atoms, time_ps, float(np.mean([row["temperature"] for row in rows])), "")


def _hot_row(atoms: Atoms, time_ps: float, temperature: float, failure: str) -> Row:
    return {
        "system": f"{atoms.get_chemical_formula()} ({len(atoms)} atoms)",
        "ensemble": "nvt",
        "time_ps": time_ps,
        "temperature": temperature,
        "survived": not failure,
        "failure": failure,
    }


def salt() -> Atoms:
    """NaCl, 64 atoms."""
    return bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)


def hot_cells() -> list[Atoms]:
    """Five cells of different bonding: ionic, covalent, metallic, oxide, perovskite."""
    perovskite = Atoms(
        "SrTiO3",
        scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)],
        cell=[3.905] * 3,
        pbc=True,
    )
    return [
        bulk("LiF", "rocksalt", a=4.03, cubic=True).repeat((2, 2, 1)),
        bulk("Si", cubic=True).repeat((2, 2, 1)),
        bulk("Cu", cubic=True).repeat(2),
        bulk("MgO", "rocksalt", a=4.21, cubic=True).repeat((2, 2, 1)),
        perovskite.repeat(2),
    ]


def run(calculator: Calculator, nve_ps: float, hot_ps: float) -> list[Row]:
    """NVE of NaCl at 300 K (1 fs) and of Li6PS5Cl at 600 K (2 fs), five hot cells at 1000 K."""
    crystal, conductor = salt(), argyrodite()
    crystal.calc = conductor.calc = calculator
    relax(conductor, cell=False)
    rows = [nve_drift(crystal, 300.0, nve_ps), nve_drift(conductor, 600.0, nve_ps, 2.0)]
    for cell in hot_cells():
        cell.calc = calculator
        rows.append(hot_run(cell, 1000.0, hot_ps))
    return rows


@click.command()
@click.option("--model", default="default", show_default=True)
@click.option("--nve-ps", default=20.0, show_default=True, help="Length of each NVE run, ps.")
@click.option("--hot-ps", default=10.0, show_default=True, help="Length of each hot run, ps.")
@click.option("--fast", is_flag=True, help="The calculator's fast mode.")
@click.option("--json", "output", type=Path, help="Write the rows to this file.")
def md(model: str, nve_ps: float, hot_ps: float, fast: bool, output: Path | None) -> None:
    """Energy drift of NaCl at 300 K and a Li conductor at 600 K, five hot cells at 1000 K.

    float32, 1 fs; Li6PS5Cl 2 fs.
    """
    rows = run(load_calculator(model, fast), nve_ps, hot_ps)
    table = Table("system", "ensemble", "ps", "mean T (K)", "drift meV/atom/ps", "survived")
    for row in rows:
        drift = f"{row['drift_mev_atom_ps']:+.1e}" if "drift_mev_atom_ps" in row else ""
        state = "" if "survived" not in row else ("yes" if row["survived"] else row["failure"])
        cells = (row["system"], row["ensemble"], f"{row['time_ps']:g}", f"{row['temperature']:.0f}")
        table.add_row(*cells, drift, state)
    Console().print(table)
    if output is not None:
        document = {**measured(), "rows": rows}
        output.write_text(json.dumps(document, indent=2))
