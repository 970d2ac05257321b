"""Density matrices, chemical potentials and their derivatives, with levels that meet."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import ortho_group
from torch import Tensor

from qdgnn_ase.quantum.density import chemical_potentials, density_matrix, divided_difference

KT = 0.2
ELECTRONS = torch.tensor([6.0, 6.4, 5.6], dtype=torch.float64)


def hermitian(levels: list[float], seed: int, is_complex: bool) -> Tensor:
    """A matrix with these eigenvalues."""
    n = len(levels)
    vectors = torch.tensor(ortho_group.rvs(n, random_state=seed))
    if is_complex:
        phases = torch.rand(n, generator=torch.manual_seed(seed), dtype=torch.float64)
        vectors = torch.polar(torch.ones_like(phases), 6 * phases)[:, None] * vectors
    diagonal = torch.tensor(levels, dtype=torch.float64).to(vectors.dtype)
    return (vectors * diagonal) @ vectors.mH


def of_parts(x: Tensor, start: Tensor) -> Tensor:
    """Hermitian matrices from what may be changed in them, (n_k, n, n)."""
    if start.is_complex():
        change = torch.view_as_complex(x)
        return start + (change + change.mH) / 2
    return start + (x + x.mT) / 2


DEGENERATE = [-3.0, -3.0, -3.0, -1.0, -1.0, 2.0]
CLOSE = [-3.0, -3.0 + 1e-5, -1.0, -1.0 + 5e-5, 0.5, 2.0]
WIDE_GAP = [-40.0, -40.0, -40.0, 5.0, 5.0, 9.0]


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("levels", [DEGENERATE, CLOSE, WIDE_GAP])
def test_derivatives_against_finite_differences(levels: list[float], is_complex: bool) -> None:
    start = torch.stack([hermitian(levels, seed, is_complex) for seed in (0, 1)])
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    mixer = torch.randn(2, 6, 6, generator=torch.manual_seed(3), dtype=torch.float64)

    def outputs(x: Tensor) -> Tensor:
        density, mu, _ = density_matrix(of_parts(x, start), weights, ELECTRONS, KT)
        parts = [density.real, density.imag] if is_complex else [density]
        mixed = [(mixer * part).sum()[None] for part in parts]
        return torch.cat([*mixed, mu])

    shape = (2, 6, 6, 2) if is_complex else (2, 6, 6)
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(outputs, x, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_derivatives_of_eigenvectors_fail() -> None:
    """Negative control: without Daleckii and Krein degenerate levels give no derivative."""
    matrix = torch.diag(torch.tensor(DEGENERATE, dtype=torch.float64)).requires_grad_(True)
    levels, vectors = torch.linalg.eigh(matrix)
    density = (vectors * torch.sigmoid(-levels / KT)) @ vectors.mH
    (gradient,) = torch.autograd.grad(density[0, 1], matrix)
    assert not bool(torch.isfinite(gradient).all())


def test_second_derivatives_are_refused() -> None:
    matrix = hermitian(DEGENERATE, 0, False)[None].requires_grad_(True)
    density, _, _ = density_matrix(matrix, torch.ones(1).double(), ELECTRONS, KT)
    (gradient,) = torch.autograd.grad(density.square().sum(), matrix, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_density_holds_the_electrons() -> None:
    matrix = torch.stack([hermitian(CLOSE, seed, True) for seed in (0, 1)])
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    density, _, levels = density_matrix(matrix, weights, ELECTRONS, KT)
    trace = torch.einsum("kii->k", density).real
    assert 2 * float(trace @ weights) == pytest.approx(6.0, abs=1e-12)
    torch.testing.assert_close(
        levels[0], torch.tensor(CLOSE, dtype=torch.float64), atol=1e-6, rtol=0
    )
    eigenvalues = torch.linalg.eigvalsh(density)
    assert bool(((eigenvalues > -1e-12) & (eigenvalues < 1 + 1e-12)).all())


@pytest.mark.parametrize("gap", [0.0, 1.0, 10.0, 60.0])
def test_middle_of_the_gap(gap: float) -> None:
    """By symmetry; in 60 eV a plain count of the electrons is the same at every mu within."""
    levels = torch.tensor([-gap / 2, gap / 2], dtype=torch.float64) - 7.0
    ones = torch.ones(2, dtype=torch.float64)
    mu = chemical_potentials(levels, ones, torch.tensor([2.0]).double(), 0.1)
    assert mu.item() == pytest.approx(-7.0, abs=1e-9)


def test_one_level() -> None:
    """Half an electron more: kT ln(f / (1 - f)) above the level."""
    level, one = torch.tensor([3.0]).double(), torch.ones(1).double()
    mu = chemical_potentials(level, one, torch.tensor([1.0, 1.5]).double(), 0.1)
    assert mu.tolist() == pytest.approx([3.0, 3.0 + 0.1 * torch.log(torch.tensor(3.0)).item()])


def test_weights_that_do_not_add_up_to_one_exactly() -> None:
    levels = torch.tensor([-5.0] * 3 + [5.0] * 3, dtype=torch.float64)
    third = torch.full((6,), 1 / 3 + 1e-13, dtype=torch.float64)
    mu = chemical_potentials(levels, third, torch.tensor([2.0]).double(), 0.1)
    assert mu.item() == pytest.approx(0.0, abs=1e-6)


def test_limit_of_the_divided_difference() -> None:
    """Across the distance below which the derivative is taken."""
    for step in (0.9e-4 * KT, 1.1e-4 * KT):
        levels = torch.tensor([[0.1, 0.1 + step]], dtype=torch.float64)
        value = divided_difference(levels, torch.zeros(()).double(), KT)[0, 0, 1].item()
        f = torch.sigmoid(torch.tensor(-(0.1 + step / 2) / KT).double()).item()
        assert value == pytest.approx(-f * (1 - f) / KT, rel=1e-8)  # rounding of f over the step
