"""Blocks of edges <-> matrices at k-points, of one structure.

An image S counts only modulo the mesh, because the phases e^(ik S) do: edges are added up in one
real matrix per image of the mesh, and a product with the phases makes the matrices at all k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qdgnn_ase.quantum.kpoints import Mesh, kpoints
from qdgnn_ase.quantum.slater_koster import N_ORBITALS


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where the blocks of edges stand in the matrices of a structure."""

    n_orbitals: int
    """Orbitals that take part."""
    slots: Tensor
    """(n_atoms, 9), place of an orbital in the matrix; n_orbitals if it takes no part."""
    places: Tensor
    """(n_edges, 9, 9), place of a block's element in the flat matrices of all images, which have a
    row and column more, for orbitals that take no part."""
    phases: Tensor
    """(n_k, n_images), e^(ik S), real where all k are their own mirror images."""
    weights: Tensor
    """(n_k,), sum 1."""

    @classmethod
    def of(cls, orbitals: Tensor, edge_index: Tensor, shift: Tensor, mesh: Mesh) -> Layout:
        """Layout of one structure.

        Args:
            orbitals: (n_atoms, 9) bool, whether an orbital takes part.
            edge_index: (2, n_edges), [source j, destination i].
            shift: (n_edges, 3), images of the sources.
            mesh: k-points along each axis.
        """
        device = orbitals.device
        size = torch.tensor(mesh, device=device)
        points, weights = (x.to(device) for x in kpoints(mesh))
        images = torch.cartesian_prod(*(torch.arange(n, device=device) for n in mesh))
        angles = 2 * torch.pi * ((points.double() / size) @ images.T.double())
        phases = angles.cos() if max(mesh) <= 2 else torch.polar(torch.ones_like(angles), angles)
        n = int(orbitals.sum())
        slots = torch.full(orbitals.shape, n, device=device)
        slots[orbitals] = torch.arange(n, device=device)
        inside = shift.round().long() % size
        image = (inside[:, 0] * size[1] + inside[:, 1]) * size[2] + inside[:, 2]
        source, destination = edge_index
        rows = image[:, None] * (n + 1) + slots[destination]
        places = rows[:, :, None] * (n + 1) + slots[source][:, None, :]
        return cls(n, slots, places, phases, weights)

    def hamiltonian(self, blocks: Tensor, levels: Tensor) -> Tensor:
        """H_k in eV, (n_k, n_orbitals, n_orbitals), from blocks (n_edges, 9, 9) in eV.

        Args:
            blocks: Hopping matrices of the edges.
            levels: (n_atoms, 9), eV, of all orbitals.
        """
        n = self.n_orbitals
        flat = blocks.new_zeros(self.phases.shape[1] * (n + 1) ** 2)
        flat = flat.index_add(0, self.places.flatten(), blocks.flatten())
        images = flat.view(-1, n + 1, n + 1)[:, :n, :n].flatten(1)
        hopping = (self.phases @ images.to(self.phases.dtype)).view(-1, n, n)
        return hopping + torch.diag(levels[self.slots < n]).to(hopping.dtype)

    def density(self, density: Tensor) -> tuple[Tensor, Tensor]:
        """Real-space density matrix of both spins from P_k (n_k, n_orbitals, n_orbitals).

        Returns:
            D of the edges, (n_edges, 9, 9), and the diagonal of the atoms, (n_atoms, 9).
        """
        n = self.n_orbitals
        factors = (2 * self.weights[:, None] * self.phases.conj()).T
        images = (factors @ density.flatten(1)).view(-1, n, n)
        real = images.real if images.is_complex() else images
        padded = torch.nn.functional.pad(real, (0, 1, 0, 1))
        diagonal = padded[0].diagonal()[self.slots]
        return padded.flatten()[self.places], diagonal.view(-1, N_ORBITALS)
