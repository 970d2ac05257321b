"""Changes of a structure: pure functions ``(Atoms, rng) -> Atoms``, each with its mask.

They stand on the core's `swap`, `vacancy` and `scale_volume`, and keep two arrays up to date:
``"site"`` (site of the start that an atom stands on, -1 for an interstitial) and ``"oxidation"``.
In an ionic structure every action leaves the sum of the charges as it was:

- isovalent: the new element has the charge of the old one (and cations stay less
  electronegative than anions, in all actions that bring elements in);
- pair: one site one charge up, another one down;
- aliovalent: ions of the compensating element leave, or enter the widest voids;
- vacancies and interstitials of single atoms are for metals only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
from ase import Atom, Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import get_distances
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_ase import scale_volume, size_ratio, swap, vacancy
from qdgnn_design.oxidation import (
    OXIDATION,
    carriers,
    charges_of,
    fits_electronegativity,
    is_ionic,
    oxidation_states,
)
from qdgnn_design.voids import voronoi_voids

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SITE = "site"
_CONTACT = 0.65
"""Least distance of an interstitial, in sums of covalent radii."""


@dataclass(frozen=True, slots=True)
class Action:
    """One change and when it may be made."""

    name: str
    """For histories and reports."""
    apply: Callable[[Atoms, Generator], Atoms]
    """New structure; the argument stays as it is."""
    allowed: Callable[[Atoms], bool]
    """Whether `apply` gives a structure that keeps the rules."""
    slot: int | None = None
    """Slot whose sites it fills; actions on equivalent single sites are merged by it."""


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
        at = _at(atoms, sites)
        if len(at) == 0 or (atoms.numbers[at] == number).all():
            return False
        return not is_ionic(atoms) or all(
            q in states and fits_electronegativity(atoms, at, symbol, q)
            for q in set(charges_of(atoms)[at].tolist())
        )

    def apply(atoms: Atoms, _: Generator) -> Atoms:
        return _replaced(atoms, {int(i): (symbol, None) for i in _at(atoms, sites)}, rescale)

    return Action(f"{symbol} on {_label(sites)}", apply, allowed, slot)


def pair(first: Sequence[int], second: Sequence[int], pool: Sequence[str], rescale: bool) -> Action:
    """Charge of the first sites one down, of the second one up, with random fitting elements.

    Both must have as many atoms, of one charge each.
    """

    def choices(atoms: Atoms) -> tuple[Index, Index, list[tuple[str, str]], Array]:
        down, up = _at(atoms, first), _at(atoms, second)
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
        return _replaced(atoms, change, rescale)

    return Action(
        f"charge -1 on {_label(first)}, +1 on {_label(second)}",
        apply,
        lambda atoms: is_ionic(atoms) and bool(choices(atoms)[2]),
    )


def aliovalent(sites: Sequence[int], symbol: str, charge: int, mobile: str, limit: int) -> Action:
    """A dopant of another charge on one of ``sites``; ions of ``mobile`` make up for it.

    Args:
        sites: Sites of the slot.
        symbol: Dopant.
        charge: Its charge, e.
        mobile: Element whose ions leave (nearest to the dopant first) or enter voids.
        limit: Most atoms that may be missing or extra.
    """

    def plan(atoms: Atoms) -> tuple[Index, int]:
        """Atoms to replace, and ions of ``mobile`` to remove (negative: to add)."""
        at, charges = _at(atoms, sites), charges_of(atoms)
        ions = charges[atoms.numbers == atomic_numbers[mobile]]
        at = at[charges[at] * charge > 0]
        if len(at) == 0 or len(ions) == 0 or np.ptp(ions) > 0 or ions[0] == 0:
            return at[:0], 0
        count = (charge - charges[at[0]]) / ions[0]
        at = at[charges[at] == charges[at[0]]]
        fits = count == round(count) and 0 < abs(count) <= limit and count + 1 < len(ions)
        return (at, round(count)) if fits else (at[:0], 0)

    def allowed(atoms: Atoms) -> bool:
        if not is_ionic(atoms):
            return False
        at, count = plan(atoms)
        if not fits_electronegativity(atoms, at, symbol, charge):
            return False
        return len(at) > 0 and (count > 0 or len(voids_for(atoms, mobile)) >= -count)

    def apply(atoms: Atoms, rng: Generator) -> Atoms:
        at, count = plan(atoms)
        dopant = int(at[rng.integers(len(at))])
        mobile_charge = charges_of(atoms)[atoms.numbers == atomic_numbers[mobile]][0]
        changed = _replaced(atoms, {dopant: (symbol, charge)}, rescale=False)
        if count > 0:
            return _without_nearest(changed, dopant, mobile, count)
        for _ in range(-count):
            changed = _inserted(changed, rng, mobile, mobile_charge)
        return changed

    return Action(f"{symbol}{charge:+d} on {_label(sites)}, {mobile} compensates", apply, allowed)


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
        return _replaced(
            atoms,
            {
                int(first): (atoms.symbols[second], charges[second]),
                int(second): (atoms.symbols[first], charges[first]),
            },
            rescale=False,
        )

    return Action("swap", apply, lambda atoms: bool(groups(atoms)))


def remove(symbol: str) -> Action:
    """A vacancy in a metal."""
    number = atomic_numbers[symbol]
    return Action(
        f"vacancy {symbol}",
        lambda atoms, rng: vacancy(atoms, rng, symbol),
        lambda atoms: not is_ionic(atoms) and len(atoms) > 1 and number in atoms.numbers,
    )


def insert(symbol: str) -> Action:
    """An interstitial in a metal, in one of the voids that are wide enough."""
    return Action(
        f"interstitial {symbol}",
        lambda atoms, rng: _inserted(atoms, rng, symbol, 0.0),
        lambda atoms: not is_ionic(atoms) and len(voids_for(atoms, symbol)) > 0,
    )


def deform(name: str, deformation: Array, start: Atoms, limit: float) -> Action:
    """Cell vectors times ``deformation`` (3, 3), fractional coordinates stay.

    Allowed while no principal strain against the start, at the volume that the elements want, is
    beyond ``limit``.
    """

    def apply(atoms: Atoms, _: Generator) -> Atoms:
        if np.allclose(deformation, deformation[0, 0] * np.eye(3)):
            return scale_volume(atoms, float(np.linalg.det(deformation)))
        changed = atoms.copy()
        changed.calc = None
        changed.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        return changed

    def allowed(atoms: Atoms) -> bool:
        scale = size_ratio(atoms, start) ** (1 / 3)
        gradient = np.linalg.solve(start.cell.array * scale, atoms.cell.array @ deformation)
        stretches = np.linalg.svd(gradient, compute_uv=False)
        return bool(np.abs(stretches - 1).max() <= limit + 1e-9)

    return Action(name, apply, allowed)


def deformations(step: float) -> dict[str, Array]:
    """Elementary deformations by name: volume, the three axes and the three shears, both ways."""
    table = {}
    for sign in (1, -1):
        percent = f"{100 * sign * step:+.0f} %"
        table[f"all lengths {percent}"] = np.eye(3) * (1 + sign * step)
        for axis, name in enumerate("xyz"):
            table[f"length {name} {percent}"] = np.eye(3) + np.diag(np.eye(3)[axis] * sign * step)
        for i, j in ((1, 2), (0, 2), (0, 1)):
            shear = np.eye(3)
            shear[i, j] = shear[j, i] = sign * step / 2
            table[f"shear {'xyz'[i]}{'xyz'[j]} {percent}"] = shear
    return table


def voids_for(atoms: Atoms, symbol: str) -> Array:
    """Voids (n, 3) in Å where an atom of the element has room, widest first."""
    positions, _ = _voids(
        atoms.positions.tobytes(), atoms.cell.array.tobytes(), tuple(atoms.pbc.tolist())
    )
    if len(positions) == 0:
        return positions
    lengths = get_distances(positions, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)[1]
    contacts = covalent_radii[atomic_numbers[symbol]] + covalent_radii[atoms.numbers]
    wide: Array = positions[(lengths / contacts).min(axis=1) >= _CONTACT]
    return wide


@lru_cache(maxsize=1024)
def _voids(positions: bytes, cell: bytes, pbc: tuple[bool, ...]) -> tuple[Array, Array]:
    points = np.frombuffer(positions).reshape(-1, 3)
    vectors = np.frombuffer(cell).reshape(3, 3)
    return voronoi_voids(Atoms([1] * len(points), positions=points, cell=vectors, pbc=pbc))


def slot_pairs(slots: Sequence[Sequence[int]]) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Ordered pairs of different slots of one size."""
    return [(a, b) for a, b in permutations(slots, 2) if len(a) == len(b)]


def _at(atoms: Atoms, sites: Sequence[int]) -> Index:
    """Atoms that stand on these sites."""
    site = atoms.get_array(SITE, copy=False)
    wanted = np.zeros(max(site.max(initial=0), max(sites)) + 2, bool)  # the last: interstitials
    wanted[list(sites)] = True
    return np.flatnonzero(wanted[site])


def _replaced(atoms: Atoms, change: dict[int, tuple[str, float | None]], rescale: bool) -> Atoms:
    """Other elements and charges (None: as before) on some atoms."""
    changed = atoms.copy()
    changed.calc = None
    charges = charges_of(atoms).copy()
    for index, (symbol, charge) in change.items():
        changed.numbers[index] = atomic_numbers[symbol]
        charges[index] = charges[index] if charge is None else charge
    changed.set_array(OXIDATION, charges)
    return scale_volume(changed, size_ratio(changed, atoms)) if rescale else changed


def _without_nearest(atoms: Atoms, dopant: int, symbol: str, count: int) -> Atoms:
    ions = np.flatnonzero(atoms.numbers == atomic_numbers[symbol])
    distances = atoms.get_distances(dopant, ions, mic=True)
    changed = atoms.copy()
    del changed[ions[np.lexsort((ions, np.round(distances, 4)))[:count]]]
    return changed


def _inserted(atoms: Atoms, rng: Generator, symbol: str, charge: float) -> Atoms:
    voids = voids_for(atoms, symbol)
    if len(voids) == 0:
        raise ValueError(f"{atoms.symbols} must have a void that is wide enough for {symbol}")
    changed = atoms.copy()
    changed.calc = None
    changed.append(Atom(symbol, voids[rng.integers(len(voids))]))
    for name, value in ((SITE, -1), (OXIDATION, charge)):
        if changed.has(name):
            changed.arrays[name][-1] = value
    return changed


def _label(sites: Sequence[int]) -> str:
    return (
        "site " + ",".join(str(site) for site in sites)
        if len(sites) < 7
        else (f"sites {sites[0]}..{sites[-1]}")
    )
