"""Moments of a density against Gaussian charges whose moments are known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.geometry import find_mic
from numpy.typing import NDArray

from qdgnn_dft.density import coarse, hirshfeld_moments

Array = NDArray[np.float64]
N = 28


@pytest.fixture(scope="module")
def pair() -> Atoms:
    """Two protons in a skewed cell, whose free densities do not overlap."""
    cell = [[0.0, 5.0, 5.0], [5.0, 0.0, 5.0], [5.0, 5.0, 0.0]]
    return Atoms("H2", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=cell, pbc=True)


def gaussian(atoms: Atoms, center: Array, width: float, charge: float = 1.0) -> Array:
    """Electrons per Å^3 on N^3 points."""
    fractions = np.meshgrid(*[np.arange(N) / N] * 3, indexing="ij")
    places = np.stack([axis.ravel() for axis in fractions], axis=1) @ atoms.cell.array
    distances = find_mic(places - center, atoms.cell, pbc=True)[1]
    density = np.exp(-0.5 * (distances / width) ** 2).reshape(N, N, N)
    normalised: Array = charge * density / (density.sum() * atoms.get_volume() / N**3)
    return normalised


def test_free_atoms_have_no_moments(pair: Atoms) -> None:
    free = [gaussian(pair, position, 0.8) for position in pair.positions]
    found = hirshfeld_moments(pair, free[0] + free[1], free[0] + free[1], iter(free))
    for name, values in found.items():
        assert values == pytest.approx([0.0, 0.0], abs=1e-9), name
    assert "hirshfeld_spins" not in found


def test_a_shifted_charge_has_the_multipoles_of_a_point(pair: Atoms) -> None:
    """Charge q moved by d along z: dipole q d, Q_zz = -q d^2, Q_xx = Q_yy = q d^2 / 2."""
    q, d = 0.1, 0.4
    free = [gaussian(pair, position, 0.8) for position in pair.positions]
    change = gaussian(pair, np.array([0.0, 0.0, d]), 0.4, q) - gaussian(pair, np.zeros(3), 0.4, q)
    total = free[0] + free[1]
    found = hirshfeld_moments(pair, total + change, total, free)
    assert found["charges"] == pytest.approx([0.0, 0.0], abs=1e-3)
    assert found["dipole_norms"] == pytest.approx([q * d, 0.0], abs=1e-3)
    assert found["quadrupole_norms"][0] == pytest.approx(q * d**2 * np.sqrt(1.5), rel=0.03)
    assert found["quadrupole_determinants"][0] == pytest.approx(-((q * d**2) ** 3) / 4, rel=0.1)


def test_invariants_do_not_turn_with_the_crystal(pair: Atoms) -> None:
    turned = pair.copy()
    turned.rotate(40.0, (1.0, 2.0, 0.5), rotate_cell=True)
    rotation = np.linalg.solve(pair.cell.array, turned.cell.array)
    results = []
    for atoms, matrix in ((pair, np.eye(3)), (turned, rotation)):
        free = [gaussian(atoms, position, 0.8) for position in atoms.positions]
        shift = np.array([0.3, 0.1, 0.2]) @ matrix
        change = gaussian(atoms, shift, 0.4, 0.2) - gaussian(atoms, np.zeros(3), 0.4, 0.2)
        total = free[0] + free[1]
        results.append(hirshfeld_moments(atoms, total + change, total, free))
    for name, values in results[0].items():
        assert values == pytest.approx(results[1][name], abs=1e-7), name
    assert results[0]["quadrupole_norms"][0] > 1e-3


def test_spins_and_charges_add_up(pair: Atoms) -> None:
    free = [gaussian(pair, position, 0.8) for position in pair.positions]
    density = free[0] + free[1] + gaussian(pair, pair.positions[1], 0.9, 0.5)
    spin = gaussian(pair, pair.positions[1], 0.7, 0.5)
    found = hirshfeld_moments(pair, density, free[0] + free[1], free, spin)
    assert found["charges"].sum() == pytest.approx(-0.5, abs=1e-6)
    assert found["charges"][1] == pytest.approx(-0.5, abs=0.02)
    assert found["hirshfeld_spins"] == pytest.approx([0.0, 0.5], abs=0.01)


def test_coarse_grid_keeps_mean_and_slow_waves() -> None:
    x = np.arange(24) / 24
    wave = 1.5 + np.cos(2 * np.pi * x)[:, None, None] + np.sin(4 * np.pi * x)[None, :, None]
    density = np.broadcast_to(wave, (24, 24, 24)) + np.cos(20 * np.pi * x)[None, None, :]
    found = coarse(density, 8)
    y = np.arange(8) / 8
    wanted = 1.5 + np.cos(2 * np.pi * y)[:, None, None] + np.sin(4 * np.pi * y)[None, :, None]
    assert found == pytest.approx(np.broadcast_to(wanted, (8, 8, 8)), abs=1e-12)
