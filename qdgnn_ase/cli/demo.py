"""`qdgnn demo`: battery materials from published parameters to relaxed cells and dynamics."""

from __future__ import annotations

import warnings
from pathlib import Path
from time import perf_counter

import ase.io
import click
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from rich.table import Table

from qdgnn_ase.cli.common import console, model_option, progress_bar
from qdgnn_ase.cli.simulate import run_md
from qdgnn_ase.inference.calculator import QDGNNCalculator
from qdgnn_ase.inference.simulate import relax


def lithium_iron_phosphate() -> Atoms:
    """Triphylite LiFePO4, Pnma, 28 atoms (Streltsov et al., Acta Cryst. B 49, 147, 1993)."""
    sites = {
        "Li": (0.0, 0.0, 0.0),
        "Fe": (0.28222, 0.25, 0.97472),
        "P": (0.09486, 0.25, 0.41820),
        "O1": (0.09678, 0.25, 0.74279),
        "O2": (0.45710, 0.25, 0.20602),
        "O3": (0.16558, 0.04646, 0.28478),
    }
    return _crystal(sites, 62, (10.332, 6.010, 4.692))


def lithium_thiophosphate() -> Atoms:
    """gamma-Li3PS4, Pmn2_1, 16 atoms.

    Lattice of Homma et al., Solid State Ionics 182, 53 (2011); start positions of the isotypic
    beta-Li3PO4 (Keffer et al., Inorg. Chem. 6, 119, 1967), which the relaxation adapts to sulphur.
    """
    sites = {
        "Li1": (0.248, 0.328, 0.986),
        "Li2": (0.5, 0.843, 0.989),
        "P": (0.0, 0.824, 0.0),
        "S1": (0.217, 0.680, 0.890),
        "S2": (0.0, 0.105, 0.890),
        "S3": (0.5, 0.184, 0.830),
    }
    return _crystal(sites, 31, (7.708, 6.535, 6.137))


def sodium_chloride() -> Atoms:
    """Rock salt, conventional cell, 8 atoms."""
    return bulk("NaCl", "rocksalt", a=5.640, cubic=True)


def _crystal(
    sites: dict[str, tuple[float, float, float]], group: int, lengths: tuple[float, float, float]
) -> Atoms:
    symbols = [label.rstrip("0123456789") for label in sites]
    atoms = crystal(symbols, list(sites.values()), spacegroup=group, cellpar=[*lengths, 90, 90, 90])
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


MATERIALS = {
    "LiFePO4": lithium_iron_phosphate,
    "Li3PS4": lithium_thiophosphate,
    "NaCl": sodium_chloride,
}


@click.command()
@model_option
@click.option("--output", "-o", type=Path, default=Path("demo_output"), show_default=True)
@click.option("--time-ps", default=1.0, show_default=True, help="Length of the dynamics, ps.")
def demo(model: str, output: Path, time_ps: float) -> None:
    """Relax LiFePO4, Li3PS4 and NaCl, then 1 ps of NVT at 300 K of 224 atoms of LiFePO4."""
    calculator = QDGNNCalculator(model)
    output.mkdir(parents=True, exist_ok=True)
    table = Table(
        "", "a, b, c (Å)", "experiment", "error", "E eV/atom", "max F", "max S", "ms/step"
    )
    relaxed = {}
    for name, build in MATERIALS.items():
        relaxed[name], cells = _relax(name, build(), calculator)
        ase.io.write(output / f"{name}.extxyz", relaxed[name])
        table.add_row(name, *cells)
    console.print(table)
    console.print("max F in eV/Å, max S in GPa; one step = energy, forces and stress")
    atoms = relaxed["LiFePO4"].repeat((1, 2, 4))
    atoms.calc = calculator
    run_md(atoms, output / "md.extxyz", temperature=300.0, steps=round(1e3 * time_ps))


def _relax(name: str, atoms: Atoms, calculator: QDGNNCalculator) -> tuple[Atoms, list[str]]:
    experiment = atoms.cell.lengths()
    atoms.rattle(0.01, seed=0)
    atoms.calc = calculator
    with progress_bar() as bar:
        task = bar.add_task(f"relaxing {name}", total=300, note="")
        converged = relax(
            atoms,
            fmax=0.03,
            steps=300,
            progress=lambda step, force: bar.update(task, completed=step, note=f"{force:.3f} eV/Å"),
        )
        bar.update(task, completed=300)
    if not converged:
        warnings.warn(f"{name} did not converge in 300 steps", stacklevel=2)
    lengths = atoms.cell.lengths()
    force = np.linalg.norm(atoms.get_forces(), axis=1).max()
    return atoms, [
        "\n".join(f"{x:.3f}" for x in lengths),
        "\n".join(f"{x:.3f}" for x in experiment),
        "\n".join(f"{100 * x:+.1f} %" for x in lengths / experiment - 1),
        f"{atoms.get_potential_energy() / len(atoms):.3f}",
        f"{force:.3f}",
        f"{abs(atoms.get_stress()).max() * 160.2177:.2f}",
        f"{_ms_per_step(atoms):.1f}",
    ]


def _ms_per_step(atoms: Atoms, repeats: int = 5) -> float:
    started = perf_counter()
    for _ in range(repeats):
        atoms.calc.calculate(atoms)
    return 1e3 * (perf_counter() - started) / repeats
