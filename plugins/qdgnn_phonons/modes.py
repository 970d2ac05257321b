"""Thermal displacements of the normal modes of a supercell: sampled, and exact.

The modes are those at the wave vectors that fit into the supercell. A harmonic crystal at
temperature T has Gaussian displacements u = sum_s sigma_s e_s x_s / sqrt(m) with independent
standard normals x_s and

    quantum    sigma^2 = hbar / (2 omega) coth(hbar omega / (2 k T))
    classical  sigma^2 = k T / omega^2

(M. Born and K. Huang, Dynamical Theory of Crystal Lattices, 1954, ch. IV). phonopy's
`RandomDisplacements` does the same; here <u^2> of the very same modes comes with it, translations
and modes without a restoring force are told apart, and 100 samples of 256 atoms take half the time.

| symbol | variable |
|---|---|
| sigma_s, Å sqrt(amu) | `mode_amplitudes` |
| e_s | rows of ``NormalModes.patterns``, cosine and sine part |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray
from phonopy import Phonopy

from qdgnn_phonons.crystal import from_phonopy
from qdgnn_phonons.stability import (
    SOFT,
    Policy,
    check_force_constants,
    check_temperatures,
    commensurate_points,
    refusal,
    stability_of,
    translations,
)

Array = NDArray[np.float64]
Statistics = Literal["quantum", "classical"]
HBAR = units._hbar * units.J * units.s  # eV ASE time
THZ = 2e12 * np.pi / units.s
"""Angular frequency of 1 THz in ASE's inverse time."""


@dataclass(frozen=True, slots=True, eq=False)
class NormalModes:
    """Normal modes of a supercell, each as a cosine and a sine pattern."""

    supercell: Atoms
    """Undisplaced supercell."""
    frequencies: Array
    """(n_modes,) THz of the modes that move, all above zero."""
    patterns: Array
    """(2 n_modes, 3 n_atoms) real and imaginary parts of the mass-weighted eigenvectors."""
    policy: Policy
    """What became of modes without a restoring force."""
    n_without_force: int
    """How many such modes there were."""


def normal_modes(phonon: Phonopy, policy: Policy = "refuse") -> NormalModes:
    """Modes of the supercell of a phonopy object with force constants, without translations.

    Args:
        phonon: Phonopy object with force constants; it keeps them.
        policy: What to do with modes below `SOFT`.

    Raises:
        ImaginaryModesError: If there are such modes and the policy is "refuse".
        ValueError: If the policy is unknown or the force constants are missing or not finite.
    """
    if policy not in ("refuse", "drop", "absolute"):
        raise ValueError(f"policy must be 'refuse', 'drop' or 'absolute', got {policy!r}")
    check_force_constants(phonon)
    points = commensurate_points(phonon)
    result = phonon.run_qpoints(points, with_eigenvectors=True)
    frequencies = np.array(result.frequencies, dtype=np.float64)
    gamma = ~points.any(axis=1)
    moving = np.ones(frequencies.shape, dtype=bool)
    moving[gamma] = ~translations(frequencies[gamma])
    without_force = moving & (frequencies <= SOFT)
    if without_force.any():
        if policy == "refuse":
            raise refusal(stability_of(phonon))
        if policy == "drop":
            moving &= ~without_force
    return NormalModes(
        supercell=from_phonopy(phonon.supercell),
        frequencies=np.maximum(np.abs(frequencies[moving]), SOFT),
        patterns=_patterns(phonon, points, np.asarray(result.eigenvectors), moving),
        policy=policy,
        n_without_force=int(without_force.sum()),
    )


def _patterns(
    phonon: Phonopy, points: Array, eigenvectors: NDArray[np.complex128], moving: NDArray[np.bool_]
) -> Array:
    """Eigenvectors of the moving modes carried through the supercell, (2 n_modes, 3 n_atoms)."""
    supercell, primitive = phonon.supercell, phonon.primitive
    scaled = supercell.positions @ np.linalg.inv(primitive.cell)
    phases = np.exp(2j * np.pi * points @ scaled.T) / np.sqrt(len(points))
    site = [primitive.p2p_map[index] for index in primitive.s2p_map]
    bands = eigenvectors.transpose(0, 2, 1).reshape(*moving.shape, len(primitive), 3)
    waves = bands[:, :, site] * phases[:, None, :, None]
    chosen = waves[moving].reshape(-1, 3 * len(supercell))
    return np.concatenate([chosen.real, chosen.imag])


def mode_amplitudes(
    frequencies: Array, temperature: float, statistics: Statistics = "quantum"
) -> Array:
    """Root mean square of the normal coordinates in Å sqrt(amu), of frequencies in THz.

    Raises:
        ValueError: If the temperature is not finite and >= 0, or the statistics unknown.
    """
    (temperature,) = check_temperatures([temperature])
    omega = THZ * frequencies
    thermal = units.kB * temperature
    if statistics == "classical":
        return np.asarray(np.sqrt(thermal) / omega)
    if statistics != "quantum":
        raise ValueError(f"statistics must be 'quantum' or 'classical', got {statistics!r}")
    zero_point = HBAR / (2 * omega)
    if thermal == 0:
        return np.asarray(np.sqrt(zero_point))
    return np.asarray(np.sqrt(zero_point / np.tanh(HBAR * omega / (2 * thermal))))


def sample_displacements(
    modes: NormalModes,
    temperature: float,
    n: int,
    seed: int,
    statistics: Statistics = "quantum",
) -> Array:
    """Displacements of n independent snapshots, (n, n_atoms, 3) Å.

    The first m of n snapshots are those of a call for m.

    Raises:
        ValueError: If n < 1 or the temperature is out of range.
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    amplitudes = mode_amplitudes(modes.frequencies, temperature, statistics)
    normals = np.random.default_rng(seed).standard_normal((n, 3 * len(modes.supercell)))
    # sqrt of the covariance times normals: the same whatever basis a degenerate mode has
    coordinates = (normals @ modes.patterns.T) * np.concatenate([amplitudes, amplitudes])
    displacements = (coordinates @ modes.patterns).reshape(n, -1, 3)
    return np.asarray(displacements / np.sqrt(modes.supercell.get_masses())[:, None])


def mean_square_displacements(
    modes: NormalModes, temperature: float, statistics: Statistics = "quantum"
) -> Array:
    """Exact <u_x^2>, <u_y^2>, <u_z^2> of each atom of the supercell, (n_atoms, 3) Å^2."""
    amplitudes = mode_amplitudes(modes.frequencies, temperature, statistics)
    both = np.concatenate([amplitudes, amplitudes]) ** 2
    return np.asarray(
        (both @ modes.patterns**2).reshape(-1, 3) / modes.supercell.get_masses()[:, None]
    )
