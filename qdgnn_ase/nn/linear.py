"""Products with weights, x W^T + b, by the faster of torch's two libraries.

On a CPU torch multiplies float32 matrices by MKL. On AMD's processors oneDNN, which torch holds
too, is faster for large ones, with the same rounding error. It makes a program for every new number
of rows, which takes longer than a small product: rows are filled up to one of 16 numbers per
octave, and small products stay with MKL.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_MIN_MULTIPLICATIONS = 6_000_000
"""Fewer are faster with MKL, whose calls cost less."""
_MIN_STEP = 64
"""Rows, the least distance of the numbers that rows are filled up to."""


class Linear(nn.Linear):
    """``nn.Linear`` by `product`."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_features) -> (n, out_features)."""
        return product(x, self.weight, self.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Product x W^T + b, (n, n_out); differentiable to any order.

    Where weights are trained it is torch's own, which leaves out derivatives that nobody asks for.

    Args:
        x: (n, n_in).
        weight: W, (n_out, n_in).
        bias: b, (n_out,).
    """
    parameters = [weight] if bias is None else [weight, bias]
    trained = torch.is_grad_enabled() and any(row.requires_grad for row in parameters)
    if trained or not _is_faster(x, weight):
        return functional.linear(x, weight, bias)
    result: Tensor = _Product.apply(x, weight, bias)
    return result


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return product(gradient, weight.T), None, None


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    return (
        type(x) is Tensor  # a traced or fake tensor is a subclass, whose sizes must stay open
        and x.shape[0] * weight.numel() >= _MIN_MULTIPLICATIONS
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and _HAS_ONEDNN
    )


_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    n, width = x.shape
    step = max(2 ** (n.bit_length() - 5), _MIN_STEP)
    filled = -(-n // step) * step
    if filled > n:
        rows = x.new_empty(filled, width)
        rows[:n] = x
        rows[n:] = 0.0
        x = rows
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result[:n]
