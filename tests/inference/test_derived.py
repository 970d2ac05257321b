"""Cohesion and elastic formulas against tables, identities and sampling."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from qdgnn_ase.inference.derived import (
    cohesive_energy,
    debye_function,
    lindemann_temperature,
    poisson_ratio,
    propagated,
    young_modulus,
)

SOLIDS = [  # measured K and G in GPa, Debye temperature in K (Kittel; Anderson 1963 for MgO)
    (bulk("Si"), 98.0, 67.0, 645.0),
    (bulk("Cu"), 142.0, 48.0, 343.0),
    (bulk("MgO", "rocksalt", a=4.21), 160.0, 130.0, 946.0),
    (bulk("NaCl", "rocksalt", a=5.64), 25.0, 15.0, 321.0),
]


@pytest.mark.parametrize(
    ("atoms", "bulk_gpa", "shear_gpa", "wanted"), SOLIDS, ids=["Si", "Cu", "MgO", "NaCl"]
)
def test_debye_temperatures(atoms: Atoms, bulk_gpa: float, shear_gpa: float, wanted: float) -> None:
    assert debye_function(atoms)(bulk_gpa, shear_gpa) == pytest.approx(wanted, rel=0.05)


def test_debye_temperature_of_a_supercell() -> None:
    atoms, k, g, _ = SOLIDS[1]
    supercell = debye_function(atoms.repeat((2, 3, 1)))(k, g)
    assert supercell == pytest.approx(debye_function(atoms)(k, g))


def test_stiffer_and_lighter_is_higher() -> None:
    atoms, k, g, _ = SOLIDS[0]
    assert debye_function(atoms)(4 * k, 4 * g) == pytest.approx(2 * debye_function(atoms)(k, g))


def test_young_and_poisson_identities() -> None:
    k, g = 98.0, 67.0
    young, poisson = young_modulus(k, g), poisson_ratio(k, g)
    assert young == pytest.approx(2 * g * (1 + poisson))
    assert young == pytest.approx(3 * k * (1 - 2 * poisson))


@pytest.mark.parametrize(
    ("formula", "formation", "measured"),
    [("NaCl", -2.131, 3.31), ("MgO", -3.118, 5.17), ("SiO2", -3.147, 6.44), ("Si", 0.0, 4.63)],
)
def test_cohesive_energy(formula: str, formation: float, measured: float) -> None:
    """Heats of formation and of atomisation of solids, eV/atom (CRC Handbook; Kittel for Si)."""
    numbers = Atoms(formula).numbers
    assert cohesive_energy(formation, np.bincount(numbers)) == pytest.approx(measured, abs=0.05)


def test_cohesive_energy_of_an_element_without_a_value() -> None:
    assert np.isnan(cohesive_energy(0.0, np.bincount(Atoms("NaXe").numbers)))


def test_lindemann_temperature_scales_with_the_square_of_debye() -> None:
    atoms = bulk("Cu")
    kelvin = [lindemann_temperature(theta, atoms, 2.55) + 273.15 for theta in (170.0, 340.0)]
    assert kelvin[1] == pytest.approx(4 * kelvin[0])
    assert 700 < kelvin[1] < 2000  # copper melts at 1358 K
    assert np.isnan(lindemann_temperature(100.0, atoms, np.nan))


def test_no_density_without_a_volume() -> None:
    with pytest.raises(ValueError, match="three cell vectors"):
        debye_function(molecule("H2O"))


def test_propagation_against_sampling() -> None:
    rng = np.random.default_rng(0)
    k, g = 100.0 + 2.0 * rng.normal(size=100_000), 50.0 + 1.5 * rng.normal(size=100_000)
    value, std = propagated(young_modulus, (100.0, 2.0), (50.0, 1.5))
    assert value == pytest.approx(young_modulus(100.0, 50.0))
    assert std == pytest.approx(float(np.std(young_modulus(k, g))), rel=0.01)  # type: ignore[arg-type]
