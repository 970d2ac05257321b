"""Step 5, readout: energies of atoms, and properties of structures.

An energy is a sum over atoms. A property is the same for a cell and its supercell, so its heads
take means, smooth maxima and attention-weighted means over atoms, never sums. A site that is not
always occupied counts with its occupancy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.attention import LOGIT_BOUND
from qdgnn_ase.nn.linear import Linear
from qdgnn_ase.nn.segment import segment_sum


class AtomicEnergy(nn.Module):
    """Scalar features -> energy of each atom relative to its element's reference.

    Args:
        hidden: Scalar channels.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(hidden), Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(n_atoms, hidden) -> (n_atoms,), in units of the model's energy scale."""
        energy: Tensor = self.layers(hidden)
        return energy.squeeze(1)


class Pool:
    """Sums and means over the atoms of each structure.

    Args:
        graph: The batch.
    """

    def __init__(self, graph: AtomGraph) -> None:
        self.batch, self.n_graphs = graph.batch, graph.n_graphs
        self.weight: Tensor | None = None
        self.total = graph.n_atoms[:, None]
        if graph.occupancies is not None:
            self.weight = graph.occupancies.sum(dim=1, keepdim=True)
            self.total = segment_sum(self.weight, self.batch, self.n_graphs)

    def sum(self, atoms: Tensor) -> Tensor:
        """(n_atoms, width) -> (n_graphs, width)."""
        weighted = atoms if self.weight is None else atoms * self.weight
        return segment_sum(weighted, self.batch, self.n_graphs)

    def mean(self, atoms: Tensor) -> Tensor:
        """(n_atoms, width) -> (n_graphs, width)."""
        return self.sum(atoms) / self.total


class AtomMeanHead(nn.Module):
    """Mean of what each atom contributes, by every member of an ensemble of heads.

    Args:
        hidden: Scalar channels.
        n_members: Members.
    """

    def __init__(self, hidden: int, n_members: int) -> None:
        super().__init__()
        self.members = Members(hidden, hidden // 2, n_members)

    def forward(self, atoms: Tensor, pool: Pool) -> Tensor:
        """Features (n_atoms, hidden) -> values (n_graphs, n_members)."""
        return pool.mean(self.members(atoms))


class PooledHead(nn.Module):
    """Mean, smooth maximum and attention-weighted mean over atoms -> a value by every member.

    Args:
        hidden: Scalar channels.
        n_members: Members.
    """

    def __init__(self, hidden: int, n_members: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, 1)
        self.norm = nn.LayerNorm(3 * hidden)
        self.members = Members(3 * hidden, hidden // 2, n_members)

    def forward(self, atoms: Tensor, pool: Pool) -> Tensor:
        """Features (n_atoms, hidden) -> values (n_graphs, n_members)."""
        weight = torch.exp(LOGIT_BOUND * torch.tanh(self.gate(atoms) / LOGIT_BOUND))
        attended = pool.sum(weight * atoms) / pool.sum(weight)
        pooled = torch.cat([pool.mean(atoms), attended, smooth_maximum(atoms, pool)], dim=1)
        values: Tensor = self.members(self.norm(pooled))
        return values


def smooth_maximum(atoms: Tensor, pool: Pool) -> Tensor:
    """log(mean_i exp(beta x_i)) / beta with beta = 2, (n_graphs, hidden).

    The gradient of a true maximum finds its atom by equality, which a compiled program, where the
    same number is rounded in two ways, misses. Features are layer-normalised: exp cannot overflow.

    Args:
        atoms: (n_atoms, hidden), normalised.
        pool: Of their graph.
    """
    return torch.log(pool.mean(torch.exp(2.0 * atoms))) / 2.0


class Members(nn.Module):
    """Two-layer networks on the same input, which differ in start, data and quantile.

    Args:
        n_in: Width of the input.
        width: Width of the hidden layer of each member.
        n_members: Members.
    """

    def __init__(self, n_in: int, width: int, n_members: int) -> None:
        super().__init__()
        self.shape = (n_members, width)
        self.first = Linear(n_in, n_members * width)
        self.second = nn.Parameter(torch.randn(n_members, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(n_members))

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) -> (n, n_members)."""
        inner = silu(self.first(x)).unflatten(1, self.shape)
        values: Tensor = (inner * self.second).sum(dim=2) + self.bias
        return values
