"""How much each bond matters to a number that depends on the strengths s of bonds.

f(s) is a prediction with the envelope of every bond multiplied by its s in [0, 1]: s = 1 is the
structure as it is, s = 0 the same atoms without a neighbour. f is smooth in s, and a bond of
strength 0 is exactly absent (`nn.trunk.Trunk.forward`).

| method | score of bond b |
|---|---|
| gradient | df/ds_b at s = 1, times the input s_b = 1 (Simonyan et al., arXiv:1312.6034) |
| integrated | integral of df/ds_b along s = t (1, ..., 1), t from 0 to 1; the sum over bonds is \
f(1) - f(0) (Sundararajan et al., ICML 2017, eq. 1) |
| mask | the s_b that keeps f near f(1) with few bonds left (GNNExplainer, Ying et al., NeurIPS \
2019, eq. 5, with a squared error in place of the cross entropy) |
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BondFunction:
    """A differentiable number that depends on the strengths of bonds."""

    function: Callable[[Tensor], Tensor]
    """(n, n_bonds) float64 strengths -> (n,) values, row by row."""
    n_bonds: int
    rows_at_once: int = 16
    """Rows of one evaluation; bounds the memory."""

    def values(self, strengths: Tensor) -> Tensor:
        """(n, n_bonds) -> (n,)."""
        with torch.no_grad():
            return torch.cat([self.function(rows) for rows in strengths.split(self.rows_at_once)])

    def gradients(self, strengths: Tensor) -> Tensor:
        """Slopes of each value with the strengths of its own row, (n, n_bonds)."""
        return torch.cat([self._slopes(rows) for rows in strengths.split(self.rows_at_once)])

    def ends(self) -> tuple[float, float]:
        """f(0) and f(1): without and with all bonds."""
        absent, whole = self.values(torch.stack([0 * self.whole(), self.whole()])).tolist()
        return absent, whole

    def whole(self) -> Tensor:
        """Strengths of the structure as it is, (n_bonds,)."""
        return torch.ones(self.n_bonds, dtype=torch.float64)

    def _slopes(self, rows: Tensor) -> Tensor:
        rows = rows.detach().requires_grad_(True)
        (slopes,) = torch.autograd.grad(self.function(rows).sum(), rows, materialize_grads=True)
        return slopes


def gradient_times_input(function: BondFunction) -> Tensor:
    """Change of f per relative weakening of each bond, (n_bonds,)."""
    return function.gradients(function.whole()[None])[0]


def integrated_gradients(
    function: BondFunction, *, tolerance: float = 1e-3, max_points: int = 256
) -> Tensor:
    """Attributions that add up to f(1) - f(0), (n_bonds,).

    Gauss-Legendre quadrature along the straight path; its points are doubled until the sum is
    right. Where it never gets there (a change near 0 of large terms), a warning is logged.

    Args:
        function: f.
        tolerance: Of the sum, relative to the change.
        max_points: Points of the path, at most.
    """
    absent, whole = function.ends()
    change, points = whole - absent, 16
    while True:
        nodes, weights = np.polynomial.legendre.leggauss(points)
        path = torch.as_tensor((nodes + 1) / 2)
        slopes = function.gradients(path[:, None] * function.whole())
        attribution = torch.as_tensor(weights / 2) @ slopes
        gap = abs(float(attribution.sum()) - change)
        if gap <= tolerance * abs(change):
            return attribution
        if 2 * points > max_points:
            log.warning("attributions miss the change %g by %g at %d points", change, gap, points)
            return attribution
        points *= 2


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Optimisation of a mask over bonds."""

    steps: int = 50
    """Steps of Adam."""
    learning_rate: float = 0.1
    """Of the logits of the strengths."""
    size: float = 0.1
    """Price of the mean strength, in units of (f(1) - f(0))^2."""
    entropy: float = 0.02
    """Price of the mean entropy, which drives strengths to 0 or 1; same unit."""
    start: float = 0.9
    """Strength of every bond at the start."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0 or min(self.size, self.entropy) < 0:
            raise ValueError(
                "steps must be at least 1, learning_rate larger than 0, size and entropy not "
                f"negative, got {self}"
            )
        if not 0 < self.start < 1:
            raise ValueError(f"start must lie between 0 and 1, got {self.start}")


def optimised_mask(function: BondFunction, config: MaskConfig) -> Tensor:
    """Strengths in (0, 1) that keep f(s) near f(1) at a low mean strength, (n_bonds,).

    Minimises ((f(s) - f(1)) / (f(1) - f(0)))^2 + size <s> + entropy <H(s)>, with s the sigmoid of
    free logits. Bonds of equal slope df/ds_b share one logit: of equivalent bonds all stay or all
    go. Without that rounding errors choose among them. There is no randomness.
    """
    absent, whole = function.ends()
    scale = (whole - absent) or 1.0
    tie = _equal_values(gradient_times_input(function))
    start = torch.full((int(tie.max()) + 1,), config.start, dtype=torch.float64)
    logits = torch.logit(start).requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=config.learning_rate)
    for _ in range(config.steps):
        strength = torch.sigmoid(logits)
        error = (function.function(strength[None, tie])[0] - whole) / scale
        entropy = softplus(logits) - logits * strength  # -s ln s - (1 - s) ln(1 - s), no log of 0
        price = config.size * strength + config.entropy * entropy
        loss = error**2 + price[tie].mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return torch.sigmoid(logits).detach()[tie]


def _equal_values(values: Tensor, tolerance: float = 1e-9) -> Tensor:
    """Number of the group of each value, (n,); groups are apart by ``tolerance`` of the largest."""
    ordered, order = values.sort()
    apart = ordered.diff() > tolerance * values.abs().max()
    groups = torch.zeros_like(order)
    groups[order[1:]] = apart.cumsum(0)
    return groups
