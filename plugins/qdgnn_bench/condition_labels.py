"""Heat capacities of small solids from the potential's phonons, at ten temperatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from qdgnn_ase import reduced_formula, relax

Array = NDArray[np.float64]
TEMPERATURES = (50.0, 100.0, 150.0, 200.0, 250.0, 300.0, 400.0, 500.0, 700.0, 1000.0)
"""K."""
SOLIDS = {
    "rocksalt": "LiF 4.0, LiCl 5.1, NaF 4.6, NaCl 5.6, KF 5.3, KCl 6.3, MgO 4.2, CaO 4.8, "
    "SrO 5.2, BaO 5.5, MgS 5.2, CaS 5.7, TiC 4.3, TiN 4.25, ZrC 4.7",
    "zincblende": "BN 3.6, SiC 4.4, AlP 5.5, GaP 5.45, GaAs 5.7, InP 5.9, ZnS 5.4, ZnSe 5.7, "
    "CdTe 6.6",
    "diamond": "C 3.57, Si 5.43",
    "fcc": "Al 4.05, Cu 3.63, Ag 4.15, Au 4.15, Pd 3.95, Pt 3.97, Pb 5.0",
    "bcc": "Na 4.2, Nb 3.3, Ta 3.3, Mo 3.16, W 3.17",
}
"""Prototype -> formulas and lattice constants in Å to start from."""
_LENGTH = 9.0
"""Å; supercells are at least as wide."""
_IMAGINARY = -0.05
"""THz."""


@dataclass(frozen=True, slots=True, eq=False)
class Solid:
    """A relaxed crystal with its heat capacity."""

    atoms: Atoms
    formula: str
    heat_capacity: Array
    """(n_temperatures,) J/(mol K) per mole of atoms."""


def make_solids(
    calculator: Calculator, progress: Callable[[str], None] | None = None
) -> tuple[list[Solid], list[str]]:
    """Dynamically stable solids, and the names of those left out: imaginary modes, not relaxed."""
    solids, left_out = [], []
    for prototype, entries in SOLIDS.items():
        for entry in entries.split(", "):
            name, constant = entry.split()
            if progress is not None:
                progress(name)
            atoms = bulk(name, prototype, a=float(constant))
            atoms.calc = calculator
            done = relax(atoms, fmax=1e-3, steps=200)
            capacity = heat_capacity(atoms) if done else None
            if capacity is None:
                left_out.append(name)
                continue
            plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
            solids.append(Solid(plain, reduced_formula(atoms), capacity))
    return solids, left_out


def heat_capacity(atoms: Atoms) -> Array | None:
    """Harmonic C_v at `TEMPERATURES` in J/(mol K) per mole of atoms; None with imaginary modes.

    Args:
        atoms: Relaxed primitive cell with a calculator.
    """
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
    )
    repeats = np.ceil(_LENGTH / atoms.cell.lengths()).astype(int)
    phonon = Phonopy(cell, np.diag(repeats), primitive_matrix=np.eye(3))
    phonon.generate_displacements(distance=0.02)
    phonon.forces = [
        _forces(supercell, atoms.calc) for supercell in phonon.supercells_with_displacements
    ]
    phonon.produce_force_constants()
    phonon.symmetrize_force_constants()
    mesh = phonon.run_mesh([12, 12, 12], is_gamma_center=True)
    if mesh.frequencies.min() < _IMAGINARY:
        return None
    result = phonon.run_thermal_properties(
        temperatures=np.array(TEMPERATURES), exclude_gamma_acoustic=True
    )
    capacity: Array = np.asarray(result.heat_capacity) / len(atoms)
    return capacity


def _forces(supercell: Any, calculator: Calculator) -> Array:
    atoms = Atoms(
        supercell.symbols,
        cell=supercell.cell,
        scaled_positions=supercell.scaled_positions,
        pbc=True,
    )
    atoms.calc = calculator
    forces: Array = atoms.get_forces()
    return forces
