"""Envelope and basis."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qdgnn_ase.graph import envelope
from qdgnn_ase.nn.radial import SCALE, RadialBasis

CUTOFF = 4.5


def derivatives(function: Callable[[Tensor], Tensor], at: float, order: int) -> list[float]:
    """Value and derivatives up to ``order``."""
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    values = [function(x)]
    for _ in range(order):
        values += torch.autograd.grad(values[-1], x, create_graph=True)
    return [value.item() for value in values]


@pytest.mark.parametrize("at", [CUTOFF, CUTOFF - 1e-9, CUTOFF + 1e-9, 2 * CUTOFF])
def test_envelope_ends_smoothly(at: float) -> None:
    for value in derivatives(lambda x: envelope(x, CUTOFF), at, 2):
        assert abs(value) < 1e-8


def test_envelope_starts_smoothly() -> None:
    value, first, second = derivatives(lambda x: envelope(x, CUTOFF), 0.0, 2)
    assert value == 1.0
    assert abs(first) < 1e-14
    assert abs(second) < 1e-14


def test_envelope_falls() -> None:
    values = envelope(torch.linspace(0.01, CUTOFF, 500, dtype=torch.float64), CUTOFF)
    assert bool((values.diff() < 0).all())


def test_envelope_is_exact_at_the_cutoff_in_float32() -> None:
    x = torch.tensor([CUTOFF, 5.0, 1e4], requires_grad=True)
    value = envelope(x, CUTOFF)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert value.tolist() == slope.tolist() == [0.0] * 3
    assert bool((envelope(torch.linspace(4.4, CUTOFF, 10_000), CUTOFF) >= 0).all())


def test_envelope_is_the_polynomial() -> None:
    x = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
    torch.testing.assert_close(
        envelope(x * CUTOFF, CUTOFF), 1.0 - 10.0 * x**3 + 15.0 * x**4 - 6.0 * x**5
    )


def test_envelope_takes_a_cutoff_per_pair() -> None:
    distance, cutoffs = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.9, 1.0, 2.0])
    assert envelope(distance, cutoffs).tolist() == [0.0, 0.0, 0.5]


def test_basis_ends_smoothly() -> None:
    basis = RadialBasis(8, CUTOFF).double()
    for k in range(8):
        for value in derivatives(lambda x, k=k: basis(x.reshape(1, 1))[0][0, k], CUTOFF, 2):
            assert abs(value) < 1e-8


def test_basis_is_bessel_times_envelope() -> None:
    distance = torch.tensor([[0.3], [2.0], [4.4]])
    values, fc = RadialBasis(3, CUTOFF)(distance)
    k = torch.arange(1, 4)
    bessel = torch.sin(k * torch.pi * distance / CUTOFF) / distance
    torch.testing.assert_close(values, SCALE * bessel * fc)
    assert values.shape == (3, 3)
    assert fc.shape == (3, 1)


def test_basis_is_of_order_one_in_a_crystal() -> None:
    """Mean square over the edges of a homogeneous crystal, whose density of distances is d^2."""
    distance = torch.linspace(1.5, 5.0, 2000)[:, None]
    values, _ = RadialBasis(12, 5.0)(distance)
    weight = distance**2 / (distance**2).sum()
    mean_square = (weight * values**2).sum(dim=0)
    assert ((mean_square > 0.3) & (mean_square < 3.0)).all()
