"""Radial basis and cutoff envelope (graph step of the model).

Basis: spherical Bessel functions of order 0 (Gasteiger et al., DimeNet, ICLR 2020, eq. 7) without
the 1/d factor's pole: sin(k pi d / r_c) / d is finite at d = 0; times a constant that makes their
mean square over the edges of a crystal about 1, without which distances hardly move an untrained
network and training is several times slower. The envelope's value, first and
second derivative vanish at r_c, so energy, forces and Hessian are continuous there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qdgnn_ase.graph import envelope

SCALE = 10.0
"""Factor in Å of the enveloped functions, whose mean square is about 0.01 / Å^2 without it."""


class RadialBasis(nn.Module):
    """Enveloped Bessel functions of a distance.

    Args:
        n_radial: Number of functions.
        cutoff: r_c in Å.
    """

    wave_numbers: Tensor

    def __init__(self, n_radial: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        waves = torch.arange(1, n_radial + 1, dtype=torch.float64) * torch.pi / cutoff
        self.register_buffer("wave_numbers", waves.float())

    def forward(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Basis (n_edges, n_radial) and envelope (n_edges, 1) of distances (n_edges, 1) in Å."""
        fc = envelope(distance, self.cutoff)
        return torch.sin(self.wave_numbers * distance) * (SCALE * fc / distance), fc
