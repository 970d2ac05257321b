"""Actions that add or remove atoms: dopants with compensating ions, vacancies, interstitials."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from ase import Atom, Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import get_distances
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_ase import vacancy
from qdgnn_design.actions import SITE, Action, atoms_at, replaced, site_label
from qdgnn_design.oxidation import OXIDATION, charges_of, fits_electronegativity, is_ionic
from qdgnn_design.voids import voronoi_voids

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_CONTACT = 0.65
"""Least distance of an interstitial, in sums of covalent radii."""


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
        at, charges = atoms_at(atoms, sites), charges_of(atoms)
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
        changed = replaced(atoms, {dopant: (symbol, charge)}, rescale=False)
        if count > 0:
            return _without_nearest(changed, dopant, mobile, count)
        for _ in range(-count):
            changed = _inserted(changed, rng, mobile, mobile_charge)
        return changed

    return Action(
        f"{symbol}{charge:+d} on {site_label(sites)}, {mobile} compensates", apply, allowed
    )


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
