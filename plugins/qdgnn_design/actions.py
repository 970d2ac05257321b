"""What an action is: a pure function ``(Atoms, rng) -> Atoms`` with its mask.

Actions stand on the core's `swap`, `vacancy` and `scale_volume`, and keep two arrays up to date:
``"site"`` (site of the start that an atom stands on, -1 for an interstitial) and ``"oxidation"``.
In an ionic structure every action leaves the sum of the charges as it was:

- isovalent (`species_actions`): the new element has the charge of the old one (and cations stay
  less electronegative than anions, in all actions that bring elements in);
- pair (`species_actions`): one site one charge up, another one down;
- aliovalent (`defect_actions`): ions of the compensating element leave, or enter the widest voids;
- vacancies and interstitials of single atoms (`defect_actions`) are for metals only;
- strains (`strain_actions`) leave the elements alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_ase import scale_volume, size_ratio
from qdgnn_design.oxidation import OXIDATION, charges_of

Index = NDArray[np.int64]

SITE = "site"


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


def atoms_at(atoms: Atoms, sites: Sequence[int]) -> Index:
    """Atoms that stand on these sites."""
    site = atoms.get_array(SITE, copy=False)
    wanted = np.zeros(max(site.max(initial=0), max(sites)) + 2, bool)  # the last: interstitials
    wanted[list(sites)] = True
    return np.flatnonzero(wanted[site])


def replaced(atoms: Atoms, change: dict[int, tuple[str, float | None]], rescale: bool) -> Atoms:
    """Other elements and charges (None: as before) on some atoms."""
    changed = atoms.copy()
    changed.calc = None
    charges = charges_of(atoms).copy()
    for index, (symbol, charge) in change.items():
        changed.numbers[index] = atomic_numbers[symbol]
        charges[index] = charges[index] if charge is None else charge
    changed.set_array(OXIDATION, charges)
    return scale_volume(changed, size_ratio(changed, atoms)) if rescale else changed


def site_label(sites: Sequence[int]) -> str:
    """Sites in words, for names of actions."""
    return (
        "site " + ",".join(str(site) for site in sites)
        if len(sites) < 7
        else f"sites {sites[0]}..{sites[-1]}"
    )
