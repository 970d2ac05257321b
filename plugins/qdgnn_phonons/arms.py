"""Displaced supercells for training: ways ("arms") to choose the displacements.

* phonon: harmonic vibrations at a temperature (`modes`).
* gaussian: independent Gaussian noise with the very <u^2> of each atom in the phonon arm: the same
  amplitude, without the correlation between atoms.
* uniform: independent noise between 0 and a bound, one-sided as in the study of Ag-based
  anti-perovskites that the phonon arm is compared with. The bound gives the phonon arm's mean
  square about the undisplaced positions; half of that amplitude is a common translation.
  `uniform_frames` takes any bound.
* md: frames of molecular dynamics.

Each frame says in ``info`` where it comes from, and has a key for `qdgnn_ase.label`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from phonopy import Phonopy

from qdgnn_ase import molecular_dynamics
from qdgnn_phonons.config import PhononConfig
from qdgnn_phonons.crystal import check_crystal, relax_crystal
from qdgnn_phonons.harmonic import harmonic_phonons
from qdgnn_phonons.modes import (
    NormalModes,
    Statistics,
    mean_square_displacements,
    normal_modes,
    sample_displacements,
)
from qdgnn_phonons.stability import Policy, check_temperatures

Array = NDArray[np.float64]
Arm = Literal["phonon", "gaussian", "uniform"]


def sample_phonons(
    atoms: Atoms,
    temperatures: Sequence[float],
    n: int,
    seed: int,
    *,
    config: PhononConfig | None = None,
    statistics: Statistics = "quantum",
    policy: Policy = "refuse",
) -> list[Atoms]:
    """Thermal supercells of a crystal: relaxation, phonons and n snapshots at each temperature.

    Args:
        atoms: Crystal with a calculator.
        temperatures: K.
        n: Snapshots per temperature.
        seed: Seed of the snapshots.
        config: Settings of the phonons.
        statistics: "quantum" or "classical" amplitudes.
        policy: What to do with modes without a restoring force.

    Raises:
        ValueError: If a temperature is not finite and >= 0, or n < 1.
        ImaginaryModesError: If there are such modes and the policy is "refuse".
    """
    check_temperatures(temperatures)
    phonon = harmonic_phonons(relax_crystal(atoms, config), config)
    modes = normal_modes(phonon, policy)
    return sample_frames(modes, "phonon", temperatures, n, seed, statistics=statistics)


def sample_frames(
    source: NormalModes | Phonopy,
    arm: Arm,
    temperatures: Sequence[float],
    n: int,
    seed: int,
    *,
    statistics: Statistics = "quantum",
) -> list[Atoms]:
    """N displaced supercells at each temperature.

    Args:
        source: Normal modes, or a phonopy object with force constants and no imaginary modes.
        arm: "phonon", "gaussian" or "uniform", the latter two with the phonon arm's <u^2>.
        temperatures: K.
        n: Frames per temperature.
        seed: Seed; each temperature has random numbers of its own.
        statistics: "quantum" or "classical" amplitudes.

    Raises:
        ValueError: If an argument is out of range.
    """
    modes = normal_modes(source) if isinstance(source, Phonopy) else source
    digest = _digest(modes.supercell, modes.frequencies.round(2))
    frames: list[Atoms] = []
    for temperature in check_temperatures(temperatures).tolist():
        stream = int(np.random.SeedSequence([seed, round(1e3 * temperature)]).generate_state(1)[0])
        displacements = _displacements(modes, arm, temperature, n, stream, statistics)
        notes = {
            "arm": arm,
            "temperature_kelvin": temperature,
            "statistics": statistics,
            "imaginary_policy": modes.policy,
            "modes_without_force": modes.n_without_force,
            "seed": seed,
        }
        name = f"{arm}-{statistics}-{temperature:g}K-s{seed}-{digest}"
        frames += _frames(modes.supercell, displacements, name, notes)
    return frames


def _digest(atoms: Atoms, *further: Array) -> str:
    """Short name of a supercell (and its modes), so that keys of different data sets differ."""
    arrays = (atoms.cell.array.round(3), atoms.positions.round(3), *further)
    content = str(atoms.symbols).encode() + b"".join((array + 0.0).tobytes() for array in arrays)
    return hashlib.sha256(content).hexdigest()[:8]


def _displacements(
    modes: NormalModes, arm: Arm, temperature: float, n: int, seed: int, statistics: Statistics
) -> Array:
    if arm == "phonon":
        return sample_displacements(modes, temperature, n, seed, statistics)
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    sizes = np.sqrt(mean_square_displacements(modes, temperature, statistics))
    rng = np.random.default_rng(seed)
    if arm == "gaussian":
        return np.asarray(rng.standard_normal((n, *sizes.shape)) * sizes)
    if arm == "uniform":
        return np.asarray(rng.uniform(0.0, 1.0, (n, *sizes.shape)) * np.sqrt(3) * sizes)
    raise ValueError(f"arm must be 'phonon', 'gaussian' or 'uniform', got {arm!r}")


def uniform_frames(supercell: Atoms, bound: float, n: int, seed: int) -> list[Atoms]:
    """N supercells with each coordinate moved by a uniform number between 0 and ``bound`` Å.

    Raises:
        ValueError: If the bound is not positive or n < 1.
    """
    if not (np.isfinite(bound) and bound > 0) or n < 1:
        raise ValueError(f"bound must be > 0 Å and n >= 1, got {bound} and {n}")
    displacements = np.random.default_rng(seed).uniform(0.0, bound, (n, len(supercell), 3))
    notes = {"arm": "uniform", "bound_angstrom": bound, "seed": seed}
    return _frames(
        supercell, displacements, f"uniform-{bound:g}A-s{seed}-{_digest(supercell)}", notes
    )


def _frames(
    supercell: Atoms, displacements: Array, name: str, notes: dict[str, Any]
) -> list[Atoms]:
    frames = []
    for index, displacement in enumerate(displacements):
        frame = supercell.copy()
        frame.positions += displacement
        frame.info = {"key": f"{name}-{index}", "index": index, **notes}
        frames.append(frame)
    return frames


def md_frames(
    supercell: Atoms,
    temperatures: Sequence[float],
    n: int,
    seed: int,
    *,
    interval_fs: float = 50.0,
    equilibration_fs: float = 500.0,
    timestep_fs: float = 1.0,
) -> list[Atoms]:
    """N frames of molecular dynamics (NVT) at each temperature.

    Args:
        supercell: Supercell with a calculator; left as it is.
        temperatures: K, above zero.
        n: Frames per temperature.
        seed: Seed of momenta and thermostat.
        interval_fs: Time between frames.
        equilibration_fs: Time before the first frame.
        timestep_fs: Time step.

    Raises:
        ValueError: If an argument is out of range.
        FloatingPointError: If the run explodes.
    """
    check_crystal(supercell)
    if n < 1 or not interval_fs >= timestep_fs:
        raise ValueError(
            f"n must be >= 1 and interval_fs >= timestep_fs, got {n}, {interval_fs}, {timestep_fs}"
        )
    frames: list[Atoms] = []
    for temperature in check_temperatures(temperatures, lowest=1.0).tolist():
        atoms = supercell.copy()
        atoms.calc = supercell.calc
        steps = {"temperature": temperature, "timestep_fs": timestep_fs, "seed": seed}
        interval = round(interval_fs / timestep_fs)
        wait = max(1, round(equilibration_fs / timestep_fs))
        molecular_dynamics(atoms, steps=wait, interval=wait, **steps)
        displacements: list[Array] = []

        def keep(
            row: dict[str, float], atoms: Atoms = atoms, kept: list[Array] = displacements
        ) -> None:
            if row["step"] > 0:
                kept.append(atoms.positions - supercell.positions)

        steps["seed"] = seed + 1
        molecular_dynamics(atoms, steps=n * interval, interval=interval, observer=keep, **steps)
        notes = {"arm": "md", "temperature_kelvin": temperature, "seed": seed}
        frames += _frames(
            supercell,
            np.array(displacements),
            f"md-{temperature:g}K-s{seed}-{_digest(supercell)}",
            notes,
        )
    return frames
