"""What is computed for one compound: heat capacity, last peak, thermal conductivity.

The conductivity is Slack's estimate (G. A. Slack, J. Phys. Chem. Solids 34, 321, 1973; D. T.
Morelli and G. A. Slack, High Thermal Conductivity Materials, Springer 2006)

    kappa = A M theta^3 delta n^(1/3) / (gamma^2 T)
    A = 2.43e-6 / (1 - 0.514 / gamma + 0.228 / gamma^2)

with the mean atomic mass M in amu, the Debye temperature of the acoustic modes theta in K, the cube
root of the volume per atom delta in Å (A's unit goes with it), n atoms in the primitive cell and
the Grüneisen parameter gamma. Here theta^2 = 5/3 (hbar/k)^2 <omega^2> of the three lowest bands and
gamma is their root mean square, weighted by the heat capacity.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, Literal

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from phonopy import Phonopy

from qdgnn_ase import ExtrapolationWarning, QDGNNCalculator
from qdgnn_phonons.config import PhononConfig
from qdgnn_phonons.crystal import from_phonopy, relax_crystal
from qdgnn_phonons.harmonic import harmonic_phonons
from qdgnn_phonons.modes import HBAR, THZ
from qdgnn_phonons.spectrum import density_of_states, last_peak
from qdgnn_phonons.stability import stability_of
from qdgnn_phonons.thermal import thermal_properties
from qdgnn_phonons.volume import gruneisen

Row = dict[str, Any]
Quantity = Literal["heat_capacity", "last_peak", "conductivity"]
MESH = 30.0
TEMPERATURE = 300.0
CONFIG = PhononConfig(min_length=8.0, fmax=1e-4, relaxation_steps=200)
"""Small supercells and a looser relaxation than the default: hundreds of compounds in an hour."""
_WAVENUMBER = 1e10 / units._c
"""1 THz in cm^-1."""


@cache
def _calculator(model: str) -> Calculator:
    """One calculator per process."""
    return QDGNNCalculator(model, dtype="float64")


def compute(job: tuple[Quantity, Atoms], model: str = "default") -> Row:
    """Row of one compound, without any value of the reference.

    Args:
        job: What is asked, and the crystal.
        model: Embedded model or checkpoint.
    """
    quantity, atoms = job
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        warnings.filterwarnings("ignore", "logm result may be inaccurate")  # ASE's cell filter
        return phonon_row(quantity, atoms, _calculator(model))


def phonon_row(quantity: Quantity, atoms: Atoms, calculator: Calculator) -> Row:
    """Relax, compute the phonons and what is asked of them."""
    crystal = atoms.copy()
    crystal.calc = calculator
    crystal = relax_crystal(crystal, CONFIG)
    phonon = harmonic_phonons(crystal, CONFIG)
    report = stability_of(phonon)
    row = {
        "n_atoms": len(atoms),
        "n_supercell": len(phonon.supercell),
        "volume_ratio": crystal.get_volume() / atoms.get_volume(),
        "lowest_thz": report.lowest,
        "is_stable": report.is_stable,
    }
    if quantity == "heat_capacity":
        result = thermal_properties(phonon, [TEMPERATURE], MESH, allow_imaginary=True)
        return row | {quantity: float(result.heat_capacity_j_mol_k[0])}
    if quantity == "last_peak":
        return row | {quantity: last_peak(density_of_states(phonon, MESH)) * _WAVENUMBER}
    return row | slack(crystal, phonon)


def slack(crystal: Atoms, phonon: Phonopy, temperature: float = TEMPERATURE) -> Row:
    """Slack's thermal conductivity in W/(m K), and what it is made of.

    Raises:
        ImaginaryModesError: If there are modes without a restoring force.
    """
    modes = gruneisen(crystal, phonon, CONFIG, mesh=MESH)
    gamma = modes.mean(temperature, slice(3))
    squares = (THZ * modes.frequencies[:, :3]) ** 2
    mean = float((squares.mean(axis=1) * modes.weights).sum() / modes.weights.sum())
    debye = HBAR / units.kB * float(np.sqrt(5 / 3 * mean))
    primitive = from_phonopy(phonon.primitive)
    n = len(primitive)
    size = float((primitive.get_volume() / n) ** (1 / 3))
    mass = float(primitive.get_masses().mean())
    prefactor = 2.43e-6 / (1 - 0.514 / gamma + 0.228 / gamma**2)
    kappa = prefactor * mass * debye**3 * size * n ** (1 / 3) / (gamma**2 * temperature)
    return {"conductivity": kappa, "gruneisen": gamma, "debye_kelvin": debye, "n_primitive": n}
