"""Tasks of the benchmark: an alloy with an exact oracle, and substitution in a perovskite.

EMT-fcc8: eight sites of an fcc cell, seven elements, 7^8 = 5.8 million decorations, about 40,000 of
them different. The oracle is ASE's EMT: the minimum of a parabola through the energies of three
volumes gives formation energy (from the elements) and bulk modulus. It is exact by definition.

Perovskite: the rock-salt ordered 10-atom cell A2BB'X6; sites A (2), B, B', X (6) take elements of
the charge that stands there or, in pairs, one up and one down. The oracle is the shipped property
model at the volume that the covalent radii give, so this task measures search, not materials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.data import atomic_numbers, reference_states
from numpy.random import Generator
from numpy.typing import NDArray
from pymatgen.optimization.neighbors import find_points_in_spheres

from qdgnn_ase import Predictor
from qdgnn_design.evaluate import Evaluator, Values, surrogate
from qdgnn_design.space import DesignSpace, SpaceConfig
from qdgnn_design.targets import Target

Array = NDArray[np.float64]

EMT_ELEMENTS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
CATIONS = (
    *("Li", "Na", "K", "Rb", "Cs", "Ag", "Tl", "In"),
    *("Mg", "Ca", "Sr", "Ba", "Zn", "Cd", "Hg", "Ge", "Sn", "Pb", "Mn", "Fe", "Co", "Ni", "Cu"),
    *("Sc", "Y", "La", "Bi", "Sb", "Ga", "Al"),
)
ANIONS = ("F", "Cl", "Br", "I", "O", "S")
_LATTICE = 3.95
"""Å, of the fcc start; between those of the seven elements."""


@dataclass(frozen=True)
class Task:
    """What is asked of every method."""

    name: str
    space: DesignSpace
    evaluator: Evaluator
    """Remembers every structure over all runs; budgets count what each run asks for."""
    features: Callable[[Sequence[Atoms]], Array]
    draw_goal: Callable[[Generator], tuple[Target, ...]]
    """Targets that some structure of the space meets."""
    horizon: int


def emt_task(predictor: Predictor) -> Task:
    """The alloy; features are the embedding of the property model."""
    start = bulk("Cu", a=_LATTICE) * (2, 2, 2)
    config = SpaceConfig(
        elements=EMT_ELEMENTS, families=("substitute",), slots="sites", rescale=False
    )
    space = DesignSpace(start, config)

    def goal(rng: Generator) -> tuple[Target, ...]:
        atoms = start.copy()
        atoms.symbols[:] = rng.choice(EMT_ELEMENTS, size=len(atoms))
        values = emt_values(atoms)
        return tuple(
            Target(name=name, low=values[name], high=values[name], tolerance=tolerance)
            for name, tolerance in (("formation_energy", 0.01), ("bulk_modulus", 3.0))
        )

    evaluator = remembered(space, lambda many: [Values(emt_values(atoms)) for atoms in many])
    return Task("EMT-fcc8", space, evaluator, _embedding(space, predictor), goal, horizon=8)


def perovskite_task(predictor: Predictor) -> Task:
    """The double perovskite, with a gap and a bulk modulus as targets."""
    config = SpaceConfig(elements=(*CATIONS, *ANIONS), families=("substitute", "pair"))
    space = DesignSpace(double_perovskite(), config)
    names = {"band_gap": 0.1, "bulk_modulus": 2.0}
    evaluator = remembered(space, surrogate(predictor))

    def goal(rng: Generator) -> tuple[Target, ...]:
        while True:
            found = evaluator([space.walk(rng, 12).atoms])[0]
            if isinstance(found, Values) and found.values["band_gap"] > 0.5:
                break
        return tuple(
            Target(name=n, low=found.values[n], high=found.values[n], tolerance=tolerance)
            for n, tolerance in names.items()
        )

    return Task("perovskite", space, evaluator, _embedding(space, predictor), goal, horizon=6)


def double_perovskite(a: float = 12.4) -> Atoms:
    """Cs2SnPbI6 in the rock-salt ordered cell of elpasolite, 10 atoms; ``a`` in Å."""
    x = 0.25
    fractional = [(0.25, 0.25, 0.25), (0.75, 0.75, 0.75), (0, 0, 0), (0.5, 0.5, 0.5)]
    cell = 0.5 * a * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    halogens = [sign * x * a * axis for axis in np.eye(3) for sign in (1, -1)]
    positions = np.concatenate([np.array(fractional) @ cell, halogens])
    # Sn and Pb, so that the two B sites are two orbits
    return Atoms("Cs2SnPbI6", positions=positions, cell=cell, pbc=True)


def emt_values(atoms: Atoms, strain: float = 0.02) -> dict[str, float]:
    """Formation energy (eV/atom) and bulk modulus (GPa) by EMT.

    From the parabola through the energies at three lattice parameters about that of Vegard's law.
    """
    mean = float(np.mean([_element(symbol)[0] for symbol in atoms.symbols]))
    lattice = (4 * atoms.cell.volume / len(atoms)) ** (1 / 3)
    energy, modulus, _ = _parabola(atoms, mean / lattice, strain)
    reference = float(np.mean([_element(symbol)[1] for symbol in atoms.symbols]))
    return {"formation_energy": energy - reference, "bulk_modulus": modulus}


class FastEMT(EMT):  # type: ignore[misc] # ASE is untyped
    """ASE's EMT with pymatgen's neighbour search: the same numbers, several times faster."""

    def initialize(self, atoms: Atoms) -> None:
        """Parameters of the elements, and the neighbour list."""
        super().initialize(atoms)
        self.nl = _Neighbors(self.rc_list)


class _Neighbors:
    """What EMT asks of a neighbour list."""

    def __init__(self, cutoff: float) -> None:
        self._cutoff = cutoff

    def update(self, atoms: Atoms) -> None:
        points = np.ascontiguousarray(atoms.positions)
        self._center, self._neighbor, self._image, distance = find_points_in_spheres(
            points, points, self._cutoff, np.ones(3, dtype=np.int64), atoms.cell.array, tol=1e-8
        )
        self._real = distance > 1e-8

    def get_neighbors(self, index: int) -> tuple[NDArray[np.int64], Array]:
        chosen = (self._center == index) & self._real
        return self._neighbor[chosen], self._image[chosen]


def _parabola(atoms: Atoms, scale: float, strain: float) -> tuple[float, float, float]:
    """Energy per atom at the minimum (eV), bulk modulus (GPa), volume per atom (Å^3)."""
    volumes, energies = [], []
    for factor in (1 - strain, 1.0, 1 + strain):
        copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        copy.set_cell(atoms.cell.array * scale * factor, scale_atoms=True)
        copy.calc = FastEMT()
        volumes.append(copy.cell.volume / len(atoms))
        energies.append(copy.get_potential_energy() / len(atoms))
    curvature, slope, constant = np.polyfit(volumes, energies, 2)
    volume = -slope / (2 * curvature)
    energy = constant + slope * volume + curvature * volume**2
    return float(energy), float(2 * curvature * volume / units.GPa), float(volume)


@cache
def _element(symbol: str) -> tuple[float, float]:
    """Lattice parameter (Å) and energy (eV/atom) of the fcc element by EMT."""
    scale = reference_states[atomic_numbers[symbol]]["a"] / _LATTICE
    atoms = bulk(symbol, "fcc", a=_LATTICE)
    for _ in range(5):
        energy, _, volume = _parabola(atoms, scale, 0.02)
        scale = (4 * volume) ** (1 / 3) / _LATTICE
    return _LATTICE * scale, energy


def remembered(space: DesignSpace, evaluator: Evaluator) -> Evaluator:
    """The evaluator with a memory over all runs: it saves time, not budget."""
    known: dict[str, Values | str] = {}

    def evaluate(structures: Sequence[Atoms]) -> list[Values | str]:
        keys = [space.key(atoms) for atoms in structures]
        new = {k: a for k, a in zip(keys, structures, strict=True) if k not in known}
        if new:
            known.update(zip(new, evaluator(list(new.values())), strict=True))
        return [known[key] for key in keys]

    return evaluate


def _embedding(space: DesignSpace, predictor: Predictor) -> Callable[[Sequence[Atoms]], Array]:
    known: dict[str, Array] = {}

    def features(structures: Sequence[Atoms]) -> Array:
        keys = [space.key(atoms) for atoms in structures]
        new = {k: a for k, a in zip(keys, structures, strict=True) if k not in known}
        if new:
            known.update(zip(new, predictor.embedding(list(new.values())), strict=True))
        return np.array([known[key] for key in keys])

    return features
