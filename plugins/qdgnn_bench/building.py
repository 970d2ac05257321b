"""Whole structures, ways to break them, and the three kinds of cases made of them.

Copper and gold throughout, which every calculator here knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc100

from qdgnn_bench.faults import Case, Subject

ENERGY_TOLERANCE = 1e-4
"""eV/atom; float32 noise is below 1e-5."""
FORCE_TOLERANCE = 1e-3
"""eV/Å."""
STRESS_TOLERANCE = 1e-4
"""eV/Å^3."""

Make = Callable[[], Atoms]


def crystal() -> Atoms:
    """Cu3Au, 4 atoms, rattled."""
    atoms = bulk("Cu", a=3.75, cubic=True)
    atoms.symbols[0] = "Au"
    atoms.rattle(0.08, seed=1)
    return atoms


def slab(pbc: Sequence[bool] = (True, True, True), height: float = 30.0) -> Atoms:
    """Two layers of Cu3Au with a third cell vector of ``height`` Å."""
    atoms = fcc100("Cu", (2, 2, 2), a=3.75)
    atoms.symbols[0] = "Au"
    atoms.rattle(0.08, seed=2)
    atoms.set_cell([atoms.cell[0], atoms.cell[1], [0, 0, height]])
    atoms.pbc = pbc
    return atoms


def wire(pbc: Sequence[bool] = (True, True, True), width: float = 30.0) -> Atoms:
    """Zigzag wire of Cu and Au along z."""
    return Atoms(
        "CuAu", [[0, 0, 0], [1.1, 0.2, 2.3]], cell=[width * pbc[0], width * pbc[1], 4.7], pbc=pbc
    )


def cluster() -> Atoms:
    """Four atoms without a cell."""
    return Atoms("Cu3Au", [[0, 0, 0], [2.6, 0, 0], [0.3, 2.5, 0], [0.2, 0.3, 2.7]])


def pair(distance: float) -> Atoms:
    """Two copper atoms without a cell."""
    return Atoms("Cu2", [[0, 0, 0], [0, 0, distance]])


def refused(fault: str, name: str, make: Make, message: str, **options: Any) -> Case:
    """Case whose energy and forces must be an error."""
    return Case(
        name=name,
        fault=fault,
        expected="error",
        probe=lambda subject, _: energy(make(), subject),
        message=message,
        **options,
    )


def warned(
    fault: str, name: str, make: Callable[[Subject], Atoms], message: str, **options: Any
) -> Case:
    """Case that must give one warning, however often the calculator is used."""

    def probe(subject: Subject, _: Path) -> float:
        atoms = make(subject)
        atoms.calc = subject.calculator()
        atoms.get_potential_energy()
        atoms.rattle(1e-3, seed=0)
        return float(atoms.get_potential_energy())

    return Case(name=name, fault=fault, expected="warning", probe=probe, message=message, **options)


def equal(
    fault: str, name: str, make: Make, oracle: Make, *, times: int = 1, **options: Any
) -> Case:
    """Case with ``times`` the energy of ``oracle`` and the same forces."""

    def probe(subject: Subject, _: Path) -> float:
        atoms, reference = make(), oracle()
        atoms.calc, reference.calc = subject.calculator(), subject.calculator()
        energy = atoms.get_potential_energy() - times * reference.get_potential_energy()
        forces = atoms.get_forces() - np.tile(reference.get_forces(), (times, 1))
        worst = [abs(energy) / len(atoms) / ENERGY_TOLERANCE, abs(forces).max() / FORCE_TOLERANCE]
        return float(np.max(worst))  # NaN if one is; Python's max may pass over it

    return Case(name=name, fault=fault, expected="value", probe=probe, **options)


def energy(atoms: Atoms, subject: Subject) -> float:
    """Energy in eV; NaN if a force is not finite."""
    atoms.calc = subject.calculator()
    forces, answer = atoms.get_forces(), float(atoms.get_potential_energy())
    return answer if np.isfinite(forces).all() else float("nan")


def edited(edit: Callable[[Atoms], object], make: Make = crystal) -> Make:
    """Maker of structures that ``edit`` was applied to, in place."""

    def build() -> Atoms:
        atoms = make()
        edit(atoms)
        return atoms

    return build


def moved(shift: object, make: Make = crystal, index: object = ...) -> Make:
    """Maker of structures of which all atoms, or those of ``index``, are moved by ``shift`` (Å)."""

    def move(atoms: Atoms) -> None:
        atoms.positions[index] += shift

    return edited(move, make)
