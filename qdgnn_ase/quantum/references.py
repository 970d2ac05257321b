"""Element reference energies: the one place where they are fitted and looked up."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdgnn_ase.quantum.atomic import N_ELEMENTS

Array = NDArray[np.float64]


def check_elements(counts: Array) -> None:
    """Raise ValueError for elements beyond the descriptor table.

    Args:
        counts: (n,), amount of each element; column = atomic number.
    """
    beyond = [int(z) for z in np.flatnonzero(counts) if z > N_ELEMENTS]
    if beyond:
        raise ValueError(f"atomic numbers must lie in 1..{N_ELEMENTS}, got {beyond}")


def composition_matrix(numbers: list[ArrayLike]) -> Array:
    """Atoms of each element per structure, (n_structures, 95), column = atomic number.

    Raises:
        ValueError: If an element lies beyond the descriptor table.
    """
    beyond = sorted({int(z) for row in numbers for z in np.unique(row) if z > N_ELEMENTS})
    if beyond:
        raise ValueError(f"atomic numbers must lie in 1..{N_ELEMENTS}, got {beyond}")
    rows = [np.bincount(np.asarray(z), minlength=N_ELEMENTS + 1) for z in numbers]
    return np.array(rows, dtype=np.float64)


def fit_element_energies(composition: Array, energies: Array, ridge: float = 1e-4) -> Array:
    """Reference energy of each element in eV, (95,), by least squares on energies per atom.

    Minimises sum_s (E_s / N_s - sum_k x_sk mu_k)^2 + ridge * sum_k (mu_k - mean(E_s / N_s))^2 with
    the atomic fractions x. An element without data gets the mean energy per atom.

    Args:
        composition: (n_structures, 95), atoms of each element.
        energies: (n_structures,), total energies in eV.
        ridge: Pull towards the mean, in units of structures.

    Raises:
        ValueError: If there is no structure, shapes differ, or an energy is not finite.
    """
    if len(energies) == 0:
        raise ValueError(
            "training needs at least one finite energy label, got none; without them the element "
            "references and the energy scale are unknown"
        )
    shape = (len(energies), N_ELEMENTS + 1)
    if composition.shape != shape:
        raise ValueError(f"composition must have shape {shape}, got {composition.shape}")
    if not np.isfinite(energies).all():
        raise ValueError("energies must be finite, got NaN or inf; drop frames without energy")
    n_atoms = composition.sum(axis=1)
    fractions = composition / n_atoms[:, None]
    per_atom = energies / n_atoms
    mean = per_atom.mean()
    normal = fractions.T @ fractions + ridge * np.eye(N_ELEMENTS + 1)
    references: Array = mean + np.linalg.solve(normal, fractions.T @ (per_atom - mean))
    return references


@cache
def elemental_cohesive_energies() -> Array:
    """Cohesive energy of each element in its standard state, (95,), eV/atom; NaN = unknown.

    Measured enthalpies of the gaseous atoms at 298 K, see `make_cohesive_table.py`.
    """
    text = files("qdgnn_ase.quantum").joinpath("cohesive.csv").read_text(encoding="utf-8")
    energies = np.full(N_ELEMENTS + 1, np.nan)
    for row in csv.DictReader(text.splitlines()):
        energies[int(row["atomic_number"])] = float(row["cohesive_energy_ev"])
    energies.setflags(write=False)
    return energies
