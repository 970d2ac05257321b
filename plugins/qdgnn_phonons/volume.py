"""What changes with the volume: Grüneisen parameters and the quasi-harmonic approximation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray
from phonopy import Phonopy, PhonopyGruneisen, run_qha
from phonopy.phonon.grid import length2mesh
from phonopy.physical_units import get_physical_units
from phonopy.qha.qha import QHAResult

from qdgnn_ase import scale_volume
from qdgnn_phonons.config import PhononConfig
from qdgnn_phonons.crystal import relax_crystal
from qdgnn_phonons.harmonic import harmonic_phonons
from qdgnn_phonons.modes import HBAR, THZ
from qdgnn_phonons.spectrum import MESH
from qdgnn_phonons.stability import SOFT, check_stable, check_temperatures

Array = NDArray[np.float64]
VOLUMES = (0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08)
"""Default volumes of the quasi-harmonic approximation, relative to the relaxed one."""


@dataclass(frozen=True, slots=True, eq=False)
class QuasiHarmonic:
    """Properties at zero pressure."""

    temperatures: Array
    """(n,) K."""
    volume: Array
    """(n,) Å^3 per atom."""
    thermal_expansion: Array
    """(n,) 1/K, of the volume; NaN where there is no lower temperature for the difference."""
    bulk_modulus_gpa: Array
    """(n,) GPa, isothermal."""
    heat_capacity_j_mol_k: Array
    """(n,) J/(mol K) at constant pressure, per mole of atoms; NaN as above."""
    free_energy: Array
    """(n,) eV per atom, Gibbs, of the crystal with its vibrations."""


@dataclass(frozen=True, slots=True, eq=False)
class Gruneisen:
    """Mode Grüneisen parameters -d ln omega / d ln V on a mesh."""

    frequencies: Array
    """(n_q, n_bands) THz, in ascending order."""
    parameters: Array
    """(n_q, n_bands); NaN for translations and modes without a restoring force."""
    weights: Array
    """(n_q,) multiplicity of the wave vectors."""

    def mean(self, temperature: float = 300.0, bands: slice = slice(None)) -> float:
        """Root mean square of the parameters, weighted by the modes' heat capacity.

        Args:
            temperature: K.
            bands: ``slice(3)`` for the acoustic ones.
        """
        heat, parameters = self._heat(temperature, bands), self.parameters[:, bands]
        return float(np.sqrt(np.nansum(heat * parameters**2) / heat.sum()))

    def _heat(self, temperature: float, bands: slice) -> Array:
        frequencies = self.frequencies[:, bands]
        (temperature,) = check_temperatures([temperature], lowest=1.0)
        x = HBAR * THZ * np.maximum(frequencies, SOFT) / (2 * units.kB * temperature)
        heat = (x / np.sinh(np.minimum(x, 300.0))) ** 2
        heat = np.where(frequencies > SOFT, heat, 0.0)
        return np.asarray(heat * self.weights[:, None])


def phonons_at_volume(
    atoms: Atoms, factor: float, config: PhononConfig | None = None
) -> tuple[Phonopy, float]:
    """Phonons and energy (eV) of a crystal at ``factor`` times its volume, positions relaxed.

    Raises:
        ImaginaryModesError: If there are modes without a restoring force.
    """
    scaled = scale_volume(atoms, factor)
    scaled.calc = atoms.calc
    relaxed = relax_crystal(scaled, config, cell=False)
    phonon = harmonic_phonons(relaxed, config)
    check_stable(phonon)
    return phonon, float(relaxed.get_potential_energy())


def gruneisen(
    atoms: Atoms,
    phonon: Phonopy,
    config: PhononConfig | None = None,
    strain: float = 0.01,
    mesh: float = MESH,
) -> Gruneisen:
    """Mode Grüneisen parameters by central differences of the volume.

    Args:
        atoms: Relaxed crystal with a calculator.
        phonon: Its phonons.
        config: Settings of the phonons.
        strain: Relative change of the volume, both ways.
        mesh: Density of the mesh.

    Raises:
        ImaginaryModesError: If there are modes without a restoring force at one of the volumes.
    """
    if not 0 < strain < 0.1:
        raise ValueError(f"strain must lie between 0 and 0.1, got {strain}")
    check_stable(phonon)
    wider, narrower = (phonons_at_volume(atoms, 1 + s, config)[0] for s in (strain, -strain))
    result = PhonopyGruneisen(phonon, wider, narrower)
    # plain meshes through Gamma: those that phonopy rebuilds for symmetry are none for this class
    numbers = length2mesh(mesh, phonon.primitive.cell)
    result.set_mesh(numbers, is_gamma_center=True, is_mesh_symmetry=False)
    _, weights, frequencies, _, parameters = result.get_mesh()
    order = np.argsort(frequencies, axis=1)
    parameters = np.where(frequencies > SOFT, parameters, np.nan)
    return Gruneisen(
        np.take_along_axis(np.asarray(frequencies), order, axis=1),
        np.take_along_axis(np.asarray(parameters), order, axis=1),
        np.asarray(weights, dtype=np.float64),
    )


def quasi_harmonic(
    atoms: Atoms,
    temperatures: Sequence[float] | Array,
    config: PhononConfig | None = None,
    volumes: Sequence[float] = VOLUMES,
    mesh: float = MESH,
) -> QuasiHarmonic:
    """Thermal expansion and properties at zero pressure.

    Args:
        atoms: Relaxed crystal with a calculator.
        temperatures: K, ascending, at least four; phonopy's differences use up the last one.
        config: Settings of the phonons.
        volumes: At least five, relative to that of ``atoms``.
        mesh: Density of the mesh.

    Raises:
        ImaginaryModesError: If there are modes without a restoring force at one of the volumes.
        ValueError: If an equilibrium volume lies outside of the volumes: it would be extrapolated.
    """
    temperatures = check_temperatures(temperatures)
    if len(temperatures) < 4 or (np.diff(temperatures) <= 0).any():
        raise ValueError(f"temperatures must be at least four, ascending, got {temperatures}")
    if len(volumes) < 5:
        raise ValueError(f"volumes must be at least five, got {list(volumes)}")
    pairs = [phonons_at_volume(atoms, factor, config) for factor in sorted(volumes)]
    phonons = [phonon for phonon, _ in pairs]
    per_primitive = len(phonons[0].primitive) / len(atoms)
    energies = [energy * per_primitive for _, energy in pairs]
    with warnings.catch_warnings():  # extrapolation is an error below; lattices are not asked for
        warnings.filterwarnings("ignore", "Lattice parameters are")
        result = run_qha(
            phonons,
            temperatures,
            internal_energies=energies,
            mesh=mesh,
            exclude_gamma_acoustic=True,
        )
    outside = ~(
        (result.equilibrium_volumes > result.volumes.min())
        & (result.equilibrium_volumes < result.volumes.max())
    )
    if outside.any() or len(result.temperatures) < len(temperatures) - 1:
        raise ValueError(
            f"volumes must enclose the equilibrium at every temperature, got {result.volumes} and "
            f"{result.equilibrium_volumes} Å^3; widen `volumes` or lower the temperatures"
        )
    return _quasi_harmonic(result, len(phonons[0].primitive))


def _quasi_harmonic(result: QHAResult, n_atoms: int) -> QuasiHarmonic:
    """Phonopy's result per atom; it has 0.0 where the first difference is missing."""
    expansion = np.array(result.thermal_expansion)
    heat = np.array(result.heat_capacity_P.heat_capacities)
    if result.temperatures[0] > 0:
        expansion[0] = heat[0] = np.nan
    return QuasiHarmonic(
        np.array(result.temperatures),
        result.equilibrium_volumes / n_atoms,
        expansion,
        result.bulk_moduli / units.GPa,
        heat * get_physical_units().EvTokJmol * 1e3 / n_atoms,
        result.gibbs_free_energies / n_atoms,
    )
