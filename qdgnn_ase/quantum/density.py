"""Density matrix and chemical potentials of a Hamiltonian, with exact derivatives.

P_k = f(H_k) with the Fermi function f at a chemical potential mu that holds N electrons, two to a
level. Derivatives after Daleckii and Krein: in the eigenbasis dP_ab = F_ab dH_ab with the divided
difference F_ab = (f_a - f_b) / (e_a - e_b), its limit f'(e) where levels meet. No eigenvector is
differentiated, so degenerate levels, which every symmetric crystal has, do no harm. The chemical
potential follows from dN = 0: dmu = sum_a w_a f'_a dH_aa / sum_a w_a f'_a.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

_DEGENERATE = 1e-4
"""Temperatures. Levels closer than this take the derivative of f in place of the divided
difference: then it is wrong by 1e-9 of itself, as much as rounding would leave of the difference.
"""
_HALVINGS = 64
_MARGIN = 50.0
"""Chemical potentials lie within the levels and this many temperatures beyond."""
_WHOLE = 1e-9
"""Levels filled to within this share are full or empty: sums of k-point weights are rounded."""


def density_matrix(
    hamiltonian: Tensor, weights: Tensor, electrons: Tensor, temperature: float, vacuum: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Density matrices of a structure with one diagonalisation.

    Args:
        hamiltonian: (n_k, n, n), eV, Hermitian, real or complex.
        weights: (n_k,), sum 1.
        electrons: (n_targets,), numbers of electrons, the first is that of the density matrix.
        temperature: k_B T of the Fermi function, eV.
        vacuum: Number of vacuum levels at 0 eV that can take electrons, too.

    Returns:
        Density matrices (n_k, n, n) of one spin, with eigenvalues from 0 to 1; chemical potentials
        (n_targets,) in eV; levels (n_k, n) in eV, which carry no gradient.
    """
    result: tuple[Tensor, Tensor, Tensor] = _DensityMatrix.apply(
        hamiltonian, weights, electrons, temperature, vacuum
    )
    return result


class _DensityMatrix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hamiltonian: Tensor,
        weights: Tensor,
        electrons: Tensor,
        temperature: float,
        vacuum: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        levels, vectors = torch.linalg.eigh(hamiltonian)
        all_levels = levels.flatten()
        all_weights = weights[:, None].expand_as(levels).flatten()
        if vacuum:
            all_levels, all_weights = _append(all_levels, 0.0), _append(all_weights, vacuum)
        mu = chemical_potentials(all_levels, all_weights, electrons, temperature)
        filled = torch.sigmoid((mu[0] - levels) / temperature)
        ctx.save_for_backward(levels, vectors, all_levels, all_weights, mu)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(levels)
        return (vectors * filled[:, None].to(vectors.dtype)) @ vectors.mH, mu, levels

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_density: Tensor, grad_mu: Tensor, _: Any
    ) -> tuple[Tensor, None, None, None, None]:
        levels, vectors, all_levels, all_weights, mu = ctx.saved_tensors
        kt = ctx.temperature
        inner = vectors.mH @ ((grad_density + grad_density.mH) / 2) @ vectors
        x = (mu[0] - levels) / kt
        rise = torch.sigmoid(x) * torch.sigmoid(-x) / kt
        # weights of the levels in each mu, from logarithms: f' underflows in a wide gap
        y = (mu[:, None] - all_levels) / kt
        shares = torch.softmax(all_weights.log() + logsigmoid(y) + logsigmoid(-y), dim=1)
        shares = shares[:, : levels.numel()].reshape(-1, *levels.shape)
        grad_mu = grad_mu.clone()
        grad_mu[0] += (inner.diagonal(dim1=1, dim2=2).real * rise).sum()
        diagonal = torch.einsum("t,tka->ka", grad_mu, shares)
        matrix = divided_difference(levels, mu[0], kt) * inner
        matrix = matrix + torch.diag_embed(diagonal).to(matrix.dtype)
        return vectors @ matrix @ vectors.mH, None, None, None, None


def chemical_potentials(
    levels: Tensor, weights: Tensor, electrons: Tensor, temperature: float
) -> Tensor:
    """Where the Fermi function holds given numbers of electrons, (n_targets,), eV.

    Electrons above and holes below the filled levels are counted, not electrons in all: in an
    insulator these are far smaller than what rounding leaves of the sum.

    Args:
        levels: (n_states,), eV.
        weights: (n_states,), two electrons each.
        electrons: (n_targets,), each between 0 and twice the sum of the weights.
        temperature: k_B T, eV.
    """
    order = torch.argsort(levels)
    levels, capacity = levels[order], 2 * weights[order]
    below = torch.cumsum(capacity, dim=0) - capacity
    filled = ((electrons[:, None] - below) / capacity).clamp(0.0, 1.0)
    filled = torch.where(filled < _WHOLE, 0.0, torch.where(filled > 1 - _WHOLE, 1.0, filled))
    full = filled == 1.0
    low = torch.full_like(electrons, float(levels[0]) - _MARGIN * temperature)
    high = torch.full_like(electrons, float(levels[-1]) + _MARGIN * temperature)
    for _ in range(_HALVINGS):
        mu = (low + high) / 2
        x = (mu[:, None] - levels) / temperature
        change = torch.where(full, -torch.sigmoid(-x), torch.sigmoid(x) - filled)
        too_many = (capacity * change).sum(dim=1) > 0
        low, high = torch.where(too_many, low, mu), torch.where(too_many, mu, high)
    return (low + high) / 2


def divided_difference(levels: Tensor, mu: Tensor, temperature: float) -> Tensor:
    """(f_a - f_b) / (e_a - e_b) of the Fermi function at all pairs of levels, (n_k, n, n), 1/eV."""
    x = (mu - levels) / temperature
    filled, slope = torch.sigmoid(x), -torch.sigmoid(x) * torch.sigmoid(-x) / temperature
    step = levels[:, :, None] - levels[:, None, :]
    meet = step.abs() < _DEGENERATE * temperature
    mean_slope = (slope[:, :, None] + slope[:, None, :]) / 2
    ratio = (filled[:, :, None] - filled[:, None, :]) / step.masked_fill(meet, 1.0)
    return torch.where(meet, mean_slope, ratio)


def _append(values: Tensor, last: float) -> Tensor:
    return torch.cat([values, values.new_tensor([last])])
