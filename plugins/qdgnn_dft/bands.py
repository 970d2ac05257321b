"""Band edges out of eigenvalues and a Fermi level."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def band_edges(eigenvalues: ArrayLike, k_points: ArrayLike, fermi_level: float) -> dict[str, Any]:
    """Gap, smallest direct gap and the k-points of the band edges.

    E_gap = E_CBM - E_VBM over all k-points and spins. A band on both sides of the Fermi level makes
    a metal: gaps 0, no band edges.

    Args:
        eigenvalues: (n_spins, n_k, n_bands), eV; bands that are not converged must be left out.
        k_points: (n_k, 3), fractions of the reciprocal vectors.
        fermi_level: eV.

    Raises:
        ValueError: If no state lies above, or none below, the Fermi level.
    """
    values, points = np.asarray(eigenvalues, dtype=np.float64), np.asarray(k_points)
    occupied = values <= fermi_level
    if occupied.all() or not occupied.any():
        raise ValueError(
            f"states must lie on both sides of the Fermi level {fermi_level:.3f} eV, got "
            f"{values.min():.3f} to {values.max():.3f} eV; compute more bands"
        )
    n_occupied = occupied.sum(axis=2)
    if (n_occupied != n_occupied[:, :1]).any():
        return {"band_gap": 0.0, "band_gap_direct": 0.0}
    top, bottom = _edges_by_k_point(values, fermi_level)
    valence, conduction = int(top.argmax()), int(bottom.argmin())
    return {
        "band_gap": max(0.0, float(bottom.min() - top.max())),
        "band_gap_direct": max(0.0, float((bottom - top).min())),
        "vbm_k_point": points[valence].tolist(),
        "cbm_k_point": points[conduction].tolist(),
    }


def calculator_edges(calculator: Any, n_bands: int | None = None) -> tuple[Array, Array]:
    """Eigenvalues (n_spins, n_k, n_bands) in eV and k-points (n_k, 3) of an ASE calculator.

    Args:
        calculator: With ``get_eigenvalues``, ``get_ibz_k_points`` and ``get_number_of_spins``.
        n_bands: Leave out the bands above; all if not given.
    """
    points = np.asarray(calculator.get_ibz_k_points(), dtype=np.float64)
    values = [
        [calculator.get_eigenvalues(kpt=k, spin=spin)[:n_bands] for k in range(len(points))]
        for spin in range(calculator.get_number_of_spins())
    ]
    return np.asarray(values, dtype=np.float64), points


def around_edges(
    eigenvalues: Array, k_points: Array, fermi_level: float, n_between: int = 3
) -> Array:
    """Points between the band edges on a line of k-points and their neighbours, (n, 3).

    A line passes equivalent points more than once: up to three points within 20 meV of an edge are
    taken for it.

    Args:
        eigenvalues: (n_spins, n_k, n_bands), eV, of a semiconductor.
        k_points: (n_k, 3), in the order of the line.
        fermi_level: eV.
        n_between: New points between two old ones.
    """
    top, bottom = _edges_by_k_point(eigenvalues, fermi_level)
    shares = np.linspace(0, 1, n_between + 2)[1:-1, None]
    finer = []
    for index in sorted({*_near_lowest(-top), *_near_lowest(bottom)}):
        for other in {max(0, index - 1), min(len(k_points) - 1, index + 1)} - {index}:
            finer.append(k_points[index] + shares * (k_points[other] - k_points[index]))
    unique: Array = np.unique(np.round(np.concatenate(finer), 9), axis=0)
    return unique


def _near_lowest(values: Array) -> list[int]:
    """Indices of the lowest value and of up to two more that are nearly as low."""
    order = np.argsort(values, kind="stable")[:3]
    return [int(index) for index in order if values[index] < values.min() + 0.02]


def _edges_by_k_point(eigenvalues: Array, fermi_level: float) -> tuple[Array, Array]:
    """Highest occupied and lowest empty level of each k-point, (n_k,), eV."""
    occupied = eigenvalues <= fermi_level
    top = np.where(occupied, eigenvalues, -np.inf).max(axis=(0, 2))
    bottom = np.where(occupied, np.inf, eigenvalues).min(axis=(0, 2))
    return top, bottom
