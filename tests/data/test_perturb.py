"""Random changes: what they change, what they keep, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from numpy.random import Generator, default_rng

from qdgnn_ase import (
    is_plausible,
    rattle,
    scale_volume,
    size_ratio,
    strain,
    substitute,
    swap,
    vacancy,
)
from qdgnn_ase.data.perturb import ISOVALENT

ACTIONS: dict[str, Callable[[Atoms, Generator], Atoms]] = {
    "strain": strain,
    "rattle": lambda atoms, rng: rattle(atoms, rng, 0.1),
    "substitute": substitute,
    "vacancy": vacancy,
    "swap": swap,
}


@pytest.fixture
def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.calc = EMT()
    atoms.info["note"] = "kept"
    return atoms


@pytest.fixture
def rng() -> Generator:
    return default_rng(3)


@pytest.mark.parametrize("name", ACTIONS)
def test_pure_and_reproducible(name: str, salt: Atoms) -> None:
    before = salt.copy()
    first, second = (ACTIONS[name](salt, default_rng(7)) for _ in range(2))
    other = ACTIONS[name](salt, default_rng(8))
    assert salt == before
    assert salt.calc is not None
    assert first == second
    assert first != salt
    assert other != first
    assert first.calc is None
    assert first.info == {"note": "kept"}


def test_strain_stays_within_its_bounds(salt: Atoms, rng: Generator) -> None:
    changes = []
    for _ in range(300):
        strained = strain(salt, rng, 0.1, 0.05)
        assert np.allclose(strained.get_scaled_positions(), salt.get_scaled_positions())
        changes.append(strained.get_volume() / salt.get_volume() - 1)
        shape = np.linalg.solve(salt.cell.array, strained.cell.array)
        assert np.allclose(shape, shape.T)  # no rotation
        assert np.abs(np.triu(shape, 1)).max() < 0.06
    assert -0.1 <= min(changes) < -0.08
    assert 0.08 < max(changes) <= 0.1


def test_scale_volume(salt: Atoms) -> None:
    scaled = scale_volume(salt, 0.7)
    assert scaled.get_volume() == pytest.approx(0.7 * salt.get_volume())
    assert np.allclose(scaled.cell.angles(), 90)


def test_rattle_has_the_width_asked_for(salt: Atoms, rng: Generator) -> None:
    large = salt.repeat(6)
    moved = rattle(large, rng, 0.2).positions - large.positions
    assert moved.std() == pytest.approx(0.2, rel=0.03)
    assert abs(moved.mean()) < 0.01


def test_rattle_moves_constrained_atoms_too(salt: Atoms, rng: Generator) -> None:
    from ase.constraints import FixAtoms

    salt.set_constraint(FixAtoms([0]))
    assert not np.allclose(rattle(salt, rng, 0.1).positions[0], salt.positions[0])


def test_substitute_replaces_a_species_within_its_group(salt: Atoms, rng: Generator) -> None:
    for _ in range(30):
        changed = substitute(salt, rng)
        old, new = (
            set(salt.symbols) - set(changed.symbols),
            set(changed.symbols) - set(salt.symbols),
        )
        assert len(old) == len(new) == 1
        assert any({*old, *new} <= set(group) for group in ISOVALENT)
        assert np.allclose(changed.positions, salt.positions)


def test_substitute_one_site(salt: Atoms, rng: Generator) -> None:
    changed = substitute(salt, rng, [["Na", "Ag"]], whole_species=False)
    assert sorted(changed.symbols) == sorted(["Ag", "Na", "Na", "Na", "Cl", "Cl", "Cl", "Cl"])


def test_size_ratio_follows_the_radii(salt: Atoms, rng: Generator) -> None:
    larger = substitute(salt, rng, [["Na", "Cs"]])
    assert size_ratio(larger, salt) > 1.3
    assert size_ratio(larger, salt) * size_ratio(salt, larger) == pytest.approx(1)


def test_vacancy_removes_one_atom(salt: Atoms, rng: Generator) -> None:
    assert len(vacancy(salt, rng)) == 7
    assert vacancy(salt, rng, "Cl").symbols.count("Cl") == 3


def test_swap_keeps_the_composition(salt: Atoms, rng: Generator) -> None:
    swapped = swap(salt, rng)
    assert sorted(swapped.numbers) == sorted(salt.numbers)
    assert (swapped.numbers != salt.numbers).sum() == 2


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda a, rng: strain(a, rng, volume=1.0), r"volume must be in \[0, 1\)"),
        (lambda a, rng: strain(a, rng, shear=-0.1), r"shear in \[0, 0.3\)"),
        (lambda a, rng: strain(molecule("H2O"), rng), "three cell vectors"),
        (lambda a, rng: scale_volume(a, 0.0), "factor must be > 0"),
        (lambda a, rng: rattle(a, rng, -0.1), "stdev must be >= 0"),
        (lambda a, rng: rattle(a, rng, np.nan), "stdev must be >= 0"),
        (lambda a, rng: substitute(bulk("He", "fcc", a=4), rng), r"pass `groups`"),
        (lambda a, rng: vacancy(bulk("Cu"), rng), "at least 2 atoms"),
        (lambda a, rng: vacancy(a, rng, "Li"), "one Li"),
        (lambda a, rng: swap(bulk("Cu").repeat(2), rng), "at least 2 elements"),
    ],
)
def test_impossible_requests_are_refused(
    action: Callable[[Atoms, Generator], Atoms], message: str, salt: Atoms, rng: Generator
) -> None:
    with pytest.raises(ValueError, match=message):
        action(salt, rng)


def test_plausible(salt: Atoms) -> None:
    assert is_plausible(salt)
    assert is_plausible(molecule("H2"))
    assert not is_plausible(scale_volume(salt, 0.1))
    assert not is_plausible(Atoms("Na", cell=[1.5, 5, 5], pbc=True))  # too near to its own image
    assert not is_plausible(Atoms("H2"))  # on top of each other
    assert not is_plausible(Atoms())
    assert not is_plausible(Atoms("H", positions=[[np.nan, 0, 0]]))
    pair = Atoms("CO", [[0, 0, 0], [0, 0, 0.75 * (0.76 + 0.66)]])
    assert is_plausible(pair, 0.74)
    assert not is_plausible(pair, 0.76)
