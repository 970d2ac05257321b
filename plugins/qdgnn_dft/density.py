"""What a charge density says about atoms: Hirshfeld moments, and its change on a coarse grid.

Each atom owns the share w_a(r) = n_a(r) / sum_b n_b(r) of the density n(r), with n_a of the free
atom (Hirshfeld, Theor. Chim. Acta 44, 129, 1977). Its dipole and quadrupole are those of w_a times
the deformation density n - sum_b n_b: free atoms have none. Invariants of the traceless quadrupole
Q_ij = -integral w_a dn (3 r_i r_j - r^2 delta_ij) / 2 do not depend on the orientation.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from numpy.typing import NDArray

Array = NDArray[np.float64]

GRID = 8
"""Points of the coarse grid along each axis."""
_NOTHING = 1e-12
"""Electrons per Å^3."""


def hirshfeld_moments(
    atoms: Atoms,
    density: Array,
    superposed: Array,
    free_densities: Iterable[Array],
    spin_density: Array | None = None,
) -> dict[str, Array]:
    """Charges, spins and invariants of dipoles and quadrupoles, (n_atoms,) each.

    Args:
        atoms: Periodic along all axes; grid point (i, j, k) is at the fractions (i/n, j/n, k/n).
        density: (n_x, n_y, n_z), electrons per Å^3, with those of the cores.
        superposed: Sum of the free atoms, (n_x, n_y, n_z).
        free_densities: Of each free atom at its place, (n_x, n_y, n_z); taken one by one.
        spin_density: Up minus down, (n_x, n_y, n_z); None without spin.

    Returns:
        ``charges`` (e), ``dipole_norms`` (e Å), ``quadrupole_norms`` (e Å^2, sqrt(sum Q_ij^2)),
        ``quadrupole_determinants`` (e^3 Å^6) and, with spin, ``hirshfeld_spins`` (electrons).
    """
    volume = atoms.get_volume() / density.size
    change = density - superposed
    places = _grid_points(atoms, density.shape)
    charges, spins, dipoles, quadrupoles = [], [], [], []
    for atom, free in zip(atoms, free_densities, strict=True):
        share = np.divide(free, superposed, out=np.zeros_like(free), where=superposed > _NOTHING)
        vectors = find_mic(places - atom.position, atoms.cell, pbc=True)[0]
        dipole, quadrupole = _multipoles(vectors, share * change)
        charges.append(atom.number - volume * (share * density).sum())
        dipoles.append(-volume * dipole)
        quadrupoles.append(-volume * quadrupole)
        if spin_density is not None:
            spins.append(volume * (share * spin_density).sum())
    found = {
        "charges": np.array(charges),
        "dipole_norms": np.linalg.norm(dipoles, axis=1),
        "quadrupole_norms": np.linalg.norm(quadrupoles, axis=(1, 2)),
        "quadrupole_determinants": np.linalg.det(quadrupoles),
    }
    return found | ({"hirshfeld_spins": np.array(spins)} if spins else {})


def _grid_points(atoms: Atoms, shape: tuple[int, ...]) -> Array:
    """Positions (n_points, 3) in Å."""
    fractions = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")
    points: Array = np.stack([axis.ravel() for axis in fractions], axis=1) @ atoms.cell.array
    return points


def _multipoles(places: Array, weights: Array) -> tuple[Array, Array]:
    """Sums of w r, (3,), and of w (3 r_i r_j - r^2 delta_ij) / 2, (3, 3)."""
    w = weights.ravel()
    second = np.einsum("n,ni,nj->ij", w, places, places)
    return w @ places, 1.5 * second - 0.5 * np.trace(second) * np.eye(3)


def coarse(density: Array, n: int = GRID) -> Array:
    """The slowest Fourier components of a periodic density, on (n, n, n) points; keeps the mean.

    Args:
        density: (n_x, n_y, n_z), more than n points along each axis.
        n: Even.
    """
    half = n // 2 - 1  # components -half .. half; the one at n/2 has no partner
    kept = np.zeros((n, n, n), dtype=np.complex128)
    axes = [np.r_[0 : half + 1, -half:0] for _ in range(3)]
    kept[np.ix_(*axes)] = np.fft.fftn(density)[np.ix_(*axes)]
    coarse_density: Array = np.fft.ifftn(kept).real * (n**3 / density.size)
    return coarse_density
