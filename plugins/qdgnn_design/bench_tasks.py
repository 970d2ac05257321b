"""Tasks of the benchmark: an alloy, strain and defects, substitution in a perovskite and a garnet.

EMT-fcc8: eight sites of an fcc cell, seven elements, 7^8 = 5.8 million decorations, about 40,000 of
them different. The oracle is ASE's EMT: the minimum of a parabola through the energies of three
volumes gives formation energy (from the elements) and bulk modulus. It is exact by definition.

Strain and defects: 16 sites of fcc copper; strains of up to 6 %, vacancies (two at most) and gold
on single sites change the bulk modulus of the cell as it stands, again by EMT.

Perovskite: the rock-salt ordered 10-atom cell A2BB'X6; sites A (2), B, B', X (6) take elements of
the charge that stands there or, in pairs, one up and one down. The oracle is the shipped property
model at the volume that the covalent radii give, so this task measures search, not materials.

Garnet: the primitive cell of Y3Al5O12, 80 atoms; the cations of its three orbits change in the same
way, before the same oracle, to about 6,000 garnets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_ase import Predictor
from qdgnn_design.bench_oracle import LATTICE, emt_values, strained_modulus
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
HIGH_CHARGES = ("Si", "Ti", "Zr", "Hf", "P", "V", "As", "Nb", "Ta")
"""Cations of four and five charges, which garnets also hold."""


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
    budget: int = 500
    """Most unique evaluations of a run."""


def emt_task(predictor: Predictor) -> Task:
    """The alloy; features are the embedding of the property model."""
    start = bulk("Cu", a=LATTICE) * (2, 2, 2)
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


def defects_task(predictor: Predictor) -> Task:
    """Copper that is strained, or that loses and exchanges atoms, to a bulk modulus."""
    config = SpaceConfig(
        elements=("Au",),
        families=("strain", "vacancy", "substitute"),
        slots="sites",
        rescale=False,
    )
    space = DesignSpace(bulk("Cu", cubic=True) * (2, 2, 1), config)

    def values(atoms: Atoms) -> Values:
        return Values({"bulk_modulus": strained_modulus(atoms)})

    def goal(rng: Generator) -> tuple[Target, ...]:
        wanted = values(space.walk(rng, 12).atoms).values["bulk_modulus"]
        return (Target(name="bulk_modulus", low=wanted, high=wanted, tolerance=1.0),)

    evaluator = remembered(space, lambda many: [values(atoms) for atoms in many])
    features = _embedding(space, predictor)
    return Task("strain+defects", space, evaluator, features, goal, horizon=8, budget=200)


def perovskite_task(predictor: Predictor) -> Task:
    """The double perovskite."""
    return _ionic_task("perovskite", double_perovskite(), (*CATIONS, *ANIONS), predictor)


def garnet_task(predictor: Predictor) -> Task:
    """The garnet; 80 atoms cost more, so its budget is smaller."""
    elements = (*CATIONS, *HIGH_CHARGES)
    return _ionic_task("garnet", garnet(), elements, predictor, budget=200)


def _ionic_task(
    name: str, start: Atoms, elements: tuple[str, ...], predictor: Predictor, budget: int = 500
) -> Task:
    """Orbits filled at constant total charge, with a gap and a bulk modulus as targets."""
    space = DesignSpace(start, SpaceConfig(elements=elements, families=("substitute", "pair")))
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

    features = _embedding(space, predictor)
    return Task(name, space, evaluator, features, goal, horizon=6, budget=budget)


def double_perovskite(a: float = 12.4) -> Atoms:
    """Cs2SnPbI6 in the rock-salt ordered cell of elpasolite, 10 atoms; ``a`` in Å."""
    x = 0.25
    fractional = [(0.25, 0.25, 0.25), (0.75, 0.75, 0.75), (0, 0, 0), (0.5, 0.5, 0.5)]
    cell = 0.5 * a * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    halogens = [sign * x * a * axis for axis in np.eye(3) for sign in (1, -1)]
    positions = np.concatenate([np.array(fractional) @ cell, halogens])
    # Sn and Pb, so that the two B sites are two orbits
    return Atoms("Cs2SnPbI6", positions=positions, cell=cell, pbc=True)


def garnet() -> Atoms:
    """Y3Al5O12, Ia-3d, primitive cell of 80 atoms: measured cell and sites (Euler, Bruce 1965)."""
    return crystal(
        ["Y", "Al", "Al", "O"],
        basis=[(1 / 8, 0, 1 / 4), (0, 0, 0), (3 / 8, 0, 1 / 4), (-0.0306, 0.0512, 0.1500)],
        spacegroup=230,
        cellpar=[12.0062, 12.0062, 12.0062, 90, 90, 90],
        primitive_cell=True,
    )


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
