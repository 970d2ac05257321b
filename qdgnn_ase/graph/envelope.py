"""Smooth end of the neighbour list, shared by every function of a distance."""

from __future__ import annotations

from torch import Tensor


def envelope(distance: Tensor, cutoff: Tensor | float) -> Tensor:
    """Polynomial cutoff 1 - 10 x^3 + 15 x^4 - 6 x^5 with x = d / r_c, 0 beyond; same shape.

    Value, first and second derivative vanish at r_c, the derivatives at 0 too. Written in
    y = 1 - x: no rounding is left of value and slope at r_c, and no value is negative.
    """
    y = (1.0 - distance / cutoff).clamp(min=0.0)
    return y**3 * (10.0 - y * (15.0 - 6.0 * y))
