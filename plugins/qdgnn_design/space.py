"""The actions that a start allows: fixed in number, masked state by state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_design.actions import SITE, Action
from qdgnn_design.defect_actions import aliovalent, insert, remove
from qdgnn_design.oxidation import charges_of, is_ionic, oxidation_states, with_oxidation
from qdgnn_design.species_actions import exchange, pair, slot_pairs, substitution
from qdgnn_design.strain_actions import deform, deformations
from qdgnn_design.symmetry import equivalent_sites, orbits, permutations, structure_key

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FAMILIES = ("substitute", "pair", "aliovalent", "swap", "vacancy", "interstitial", "strain")
BECAME = " → "
"""Between the name of an action and what came of it, in histories."""
_REMEMBERED = 50_000
"""Masks and keys kept in memory."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A structure and how it was made."""

    atoms: Atoms
    history: tuple[str, ...] = ()
    """Actions since the start, each with the formula that it led to."""


@dataclass(frozen=True, kw_only=True)
class SpaceConfig:
    """What may be changed."""

    elements: tuple[str, ...] = ()
    """Elements that may enter; those of the start always may. None more if empty."""
    families: tuple[str, ...] = ("substitute", "pair")
    """Kinds of actions, of `FAMILIES`."""
    slots: Literal["orbits", "sites"] = "orbits"
    """What substitution fills at once: all equivalent sites of the start, or one site."""
    rescale: bool = True
    """Change the volume with the covalent radii at a substitution."""
    strain_step: float = 0.02
    """Relative change of a length by one strain action."""
    max_strain: float = 0.06
    """Largest principal strain against the start."""
    mobile: str = ""
    """Element whose ions make up for an aliovalent dopant; the lightest cation if empty."""
    max_defects: int = 2
    """Most atoms missing or extra."""

    def __post_init__(self) -> None:
        if unknown := set(self.families) - set(FAMILIES):
            raise ValueError(f"families must be of {FAMILIES}, got {sorted(unknown)}")
        if not self.families:
            raise ValueError(f"families must hold at least one of {FAMILIES}, got none")
        if not 0 < self.strain_step <= self.max_strain < 0.3:
            raise ValueError(
                "strain_step and max_strain must satisfy 0 < step <= max < 0.3, got "
                f"{self.strain_step} and {self.max_strain}"
            )
        for symbol in (*self.elements, *([self.mobile] if self.mobile else [])):
            oxidation_states(symbol)


class DesignSpace:
    """Actions, masks, keys and encodings of one start.

    Args:
        start: Starting material with a cell.
        config: What may be changed.

    Raises:
        ValueError: If the start has no cell or no action is possible.
    """

    def __init__(self, start: Atoms, config: SpaceConfig | None = None) -> None:
        if len(start) == 0 or start.cell.rank < 3:
            raise ValueError(
                f"the start must be a crystal with three cell vectors, got {start.symbols} with "
                f"{start.cell.rank}; give it a cell"
            )
        self.config = config or SpaceConfig()
        self.start = with_oxidation(start)
        self.start.calc = None
        self.start.set_constraint()
        self.start.set_array(SITE, np.arange(len(start)))
        self.pool = tuple(dict.fromkeys((*sorted(set(start.symbols)), *self.config.elements)))
        each = [[site] for site in range(len(start))]
        self.slots = orbits(self.start) if self.config.slots == "orbits" else each
        self.actions: tuple[Action, ...] = tuple(self._actions())
        self._rows = permutations(self.start, self._kinds())
        self._masks: dict[bytes, Mask] = {}
        self._keys: dict[bytes, str] = {}
        if not self.mask(self.start).any():
            raise ValueError(
                f"{start.symbols} must allow at least one action, got none of "
                f"{self.config.families} with elements {self.pool}; add elements or families"
            )

    def mask(self, atoms: Atoms) -> Mask:
        """Actions that may be made, (n_actions,); of equivalent single sites only the first."""
        state = _state(atoms) + charges_of(atoms).tobytes() + atoms.get_array(SITE).tobytes()
        if state not in self._masks:
            if len(self._masks) >= _REMEMBERED:
                self._masks.clear()
            self._masks[state] = self._mask(atoms)
        return self._masks[state].copy()

    def apply(self, index: int, candidate: Candidate, rng: Generator) -> Candidate:
        """The structure after one action.

        Raises:
            ValueError: If the mask does not allow it.
        """
        action = self.actions[index]
        if not action.allowed(candidate.atoms):
            raise ValueError(f"{action.name!r} is masked for {candidate.atoms.symbols}")
        atoms = action.apply(candidate.atoms, rng)
        return Candidate(atoms, (*candidate.history, f"{action.name}{BECAME}{atoms.symbols}"))

    def step(self, candidate: Candidate, rng: Generator) -> Candidate:
        """One random allowed action; the candidate itself where there is none."""
        allowed = np.flatnonzero(self.mask(candidate.atoms))
        if len(allowed) == 0:
            return candidate
        return self.apply(int(allowed[rng.integers(len(allowed))]), candidate, rng)

    def walk(self, rng: Generator, length: int) -> Candidate:
        """``length`` random actions from the start."""
        candidate = Candidate(self.start)
        for _ in range(length):
            candidate = self.step(candidate, rng)
        return candidate

    def key(self, atoms: Atoms) -> str:
        """Hash that equivalent decorations of the start share."""
        state = _state(atoms)
        if state not in self._keys:
            if len(self._keys) >= _REMEMBERED:
                self._keys.clear()
            self._keys[state] = structure_key(atoms, self.start, self._rows)
        return self._keys[state]

    def encode(self, atoms: Atoms) -> Array:
        """Element of each slot, composition and strain as numbers, (n_features,)."""
        index = {atomic_numbers[symbol]: k for k, symbol in enumerate(self.pool)}
        columns = np.array([index[z] for z in atoms.numbers.tolist()])
        onehot = np.eye(len(self.pool))[columns]
        composition = onehot.mean(axis=0)
        filled = np.zeros((len(self.slots), len(self.pool)))
        site = atoms.get_array(SITE)
        for k, slot in enumerate(self.slots):
            at = np.isin(site, slot)
            if at.any():
                filled[k] = onehot[at].mean(axis=0)
        gradient = np.linalg.solve(self.start.cell.array, atoms.cell.array)
        strain = 0.5 * (gradient @ gradient.T - np.eye(3))
        extra = (len(atoms) - len(self.start)) / len(self.start)
        return np.concatenate([filled.ravel(), composition, strain[np.triu_indices(3)], [extra]])

    def _mask(self, atoms: Atoms) -> Mask:
        allowed = np.array([action.allowed(atoms) for action in self.actions])
        if self.config.slots == "sites":
            first = set(atoms.get_array(SITE)[np.unique(equivalent_sites(atoms))].tolist())
            for k, action in enumerate(self.actions):
                if action.slot is not None and self.slots[action.slot][0] not in first:
                    allowed[k] = False
        return allowed

    def _actions(self) -> list[Action]:
        makers: dict[str, Callable[[], Sequence[Action]]] = {
            "substitute": self._substitutions,
            "pair": lambda: [
                pair(a, b, self.pool, self.config.rescale) for a, b in slot_pairs(self.slots)
            ],
            "aliovalent": self._aliovalent,
            "swap": lambda: [exchange()],
            "vacancy": lambda: [self._bounded(remove(s), -1) for s in self.pool],
            "interstitial": lambda: [self._bounded(insert(s), 1) for s in self.pool],
            "strain": lambda: [
                deform(name, matrix, self.start, self.config.max_strain)
                for name, matrix in deformations(self.config.strain_step).items()
            ],
        }
        return [action for family in self.config.families for action in makers[family]()]

    def _substitutions(self) -> list[Action]:
        """Charges of a slot can change by pairs only, by one or two: leave out what never fits."""
        charges = charges_of(self.start)
        return [
            substitution(k, slot, symbol, rescale=self.config.rescale)
            for k, slot in enumerate(self.slots)
            for symbol in self.pool
            if not is_ionic(self.start)
            or any(q * charges[slot[0]] > 0 for q in oxidation_states(symbol))
        ]

    def _aliovalent(self) -> list[Action]:
        mobile = self.config.mobile or self._lightest_cation()
        charges = charges_of(self.start)
        return [
            self._bounded(aliovalent(slot, symbol, state, mobile, self.config.max_defects))
            for slot in self.slots
            for symbol in self.pool
            for state in oxidation_states(symbol)
            if mobile and symbol != mobile and state * charges[slot[0]] > 0
            if abs(state - charges[slot[0]]) in (1, 2)
        ]

    def _lightest_cation(self) -> str:
        cations = self.start.numbers[charges_of(self.start) > 0]
        return str(Atoms([int(cations.min())]).symbols) if len(cations) else ""

    def _bounded(self, action: Action, change: int | None = None) -> Action:
        """Masked where too many atoms would be missing or extra (``change`` None: seen after)."""
        size, most = len(self.start), self.config.max_defects

        def allowed(atoms: Atoms) -> bool:
            if not action.allowed(atoms):
                return False
            if change is None:
                return abs(len(atoms) - size) < most
            return abs(len(atoms) + change - size) <= most

        return Action(action.name, action.apply, allowed, action.slot)

    def _kinds(self) -> list[int]:
        """Sites that may hold the same elements; in an ionic start, of the same charge."""
        charges = charges_of(self.start)
        return [int(kind) for kind in np.unique(charges, return_inverse=True)[1]]


def _state(atoms: Atoms) -> bytes:
    """All that makes a structure, bit by bit."""
    parts = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    return b"".join(part.tobytes() for part in parts)
