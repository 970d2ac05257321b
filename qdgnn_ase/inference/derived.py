"""Properties that follow from predicted ones: cohesion, elasticity of an isotropic solid.

K and G are bulk and shear modulus in GPa. Uncertainties are propagated to first order, with errors
of K and G taken as independent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from qdgnn_ase.quantum.references import elemental_cohesive_energies

LINDEMANN = 0.1
"""Root mean square displacement over the shortest bond at which a crystal is said to melt."""
_STEP = 1e-3


def cohesive_energy(formation_energy: float, counts: NDArray[np.float64]) -> float:
    """Energy in eV/atom to take a crystal apart into free atoms; positive for a bound one.

    E_coh = sum_k x_k E_coh,k - E_form with the atomic fractions x_k and the measured cohesive
    energies of the elements; NaN where an element has none.

    Args:
        formation_energy: eV/atom.
        counts: (n,), amount of each element; column = atomic number.
    """
    there = np.flatnonzero(counts)
    energies = elemental_cohesive_energies()[there]
    return float(np.average(energies, weights=counts[there]) - formation_energy)


def young_modulus(bulk: float, shear: float) -> float:
    """E = 9 K G / (3 K + G), GPa."""
    return 9 * bulk * shear / (3 * bulk + shear)


def poisson_ratio(bulk: float, shear: float) -> float:
    """(3 K - 2 G) / (2 (3 K + G)), between -1 and 0.5."""
    return (3 * bulk - 2 * shear) / (2 * (3 * bulk + shear))


def debye_function(atoms: Atoms) -> Callable[[float, float], float]:
    """Debye temperature in K as a function of K and G, from the mean sound velocity.

    theta = (hbar / k) (6 pi^2 n)^(1/3) v_m with n atoms per volume and
    3 / v_m^3 = 2 / v_t^3 + 1 / v_l^3, v_t = sqrt(G / rho), v_l = sqrt((K + 4 G / 3) / rho)
    (Anderson, J. Phys. Chem. Solids 1963).

    Raises:
        ValueError: If the structure has no volume.
    """
    if atoms.cell.rank < 3:
        raise ValueError(f"structure must have three cell vectors, got {atoms.cell.array.tolist()}")
    volume = atoms.get_volume() * 1e-30  # m^3
    density = atoms.get_masses().sum() * units._amu / volume
    wave_number = (6 * np.pi**2 * len(atoms) / volume) ** (1 / 3)

    def temperature(bulk: float, shear: float) -> float:
        transverse = (shear * 1e9 / density) ** 0.5
        longitudinal = ((bulk + 4 * shear / 3) * 1e9 / density) ** 0.5
        mean = (3 / (2 / transverse**3 + 1 / longitudinal**3)) ** (1 / 3)
        return float(units._hbar / units._k * wave_number * mean)

    return temperature


def lindemann_temperature(debye: float, atoms: Atoms, shortest: float) -> float:
    """Temperature in °C at which <u^2>^(1/2) of the Debye model is a tenth of the shortest bond.

    Above the Debye temperature <u^2> = 9 hbar^2 T / (m k theta^2), m the mean atomic mass
    (Lindemann 1910; the share of 0.1 is Gilvarry's, Phys. Rev. 102, 308, 1956).

    Args:
        debye: Debye temperature, K.
        atoms: Crystal.
        shortest: Its shortest bond, Å; NaN where there is none, which makes the result NaN.
    """
    limit = (LINDEMANN * shortest * 1e-10) ** 2
    mass = atoms.get_masses().mean() * units._amu
    return float(limit * mass * units._k * debye**2 / (9 * units._hbar**2) - 273.15)


def propagated(
    function: Callable[[float, float], float], bulk: tuple[float, float], shear: tuple[float, float]
) -> tuple[float, float]:
    """Value and standard deviation of a function of K and G.

    Args:
        function: Of K and G.
        bulk: Value and standard deviation, GPa.
        shear: Value and standard deviation, GPa.
    """
    (k, sigma_k), (g, sigma_g) = bulk, shear
    value = function(k, g)
    by_k = (function(k * (1 + _STEP), g) - value) / (k * _STEP) * sigma_k
    by_g = (function(k, g * (1 + _STEP)) - value) / (g * _STEP) * sigma_g
    return value, float(np.hypot(by_k, by_g))
