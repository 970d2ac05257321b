"""Harmonic force constants: phonopy's displacements and symmetry, any ASE calculator's forces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray
from phonopy import Phonopy

from qdgnn_phonons.config import PhononConfig
from qdgnn_phonons.crystal import (
    check_crystal,
    from_phonopy,
    supercell_multiples,
    to_phonopy,
)

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with the supercells done and their number."""


def harmonic_phonons(
    atoms: Atoms, config: PhononConfig | None = None, progress: Progress | None = None
) -> Phonopy:
    """Phonopy object with the force constants of a relaxed crystal.

    The acoustic sum rule is imposed on the force constants (phonopy's `symmetrize_force_constants`)
    and the forces of the undisplaced supercell are subtracted.

    Args:
        atoms: Crystal with a calculator, relaxed (see `relax_crystal`).
        config: Supercell, displacements and method; the defaults if not given.
        progress: Called after each supercell.

    Raises:
        ValueError: If the crystal is not relaxed, or a force is not finite.
    """
    config = config or PhononConfig()
    check_crystal(atoms)
    phonon = Phonopy(
        to_phonopy(atoms),
        np.diag(config.supercell or supercell_multiples(atoms, config.min_length)),
        primitive_matrix=_primitive_matrix(atoms),
    )
    rest = _forces(from_phonopy(phonon.supercell), atoms.calc)
    if (residual := float(np.linalg.norm(rest, axis=1).max())) > config.max_residual:
        raise ValueError(
            f"crystal must be relaxed: largest force must be <= {config.max_residual:g} eV/Å, got "
            f"{residual:.3g}; call relax_crystal first"
        )
    if config.method == "symfc":
        phonon.generate_displacements(
            distance=config.displacement,
            number_of_snapshots=config.random_sets or "auto",
            random_seed=config.seed,
        )
    else:
        phonon.generate_displacements(distance=config.displacement)
    phonon.forces = _all_forces(phonon, atoms.calc, progress) - rest
    calculator = "symfc" if config.method == "symfc" else "traditional"
    phonon.produce_force_constants(fc_calculator=calculator, show_drift=False)
    phonon.symmetrize_force_constants(show_drift=False)
    return phonon


def _primitive_matrix(atoms: Atoms) -> Array:
    from phonopy.structure.cells import guess_primitive_matrix

    return np.asarray(guess_primitive_matrix(to_phonopy(atoms)), dtype=np.float64)


def _all_forces(phonon: Phonopy, calculator: Calculator, progress: Progress | None) -> Array:
    supercells = phonon.supercells_with_displacements
    forces = []
    for index, supercell in enumerate(supercells, start=1):
        forces.append(_forces(from_phonopy(supercell), calculator))
        if progress is not None:
            progress(index, len(supercells))
    return np.array(forces)


def _forces(atoms: Atoms, calculator: Calculator) -> Array:
    atoms.calc = calculator
    forces = np.array(atoms.get_forces(), dtype=np.float64)
    if not np.isfinite(forces).all():
        raise ValueError(f"forces of {atoms.symbols} must be finite, got NaN or infinity")
    return forces
