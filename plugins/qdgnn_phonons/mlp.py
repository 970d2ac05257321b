"""Any ASE calculator as ``Phonopy.mlp``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

if TYPE_CHECKING:
    from phonopy.structure.atoms import PhonopyAtoms

Array = NDArray[np.float64]
_PHONOPY_ORDER = [0, 1, 2, 5, 3, 4]  # xx yy zz xy yz zx out of ASE's xx yy zz yz xz xy


class CalculatorMLP:
    """What phonopy asks of a machine-learning potential: ``phonon.mlp = CalculatorMLP(calc)``.

    Args:
        calculator: Any ASE calculator with energy, forces and stress.
    """

    def __init__(self, calculator: Calculator) -> None:
        self.calculator = calculator

    def evaluate(self, supercells: Sequence[PhonopyAtoms]) -> tuple[Array, Array, Array]:
        """Energies (n,) eV, forces (n, n_atoms, 3) eV/Å, stresses (n, 6) eV/Å^3.

        Stresses have ASE's sign (tension positive) and phonopy's order xx yy zz xy yz zx.
        """
        energies, forces, stresses = [], [], []
        for cell in supercells:
            atoms = Atoms(
                cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True
            )
            atoms.calc = self.calculator
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
            stresses.append(atoms.get_stress()[_PHONOPY_ORDER])
        return np.array(energies), np.array(forces), np.array(stresses)
