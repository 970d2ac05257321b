"""Contracts of an ASE calculator."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from qdgnn_ase.testing.common import (
    ContractError,
    has_stress,
    is_equal,
    require,
    require_close,
    strained_copper,
    with_calculator,
)


def check_calculator(
    calculator: Any,
    atoms: Atoms | None = None,
    *,
    step: float = 1e-4,
    forces_tolerance: float = 1e-5,
    stress_tolerance: float = 1e-6,
) -> None:
    """Run every contract of an ASE calculator.

    Args:
        calculator: ASE calculator; stress is checked if it implements it.
        atoms: Periodic structure with forces and stress; strained, rattled Cu4 if not given.
        step: Finite-difference step; a float32 calculator needs about 1e-2 and wider tolerances.
        forces_tolerance: eV/Å.
        stress_tolerance: eV/Å^3.

    Raises:
        ContractError: With the first contract that is broken.
    """
    atoms = strained_copper() if atoms is None else atoms
    for check in (check_results, check_atoms_unchanged, check_cache, check_copies):
        check(calculator, atoms)
    check_calculator_forces(calculator, atoms, step=step, tolerance=forces_tolerance)
    if has_stress(calculator):
        check_calculator_stress(calculator, atoms, step=step, tolerance=stress_tolerance)
        check_no_cell(calculator, atoms)


def check_results(calculator: Any, atoms: Atoms) -> None:
    """Energies are Python floats; forces (n_atoms, 3) and stress (6,) are float64 arrays."""
    atoms = with_calculator(atoms, calculator)
    for force_consistent in (False, True):
        energy = atoms.get_potential_energy(force_consistent=force_consistent)
        good = isinstance(energy, float) and bool(np.isfinite(energy))
        require(good, "a finite float energy", repr(energy))
    arrays: dict[str, tuple[Any, tuple[int, ...]]]
    arrays = {"forces": (atoms.get_forces(apply_constraint=False), (len(atoms), 3))}
    if has_stress(calculator):
        arrays["stress"] = (atoms.get_stress(apply_constraint=False), (6,))
    for name, (value, shape) in arrays.items():
        got = (type(value).__name__, getattr(value, "dtype", None), getattr(value, "shape", None))
        require(got == ("ndarray", np.float64, shape), f"{name} float64 array {shape}", got)
        require(bool(np.isfinite(value).all()), f"finite {name}", value.tolist())


def check_atoms_unchanged(calculator: Any, atoms: Atoms) -> None:
    """A calculation changes nothing in the Atoms object."""
    atoms = with_calculator(atoms, calculator)
    before = copy.deepcopy(atoms.todict())
    atoms.get_potential_energy()
    atoms.get_forces()
    after = atoms.todict()
    require(before.keys() == after.keys(), f"keys {sorted(before)}", sorted(after))
    changed = [name for name in before if not is_equal(before[name], after[name])]
    require(not changed, "unchanged atoms", f"changes of {changed}")


def check_cache(calculator: Any, atoms: Atoms) -> None:
    """Known results are kept, returned as copies, and dropped when the structure changes."""
    atoms = with_calculator(atoms, calculator)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    names = ["energy", "forces"]
    require(not calculator.calculation_required(atoms, names), "kept results", "a recalculation")
    expected, forces[:] = forces.copy(), 1e3
    require_close(
        "forces after the caller wrote into them", atoms.get_forces(), expected, 0.0, "eV/Å"
    )
    atoms.positions[0] += 0.05
    require(calculator.calculation_required(atoms, names), "a recalculation", "stale results")
    require(atoms.get_potential_energy() != energy, "another energy for a moved atom", energy)
    atoms.positions[0] -= 0.05
    require_close("energy of the atom moved back", atoms.get_potential_energy(), energy, 1e-4, "eV")


def check_copies(calculator: Any, atoms: Atoms) -> None:
    """copy, deepcopy and pickle give calculators with the same energy."""
    energy = with_calculator(atoms, calculator).get_potential_energy()
    copies: dict[str, Callable[[Any], Any]] = {
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda x: pickle.loads(pickle.dumps(x)),  # noqa: S301, we made the bytes
    }
    for name, duplicate in copies.items():
        try:
            other = duplicate(calculator)
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise ContractError(
                f"expected a calculator that survives {name}, got {error!r}"
            ) from error
        other.reset()
        got = with_calculator(atoms, other).get_potential_energy()
        require_close(f"energy of a calculator made by {name}", got, energy, 1e-6, "eV")


def check_calculator_forces(
    calculator: Any, atoms: Atoms, *, step: float = 1e-4, tolerance: float = 1e-5
) -> None:
    """Forces of up to 4 atoms are minus the finite differences of the energy."""
    atoms = with_calculator(atoms, calculator)
    forces = atoms.get_forces(apply_constraint=False)[:4]
    numeric = calculate_numerical_forces(
        atoms, eps=step, iatoms=range(len(forces)), force_consistent=True
    )
    require_close(f"forces on {atoms.symbols}", forces, numeric, tolerance, "eV/Å")


def check_calculator_stress(
    calculator: Any, atoms: Atoms, *, step: float = 1e-4, tolerance: float = 1e-6
) -> None:
    """Stress is dE/dstrain / volume in ASE's order and sign."""
    atoms = with_calculator(atoms, calculator)
    stress = atoms.get_stress(apply_constraint=False)
    numeric = calculate_numerical_stress(atoms, eps=step, force_consistent=True)
    require_close(f"stress of {atoms.symbols}", stress, numeric, tolerance, "eV/Å^3")


def check_no_cell(calculator: Any, atoms: Atoms) -> None:
    """Without a cell energy and forces are there, stress raises PropertyNotImplementedError."""
    cluster = with_calculator(Atoms(atoms.numbers, atoms.positions), calculator)
    forces = cluster.get_forces()
    require(bool(np.isfinite(forces).all()), "finite forces without a cell", forces.tolist())
    try:
        stress = cluster.get_stress()
    except PropertyNotImplementedError:
        return
    raise ContractError(f"expected PropertyNotImplementedError without a cell, got stress {stress}")
