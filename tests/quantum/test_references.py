"""Element reference energies: exact data give exact references."""

from __future__ import annotations

import numpy as np
import pytest

from qdgnn_ase.quantum.atomic import N_ELEMENTS
from qdgnn_ase.quantum.references import composition_matrix, fit_element_energies

ELEMENTS = np.array([3, 8, 15, 26])
TRUTH = np.array([-1.9, -4.95, -5.4, -8.3])


def synthetic(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Compositions of four elements and the energies that the true references give."""
    rng = np.random.default_rng(seed)
    composition = np.zeros((n, N_ELEMENTS + 1))
    composition[:, ELEMENTS] = rng.integers(0, 9, size=(n, 4)) + np.eye(4)[rng.integers(0, 4, n)]
    return composition, composition[:, ELEMENTS] @ TRUTH


def test_composition_matrix_counts_atoms() -> None:
    matrix = composition_matrix([np.array([3, 8, 8]), [26], np.array([N_ELEMENTS])])
    assert matrix.shape == (3, N_ELEMENTS + 1)
    assert matrix[0, 3] == 1
    assert matrix[0, 8] == 2
    assert matrix[2, N_ELEMENTS] == 1
    assert matrix.sum(axis=1).tolist() == [3, 1, 1]


def test_exact_references_are_recovered() -> None:
    composition, energies = synthetic()
    fitted = fit_element_energies(composition, energies, ridge=1e-10)
    np.testing.assert_allclose(fitted[ELEMENTS], TRUTH, atol=1e-8)


def test_default_ridge_costs_less_than_a_mev() -> None:
    composition, energies = synthetic()
    fitted = fit_element_energies(composition, energies)
    np.testing.assert_allclose(fitted[ELEMENTS], TRUTH, atol=1e-3)


def test_ridge_pulls_towards_the_mean() -> None:
    composition, energies = synthetic()
    mean = (energies / composition.sum(axis=1)).mean()
    distances = [
        np.abs(fit_element_energies(composition, energies, ridge)[ELEMENTS] - mean).sum()
        for ridge in (1e-4, 1.0, 1e2, 1e8)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-4


def test_size_of_a_cell_does_not_matter() -> None:
    composition, energies = synthetic()
    factor = np.random.default_rng(1).integers(1, 5, len(energies))
    np.testing.assert_allclose(
        fit_element_energies(composition * factor[:, None], energies * factor),
        fit_element_energies(composition, energies),
    )


def test_element_without_data_gets_the_mean() -> None:
    composition, energies = synthetic()
    fitted = fit_element_energies(composition, energies)
    unseen = np.delete(np.arange(N_ELEMENTS + 1), ELEMENTS)
    np.testing.assert_allclose(fitted[unseen], (energies / composition.sum(axis=1)).mean())


def test_one_structure_is_reproduced() -> None:
    composition = composition_matrix([[11, 17]])
    fitted = fit_element_energies(composition, np.array([-6.0]))
    np.testing.assert_allclose(fitted[[11, 17]], -3.0)


def test_elements_that_always_come_together_are_finite() -> None:
    composition = composition_matrix([[11, 17]] * 5 + [[11, 17, 11, 17]])
    energies = np.array([-6.0, -6.1, -5.9, -6.0, -6.0, -12.0])
    fitted = fit_element_energies(composition, energies)
    assert np.isfinite(fitted).all()
    np.testing.assert_allclose(fitted[11], fitted[17])


def test_wrong_shape() -> None:
    composition, energies = synthetic()
    with pytest.raises(
        ValueError, match=r"composition must have shape \(199, 95\), got \(200, 95\)"
    ):
        fit_element_energies(composition, energies[1:])
    with pytest.raises(ValueError, match=r"shape \(200, 95\), got \(200, 94\)"):
        fit_element_energies(composition[:, 1:], energies)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_energies_that_are_not_finite(bad: float) -> None:
    composition, energies = synthetic()
    energies[3] = bad
    with pytest.raises(ValueError, match="energies must be finite"):
        fit_element_energies(composition, energies)


def test_no_energies() -> None:
    with pytest.raises(ValueError, match="at least one finite energy label, got none"):
        fit_element_energies(np.zeros((0, N_ELEMENTS + 1)), np.zeros(0))
