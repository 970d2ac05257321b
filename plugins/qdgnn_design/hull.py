"""Energy above the convex hull of phases that the user names, by pymatgen's `PhaseDiagram`.

All energies come from one calculator: energies of different functionals or corrections on one hull
would mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ase import Atoms
from ase.calculators.calculator import Calculator

from qdgnn_ase import relax


def energy_above_hull(
    phases: Sequence[Atoms], calculator: Calculator, *, steps: int = 0
) -> Callable[[Atoms], float]:
    """Function of a structure: eV/atom above the phases' hull, negative if it lies below.

    Args:
        phases: Competing phases, each element of them as an element among them.
        calculator: Energies of phases and structures.
        steps: Most steps of a relaxation of the phases; 0 takes them as they are. Structures are
            taken as they are given.

    Returns:
        The function; it raises ValueError for an element that no phase holds.

    Raises:
        ValueError: If an element's own phase is missing.
    """
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    def entry(atoms: Atoms) -> PDEntry:
        copy = atoms.copy()
        copy.calc = calculator
        return PDEntry(copy.get_chemical_formula(), copy.get_potential_energy())

    held = {symbol for atoms in phases for symbol in atoms.symbols}
    alone = {atoms.symbols[0] for atoms in phases if len(set(atoms.symbols)) == 1}
    if lacking := sorted(held - alone):
        raise ValueError(
            f"phases must hold each of their elements as an element, got none for {lacking}"
        )
    if not held:
        raise ValueError("phases must hold at least one structure, got none")
    diagram = PhaseDiagram([entry(_relaxed(atoms, calculator, steps)) for atoms in phases])

    def above(atoms: Atoms) -> float:
        if unknown := sorted(set(atoms.symbols) - held):
            raise ValueError(f"the hull must know all elements, got no phase with {unknown}")
        return float(diagram.get_e_above_hull(entry(atoms), allow_negative=True))

    return above


def _relaxed(atoms: Atoms, calculator: Calculator, steps: int) -> Atoms:
    if not steps:
        return atoms
    copy = atoms.copy()
    copy.calc = calculator
    relax(copy, steps=steps)
    return copy
