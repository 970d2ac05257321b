"""Actions on elements: substitution, charge-compensated pairs, exchange of two atoms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_ase import swap
from qdgnn_design.actions import Action, atoms_at, replaced, site_label
from qdgnn_design.oxidation import (
    carriers,
    charges_of,
    fits_electronegativity,
    is_ionic,
    oxidation_states,
)

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def substitution(slot: int, sites: Sequence[int], symbol: str, *, rescale: bool) -> Action:
    """The element on all ``sites``, with the charge of what stood there.

    Args:
        slot: Index of the slot.
        sites: Its sites.
        symbol: New element.
        rescale: Change the volume with the covalent radii.
    """
    number, states = atomic_numbers[symbol], oxidation_states(symbol)

    def allowed(atoms: Atoms) -> bool:
        at = atoms_at(atoms, sites)
        if len(at) == 0 or (atoms.numbers[at] == number).all():
            return False
        return not is_ionic(atoms) or all(
            q in states and fits_electronegativity(atoms, at, symbol, q)
            for q in set(charges_of(atoms)[at].tolist())
        )

    def apply(atoms: Atoms, _: Generator) -> Atoms:
        return replaced(atoms, {int(i): (symbol, None) for i in atoms_at(atoms, sites)}, rescale)

    return Action(f"{symbol} on {site_label(sites)}", apply, allowed, slot)


def pair(first: Sequence[int], second: Sequence[int], pool: Sequence[str], rescale: bool) -> Action:
    """Charge of the first sites one down, of the second one up, with random fitting elements.

    Both must have as many atoms, of one charge each.
    """

    def choices(atoms: Atoms) -> tuple[Index, Index, list[tuple[str, str]], Array]:
        down, up = atoms_at(atoms, first), atoms_at(atoms, second)
        charges = charges_of(atoms)
        if len(down) == 0 or len(down) != len(up):
            return down, up, [], charges
        if np.ptp(charges[down]) > 0 or np.ptp(charges[up]) > 0:
            return down, up, [], charges
        new = charges[down[0]] - 1, charges[up[0]] + 1
        signs_kept = new[0] * charges[down[0]] > 0 and new[1] * charges[up[0]] > 0
        signs_kept &= charges[down[0]] * charges[up[0]] > 0
        if not signs_kept:
            return down, up, [], charges
        both = np.concatenate([down, up])
        fitting = [
            [s for s in carriers(q, pool) if fits_electronegativity(atoms, both, s, q)] for q in new
        ]
        return down, up, [(low, high) for low in fitting[0] for high in fitting[1]], charges

    def apply(atoms: Atoms, rng: Generator) -> Atoms:
        down, up, pairs, charges = choices(atoms)
        low, high = pairs[rng.integers(len(pairs))]
        change = {int(i): (low, charges[down[0]] - 1) for i in down}
        change |= {int(i): (high, charges[up[0]] + 1) for i in up}
        return replaced(atoms, change, rescale)

    return Action(
        f"charge -1 on {site_label(first)}, +1 on {site_label(second)}",
        apply,
        lambda atoms: is_ionic(atoms) and bool(choices(atoms)[2]),
    )


def slot_pairs(slots: Sequence[Sequence[int]]) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Ordered pairs of different slots of one size."""
    return [(a, b) for a, b in permutations(slots, 2) if len(a) == len(b)]


def exchange() -> Action:
    """Two atoms of different elements and the same sign of charge change places."""

    def groups(atoms: Atoms) -> list[Index]:
        signs = np.sign(charges_of(atoms))
        members = [np.flatnonzero(signs == sign) for sign in np.unique(signs)]
        return [group for group in members if len(set(atoms.numbers[group])) > 1]

    def apply(atoms: Atoms, rng: Generator) -> Atoms:
        options = groups(atoms)
        group = options[rng.integers(len(options))]
        numbers = atoms.numbers.copy()
        numbers[group] = swap(atoms[group], rng).numbers
        first, second = np.flatnonzero(numbers != atoms.numbers)
        charges = charges_of(atoms)
        return replaced(
            atoms,
            {
                int(first): (atoms.symbols[second], charges[second]),
                int(second): (atoms.symbols[first], charges[first]),
            },
            rescale=False,
        )

    return Action("swap", apply, lambda atoms: bool(groups(atoms)))
