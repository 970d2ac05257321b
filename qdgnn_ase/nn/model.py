"""QDGNN, the potential: features of each atom -> its energy.

E = sum_i ( e_ref[Z_i] + scale * e_i(h_i) ) + 1/2 sum_ij ZBL(d_ij) envelope(d_ij / d_min[Z_i, Z_j])
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qdgnn_ase.graph import MIN_DISTANCE, AtomGraph
from qdgnn_ase.nn.readout import AtomicEnergy
from qdgnn_ase.nn.repulsion import repulsion_energy
from qdgnn_ase.nn.segment import Edges, segment_sum
from qdgnn_ase.nn.trunk import QDGNNConfig, Trunk, batch_of
from qdgnn_ase.quantum.atomic import N_ELEMENTS


class QDGNN(nn.Module):
    """Potential energy of a batch of structures.

    Buffers that training sets: ``element_energies`` (95,) eV, ``energy_scale`` () eV, ``shortest``
    (95, 95) Å shortest training distance per element pair, larger than 0, ``counts`` (95,) atoms of
    each element in training.

    Args:
        config: Architecture.
        neighbors: Mean number of neighbours in training.
    """

    element_energies: Tensor
    energy_scale: Tensor
    shortest: Tensor
    counts: Tensor

    def __init__(self, config: QDGNNConfig, *, neighbors: float = 40.0) -> None:
        super().__init__()
        self.config = config
        self.neighbors = neighbors
        n = N_ELEMENTS + 1
        self.register_buffer("element_energies", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones(()))
        self.register_buffer("shortest", torch.full((n, n), MIN_DISTANCE))
        self.register_buffer("counts", torch.zeros(n, dtype=torch.int64))
        self.trunk = Trunk(config, neighbors)
        self.readout = AtomicEnergy(config.hidden)

    def forward(
        self,
        graph: AtomGraph,
        edge_vector: Tensor | None = None,
        strength: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Energies of a batch.

        Args:
            graph: Batch; a ``dgl.DGLGraph`` made by ``AtomGraph.to_dgl`` works too.
            edge_vector: (n_edges, 3), Å, to differentiate with respect to; made from the graph if
                not given.
            strength: (n_edges, 1), of each edge from 0 (absent) to 1 (whole, if not given).

        Returns:
            ``energy`` (n_graphs,) and ``energies`` (n_atoms,) in eV, float64; ``hidden``
            (n_atoms, hidden), the scalar features behind them.

        Raises:
            ValueError: If sites are shared by several elements.
        """
        graph = batch_of(graph)
        if graph.occupancies is not None:
            raise ValueError(
                "every site must be fully occupied by one element in a potential, got a graph with "
                "occupancies; make ordered structures first"
            )
        vector = graph.edge_vectors() if edge_vector is None else edge_vector
        distance = vector.norm(dim=1, keepdim=True)
        edges = Edges(graph.edge_index, graph.numbers.shape[0])
        hidden = self.trunk(graph.numbers, vector, distance, edges, strength)
        repulsion = self._repulsion(graph, distance.squeeze(1), edges, strength)
        energies = self.readout(hidden) * self.energy_scale + repulsion
        energies = energies.double() + self.element_energies.double()[graph.numbers]
        energy = segment_sum(energies, graph.batch, graph.n_graphs)
        return {"energy": energy, "energies": energies, "hidden": hidden}

    def _repulsion(
        self, graph: AtomGraph, distance: Tensor, edges: Edges, strength: Tensor | None
    ) -> Tensor:
        """ZBL energy per atom in eV, (n_atoms,)."""
        first, second = edges.destination, edges.source
        z_i, z_j = graph.numbers.index_select(0, first), graph.numbers.index_select(0, second)
        # beyond the cutoff there are no edges: a longer range would end in a jump
        shortest = self.shortest.view(-1).index_select(0, z_i * len(self.shortest) + z_j)
        shortest = shortest.clamp(max=self.config.cutoff)
        if edges.plain:  # beyond the shortest distance the energy is 0: few pairs are left
            close = (distance < shortest).nonzero().squeeze(1)
            if not len(close):
                return distance.new_zeros(edges.n_atoms)
            distance, z_i, z_j, first, shortest = (
                x.index_select(0, close) for x in (distance, z_i, z_j, first, shortest)
            )
            strength = None if strength is None else strength.index_select(0, close)
        energy = repulsion_energy(distance, z_i, z_j, shortest)
        energy = energy if strength is None else energy * strength.squeeze(1)
        return segment_sum(energy, first, edges.n_atoms)
