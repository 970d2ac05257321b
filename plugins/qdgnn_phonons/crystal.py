"""What phonons start from: a relaxed crystal and its supercell."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.spacegroup.symmetrize import refine_symmetry
from numpy.typing import NDArray
from phonopy.structure.atoms import PhonopyAtoms

from qdgnn_phonons.config import PhononConfig

Array = NDArray[np.float64]


def relax_crystal(
    atoms: Atoms, config: PhononConfig | None = None, *, cell: bool = True, symmetric: bool = True
) -> Atoms:
    """Copy relaxed to ``config.fmax``, within its space group.

    Args:
        atoms: Crystal with a calculator.
        config: Tolerances; the defaults if not given.
        cell: Relax the cell too.
        symmetric: Keep the space group, which is found to ``config.symmetry_tolerance``; without
            it, the crystal may fall into another structure.

    Raises:
        ValueError: If the crystal is not periodic in three directions or has no calculator.
        CalculationFailed: If the forces do not get that small.
    """
    config = config or PhononConfig()
    check_crystal(atoms)
    relaxed = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    if atoms.has("masses"):
        relaxed.set_masses(atoms.get_masses())
    if symmetric:
        refine_symmetry(relaxed, config.symmetry_tolerance)
        relaxed.set_constraint(FixSymmetry(relaxed, config.symmetry_tolerance))
    relaxed.calc = atoms.calc
    # FIRE, which `qdgnn_ase.relax` takes, needs ten times the steps for the last two decades
    optimizer = BFGS(FrechetCellFilter(relaxed) if cell else relaxed, logfile=None)
    converged = optimizer.run(fmax=config.fmax, steps=config.relaxation_steps)
    relaxed.set_constraint()
    if not converged:
        raise CalculationFailed(
            f"{atoms.symbols} must relax to {config.fmax:g} eV/Å in {config.relaxation_steps} "
            f"steps, got {largest_force(relaxed):.2g} eV/Å; give more steps, or a calculator in "
            "double precision (dtype='float64')"
        )
    return relaxed


def check_crystal(atoms: Atoms) -> None:
    """Refuse what has no phonons that phonopy could compute.

    Raises:
        ValueError: If it is not a right-handed crystal with finite positions and a calculator.
    """
    if not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise ValueError(
            f"crystal must be periodic along three lattice vectors, got pbc {atoms.pbc} and "
            f"{atoms.cell.rank} vectors"
        )
    if not atoms.cell.handedness == 1:
        raise ValueError(
            "lattice vectors must be right-handed, got a left-handed cell; exchange two of them"
        )
    if not (np.isfinite(atoms.positions).all() and len(atoms)):
        raise ValueError("positions must be finite and of at least one atom")
    if atoms.calc is None:
        raise ValueError("atoms must have a calculator: set atoms.calc")


def largest_force(atoms: Atoms) -> float:
    """Norm of the largest force on an atom in eV/Å."""
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


def supercell_multiples(atoms: Atoms, min_length: float) -> tuple[int, int, int]:
    """Multiples of the cell with opposite faces at least ``min_length`` Å apart."""
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    first, second, third = np.ceil(min_length / heights - 1e-6).astype(int)
    return int(first), int(second), int(third)


def to_phonopy(atoms: Atoms) -> PhonopyAtoms:
    """The same cell as phonopy has it, with phonopy's masses unless the atoms carry their own."""
    return PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(wrap=False),
        masses=atoms.get_masses() if atoms.has("masses") else None,
    )


def from_phonopy(cell: PhonopyAtoms) -> Atoms:
    """The same cell as ASE has it, periodic."""
    return Atoms(
        cell.symbols, positions=cell.positions, cell=cell.cell, masses=cell.masses, pbc=True
    )
