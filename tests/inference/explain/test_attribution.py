"""Attribution of functions whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qdgnn_ase.inference.explain.attribution import (
    BondFunction,
    MaskConfig,
    gradient_times_input,
    integrated_gradients,
    optimised_mask,
)

WEIGHTS = torch.tensor([0.5, -2.0, 3.0, 0.0], dtype=torch.float64)


def cubic(strengths: Tensor) -> Tensor:
    return (strengths @ WEIGHTS) ** 3 + 7.0


def test_gradient_of_a_cubic() -> None:
    wanted = 3 * WEIGHTS.sum() ** 2 * WEIGHTS
    torch.testing.assert_close(gradient_times_input(BondFunction(cubic, 4)), wanted)


@pytest.mark.parametrize("rows_at_once", [1, 5, 100])
def test_integrated_gradients_of_a_cubic(rows_at_once: int) -> None:
    found = integrated_gradients(BondFunction(cubic, 4, rows_at_once))
    torch.testing.assert_close(found, WEIGHTS.sum() ** 2 * WEIGHTS)
    absent, whole = BondFunction(cubic, 4).ends()
    assert float(found.sum()) == pytest.approx(whole - absent)


def test_steep_functions_get_more_points() -> None:
    calls = []

    def steep(strengths: Tensor) -> Tensor:
        calls.append(len(strengths))
        return torch.tanh(40 * (strengths.mean(dim=1) - 0.3))

    found = integrated_gradients(BondFunction(steep, 3, 1_000))
    absent, whole = BondFunction(steep, 3).ends()
    assert float(found.sum()) == pytest.approx(whole - absent, rel=1e-3)
    assert max(calls) > 16


def test_a_jump_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """No slope anywhere: the attributions cannot add up, and that is said."""
    jump = BondFunction(lambda s: (s.mean(dim=1) > 0.5).double() + 0 * s.sum(dim=1), 3)
    assert not bool(integrated_gradients(jump).any())
    assert "miss the change 1 by 1" in caplog.text


def test_mask_keeps_what_matters() -> None:
    function = BondFunction(lambda s: 2 * s[:, 0] + s[:, 3] + 1e-3 * s[:, 1], 5)
    mask = optimised_mask(function, MaskConfig())
    assert bool((mask[[0, 3]] > 0.8).all())
    assert bool((mask[[1, 2, 4]] < 0.2).all())


def test_equal_bonds_stay_equal() -> None:
    """A concave function of their sum: rounding would make one of them stay and one go."""
    function = BondFunction(lambda s: torch.sqrt(1e-3 + s[:, 0] + s[:, 1]) + s[:, 2], 3)
    mask = optimised_mask(function, MaskConfig(entropy=0.5))
    assert mask[0] == mask[1]
    assert mask[0] != mask[2]


def test_mask_of_a_constant_goes() -> None:
    constant = BondFunction(lambda s: 3.0 + 0 * s[:, 0], 2)
    assert bool((optimised_mask(constant, MaskConfig()) < 0.1).all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate larger than 0"),
        ({"size": -1.0}, "not negative"),
        ({"start": 1.0}, "between 0 and 1"),
    ],
)
def test_bad_config(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskConfig(**changes)
