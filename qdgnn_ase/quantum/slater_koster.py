"""Two-centre matrix elements between the nine s, p and d orbitals of two atoms.

Slater and Koster, Phys. Rev. 94, 1498 (1954), without its table: with the unit vector u from atom i
to atom j and the traceless symmetric matrix E_k of d function k (|E_k| = 1),

    sigma states   s: 1,  p: u,  d: a_k = sqrt(3/2) u^T E_k u
    pi states      p: T = 1 - u u^T,  d: B_ck = sqrt(2) (T E_k u)_c

so that the pi block of p with d is B, that of d with d is B^T B, and delta is what is left of the
unit matrix. Orbitals in the order s, x, y, z, xy, yz, zx, x^2 - y^2, 3 z^2 - r^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qdgnn_ase.quantum.tight_binding import HOPPINGS

N_ORBITALS = 9
SHELL_OF_ORBITAL = (0, 1, 1, 1, 2, 2, 2, 2, 2)
"""0, 1, 2 for s, p, d."""


def slater_koster(hoppings: Tensor, unit: Tensor, d_matrices: Tensor) -> Tensor:
    """Blocks H_ij in eV, (n_edges, 9, 9), rows orbitals of i, columns orbitals of j.

    Args:
        hoppings: (n_edges, 14), eV, columns as in ``HOPPINGS``.
        unit: (n_edges, 3), unit vector from i to j.
        d_matrices: (5, 3, 3), E_k.
    """
    v = dict(zip(HOPPINGS, hoppings.T[:, :, None, None], strict=True))
    p_sigma, d_sigma, p_pi, d_pi = _states(unit, d_matrices)
    p_p, d_d = _outer(p_sigma, p_sigma), _outer(d_sigma, d_sigma)
    p_d, pi_d_d = _outer(p_sigma, d_sigma), d_pi.mT @ d_pi
    delta = torch.eye(5, dtype=unit.dtype, device=unit.device) - d_d - pi_d_d
    rows = [
        [v["ss_sigma"], v["sp_sigma"] * p_sigma[:, None], v["sd_sigma"] * d_sigma[:, None]],
        [
            -v["ps_sigma"] * p_sigma[:, :, None],
            v["pp_sigma"] * p_p + v["pp_pi"] * p_pi,
            v["pd_sigma"] * p_d + v["pd_pi"] * d_pi,
        ],
        [
            v["ds_sigma"] * d_sigma[:, :, None],
            -v["dp_sigma"] * p_d.mT - v["dp_pi"] * d_pi.mT,
            v["dd_sigma"] * d_d + v["dd_pi"] * pi_d_d + v["dd_delta"] * delta,
        ],
    ]
    return torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)


def _states(unit: Tensor, d_matrices: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sigma states of p (n, 3) and d (n, 5); pi states of p (n, 3, 3) and d (n, 3, 5)."""
    along = torch.einsum("kab,nb->nak", d_matrices, unit)
    d_sigma = torch.einsum("na,nak->nk", unit, along)
    p_pi = torch.eye(3, dtype=unit.dtype, device=unit.device) - _outer(unit, unit)
    d_pi = 2**0.5 * (along - _outer(unit, d_sigma))
    return unit, 1.5**0.5 * d_sigma, p_pi, d_pi


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[:, :, None] * b[:, None, :]
