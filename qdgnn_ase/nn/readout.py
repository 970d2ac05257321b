"""Step 5, readout: per-atom energies, extensive by construction."""

from __future__ import annotations

from torch import Tensor, nn


class AtomicEnergy(nn.Module):
    """Scalar features -> energy of each atom relative to its element's reference.

    Args:
        hidden: Scalar channels.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(n_atoms, hidden) -> (n_atoms,), in units of the model's energy scale."""
        energy: Tensor = self.layers(hidden)
        return energy.squeeze(1)
