"""Effective force constants at a temperature: phonopy's MLPSSCHA with any ASE calculator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.calculators.calculator import Calculator
from phonopy import Phonopy
from phonopy.sscha.core import MLPSSCHA

from qdgnn_phonons.mlp import CalculatorMLP
from qdgnn_phonons.stability import check_force_constants, check_temperatures


@dataclass(frozen=True, slots=True, eq=False)
class SelfConsistent:
    """Result of the stochastic self-consistent harmonic approximation."""

    phonon: Phonopy
    """With the effective force constants."""
    changes: list[float]
    """Largest change of a force constant in each iteration, over the largest one. It ends at the
    sampling noise, of the order of 1 / sqrt(snapshots)."""


def self_consistent_phonons(
    phonon: Phonopy,
    calculator: Calculator,
    temperature: float,
    *,
    n: int = 100,
    iterations: int = 5,
    seed: int = 0,
    mesh: float = 20.0,
) -> SelfConsistent:
    """Phonons with the anharmonicity that is felt at a temperature.

    Args:
        phonon: Harmonic phonons to start from; left as they are.
        calculator: Any ASE calculator with energy, forces and stress.
        temperature: K.
        n: Snapshots per iteration.
        iterations: How often force constants are refitted (symfc).
        seed: Seed of all snapshots.
        mesh: Density of the mesh of phonopy's free energies.

    Raises:
        ValueError: If the temperature is not finite and positive, or n or iterations < 1.
    """
    (temperature,) = check_temperatures([temperature], lowest=1.0)
    if min(n, iterations) < 1:
        raise ValueError(f"n and iterations must be >= 1, got {n} and {iterations}")
    check_force_constants(phonon)
    run = MLPSSCHA(
        phonon,
        CalculatorMLP(calculator),
        temperature=float(temperature),
        number_of_snapshots=n,
        max_iterations=iterations,
        random_seed=seed,
        mesh=mesh,
    )
    last = np.array(run.force_constants)
    changes = []
    for _ in run:
        new = np.array(run.force_constants)
        changes.append(float(np.abs(new - last).max() / np.abs(new).max()))
        last = new
    result = phonon.replicate()
    result.force_constants = last
    check_force_constants(result)
    return SelfConsistent(result, changes)
