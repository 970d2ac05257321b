"""Thermal properties of a harmonic crystal, by phonopy on a mesh of wave vectors, and melting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.geometry import get_distances
from numpy.typing import NDArray
from phonopy import Phonopy
from phonopy.physical_units import get_physical_units
from scipy.optimize import brentq

from qdgnn_phonons.crystal import from_phonopy
from qdgnn_phonons.modes import mode_amplitudes
from qdgnn_phonons.spectrum import MESH
from qdgnn_phonons.stability import (
    SOFT,
    ImaginaryModesError,
    check_force_constants,
    check_stable,
    check_temperatures,
    translations,
)

Array = NDArray[np.float64]
_HOTTEST = 20_000.0
_ICE_POINT = 273.15


@dataclass(frozen=True, slots=True, eq=False)
class ThermalProperties:
    """Harmonic properties at constant volume."""

    temperatures: Array
    """(n,) K."""
    free_energy: Array
    """(n,) eV per atom, of the vibrations, zero point included."""
    entropy_j_mol_k: Array
    """(n,) J/(mol K), per mole of atoms."""
    heat_capacity_j_mol_k: Array
    """(n,) J/(mol K), per mole of atoms; tends to 24.94."""


@dataclass(frozen=True, slots=True)
class Melting:
    """Lindemann's estimate of the melting temperature."""

    temperature_celsius: float
    """°C."""
    critical_ratio: float
    """Root mean square displacement over the distance of nearest neighbours at which it melts."""
    neighbor_distance: float
    """Å."""
    assumption: str
    """What the number rests on."""


def thermal_properties(
    phonon: Phonopy,
    temperatures: Sequence[float] | Array,
    mesh: float = MESH,
    *,
    allow_imaginary: bool = False,
) -> ThermalProperties:
    """Free energy, entropy and heat capacity per atom.

    Args:
        phonon: Phonopy object with force constants.
        temperatures: K.
        mesh: Density of the mesh, see `MESH`.
        allow_imaginary: Leave imaginary modes out, as phonopy does, instead of refusing.

    Raises:
        ValueError: If a temperature is not finite and >= 0.
        ImaginaryModesError: If there are modes without a restoring force.
    """
    temperatures = check_temperatures(temperatures)
    _run_mesh(phonon, mesh, allow_imaginary=allow_imaginary)
    result = phonon.run_thermal_properties(temperatures=temperatures, exclude_gamma_acoustic=True)
    n_atoms = len(phonon.primitive)
    return ThermalProperties(
        temperatures,
        np.asarray(result.free_energy) / get_physical_units().EvTokJmol / n_atoms,
        np.asarray(result.entropy) / n_atoms,
        np.asarray(result.heat_capacity) / n_atoms,
    )


def thermal_displacements(
    phonon: Phonopy,
    temperatures: Sequence[float] | Array,
    mesh: float = MESH,
    *,
    allow_imaginary: bool = False,
) -> Array:
    """<u_x^2>, <u_y^2>, <u_z^2> in the primitive cell, (n_temperatures, n_atoms, 3) Å^2.

    Of the infinite crystal: `mean_square_displacements` is smaller by the waves that are longer
    than its supercell. Arguments and errors as for `thermal_properties`.
    """
    temperatures = check_temperatures(temperatures)
    _run_mesh(phonon, mesh, allow_imaginary=allow_imaginary, all_points=True)
    frequencies, weights = _weights(phonon)
    squares = [mode_amplitudes(frequencies, float(t)) ** 2 @ weights for t in temperatures]
    return np.array(squares).reshape(len(temperatures), -1, 3)


def _weights(phonon: Phonopy) -> tuple[Array, Array]:
    """Frequencies (n_modes,) of the mesh and |e|^2 / (m n_q) of each component, (n_modes, 3 n)."""
    frequencies = np.array(phonon.mesh.frequencies, dtype=np.float64)
    eigenvectors = np.asarray(phonon.mesh.eigenvectors)
    squares = (np.abs(eigenvectors) ** 2).transpose(0, 2, 1)
    squares /= np.repeat(phonon.primitive.masses, 3) * len(frequencies)
    gamma = ~phonon.mesh.qpoints.any(axis=1)
    frequencies[gamma] = np.where(translations(frequencies[gamma]), 0.0, frequencies[gamma])
    moving = frequencies > SOFT
    return frequencies[moving], squares[moving]


def _run_mesh(
    phonon: Phonopy, mesh: float, *, allow_imaginary: bool, all_points: bool = False
) -> None:
    """Frequencies on the mesh; modes between -SOFT and 0 are what interpolation leaves at Gamma."""
    check_force_constants(phonon)
    if not allow_imaginary:
        check_stable(phonon)
    phonon.run_mesh(mesh, is_mesh_symmetry=not all_points, with_eigenvectors=all_points)
    lowest = float(phonon.mesh.frequencies.min())
    if lowest < -SOFT and not allow_imaginary:
        raise ImaginaryModesError(
            f"frequencies must be above {-SOFT} THz on the mesh, got {lowest:.3f}; they are at "
            "wave vectors that the supercell does not hold: take a larger one, or relax the "
            "crystal without symmetry"
        )


def lindemann_melting(phonon: Phonopy, critical_ratio: float = 0.1, mesh: float = MESH) -> Melting:
    """Temperature at which sqrt(<u^2>) is a tenth of the distance of nearest neighbours.

    Args:
        phonon: Phonopy object with force constants.
        critical_ratio: Ratio at melting (F. Lindemann, Phys. Z. 11, 609, 1910). Crystals differ
            by a factor of two, and the temperature goes with its square.
        mesh: Density of the mesh.

    Raises:
        ValueError: If the ratio is exceeded at 0 K or not reached at 20,000 K.
    """
    if not 0 < critical_ratio < 1:
        raise ValueError(f"critical_ratio must lie between 0 and 1, got {critical_ratio}")
    distance = _neighbor_distance(phonon)
    _run_mesh(phonon, mesh, allow_imaginary=False, all_points=True)
    frequencies, weights = _weights(phonon)
    per_mode = weights.sum(axis=1) / len(phonon.primitive)

    def ratio(temperature: float) -> float:
        square = mode_amplitudes(frequencies, temperature) ** 2 @ per_mode
        return float(np.sqrt(square)) / distance

    ends = (0.0, _HOTTEST)
    if not ratio(ends[0]) < critical_ratio < ratio(ends[1]):
        raise ValueError(
            f"ratio must pass {critical_ratio} between 0 and {_HOTTEST:g} K, got "
            f"{ratio(ends[0]):.4f} and {ratio(ends[1]):.4f}"
        )
    kelvin = float(brentq(lambda t: ratio(t) - critical_ratio, *ends, xtol=0.01))
    return Melting(
        kelvin - _ICE_POINT,
        critical_ratio,
        distance,
        f"melts when the root mean square displacement of harmonic vibrations, mean over atoms, is "
        f"{critical_ratio:g} of the nearest-neighbour distance; volume and frequencies as at 0 K",
    )


def _neighbor_distance(phonon: Phonopy) -> float:
    atoms = from_phonopy(phonon.supercell)
    distances = get_distances(atoms.positions[:1], atoms.positions[1:], atoms.cell, pbc=True)[1]
    return float(distances.min())
