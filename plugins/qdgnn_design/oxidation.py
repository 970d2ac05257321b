"""Oxidation states: one table, made once, and the charges that travel with a structure.

Guessing them costs up to a second for a large formula, so it is done for the start only; the
charges then ride along in ``atoms.arrays["oxidation"]`` and every action keeps them up to date.
Neutrality of a candidate is a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

Array = NDArray[np.float64]

OXIDATION = "oxidation"
"""Name of the array of charges in e, (n_atoms,); all zero in a metal or where none was found."""


@cache
def oxidation_states(symbol: str) -> tuple[int, ...]:
    """Common oxidation states of an element (pymatgen), () if it forms no ions.

    Raises:
        ValueError: If there is no such element.
    """
    from pymatgen.core import Element

    if not Element.is_valid_symbol(symbol):
        raise ValueError(f"element must be a chemical symbol, got {symbol!r}")
    return tuple(int(state) for state in Element(symbol).common_oxidation_states)


def with_oxidation(atoms: Atoms, charges: Sequence[float] | None = None) -> Atoms:
    """Copy that carries oxidation states.

    Args:
        atoms: Structure; an array ``"oxidation"`` that it has is kept.
        charges: State of each atom in e; guessed from the formula if not given (one mean state
            per element, pymatgen's most frequent neutral choice), zero where there is none.

    Raises:
        ValueError: If the number of charges is not that of the atoms.
    """
    copy = atoms.copy()
    if charges is not None:
        if len(charges) != len(atoms):
            raise ValueError(f"charges must be one per atom ({len(atoms)}), got {len(charges)}")
        copy.set_array(OXIDATION, np.asarray(charges, float))
    elif not copy.has(OXIDATION):
        states = _guess(copy.get_chemical_formula(mode="hill"))
        copy.set_array(OXIDATION, np.array([states.get(s, 0.0) for s in copy.symbols]))
    return copy


@cache
def _guess(formula: str) -> dict[str, float]:
    from pymatgen.core import Composition

    composition = Composition(formula).reduced_composition
    if len(composition) < 2 or any(not oxidation_states(str(e)) for e in composition):
        return {}
    states = {str(element): oxidation_states(str(element)) for element in composition}
    guesses = composition.oxi_state_guesses(oxi_states_override=states)
    return {name: float(state) for name, state in guesses[0].items()} if guesses else {}


def charges_of(atoms: Atoms) -> Array:
    """Oxidation states in e, (n_atoms,); zero where the structure carries none."""
    return atoms.get_array(OXIDATION) if atoms.has(OXIDATION) else np.zeros(len(atoms))


def is_ionic(atoms: Atoms) -> bool:
    """Whether the structure carries oxidation states that are not all zero."""
    return bool(charges_of(atoms).any())


def carriers(charge: float, pool: Sequence[str]) -> list[str]:
    """Elements of ``pool`` with the common oxidation state ``charge`` (in e)."""
    return [symbol for symbol in pool if charge in oxidation_states(symbol)]


def fits_electronegativity(atoms: Atoms, at: NDArray[np.int64], symbol: str, charge: float) -> bool:
    """Whether an ion on the sites ``at`` keeps cations less electronegative than anions.

    The other sites are those it is compared with; I+ beside I- or O2- beside F+ do not fit.

    Args:
        atoms: Structure with oxidation states.
        at: Sites that the ion takes.
        symbol: Its element.
        charge: Its charge, e.
    """
    others = np.ones(len(atoms), bool)
    others[at] = False
    opposite = others & (charges_of(atoms) * charge < 0)
    difference = (
        _electronegativities()[atoms.numbers[opposite]]
        - (_electronegativities()[atomic_numbers[symbol]])
    )
    return bool((difference * charge > 0).all())


@cache
def _electronegativities() -> Array:
    """Pauling's, by atomic number; NaN where there is none."""
    from pymatgen.core import Element

    table = np.full(len(chemical_symbols), np.nan)
    for element in Element:
        value = element.data.get("X")
        if len(table) > element.Z and isinstance(value, int | float):
            table[element.Z] = value
    return table


def smact_valid(atoms: Atoms) -> bool:
    """Whether smact finds neutral oxidation states in the order of the electronegativities.

    An independent check of the actions' own bookkeeping; alloys of metals pass.
    """
    from smact.screening import smact_validity

    counts = {chemical_symbols[z]: int((atoms.numbers == z).sum()) for z in set(atoms.numbers)}
    return bool(smact_validity("".join(f"{name}{n}" for name, n in sorted(counts.items()))))
