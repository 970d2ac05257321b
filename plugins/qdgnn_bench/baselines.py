"""Published graph networks from their libraries, with our periodic edges and one call signature.

Each takes an `AtomGraph` to (n_graphs, n_targets) scaled values. CGCNN (Xie and Grossman 2018) is
DeepChem's, MEGNet (Chen et al. 2019) matgl's, SchNet (Schütt et al. 2018) torch-geometric's, MPNN
MatDeepLearn's (Fung et al. 2021; NNConv, GRU and Set2Set of torch-geometric). Widths and depths are
the libraries' defaults, but MPNN is 32 wide: the matrix that it makes for every edge costs the
square of the width, and at 64 it sees the data a quarter as often in the same time. More than one
target only widens the last layer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from pymatgen.core import Element
from torch import Tensor, nn

from qdgnn_ase import AtomGraph, from_atoms

N_ELEMENTS = 94


class CGCNN(nn.Module):
    """DeepChem's network on the 12 nearest neighbours within 8 Å."""

    elements: Tensor

    def __init__(self, n_targets: int) -> None:
        from deepchem.models.torch_models.cgcnn import CGCNN as DeepChemNetwork  # noqa: N811

        super().__init__()
        self.register_buffer("elements", element_table())
        width = self.elements.shape[1]
        self.network = DeepChemNetwork(in_node_dim=width, in_edge_dim=41, n_tasks=n_targets)

    def forward(self, graph: AtomGraph) -> Tensor:
        """Values of a batch."""
        crystal = _dgl_graph(graph)
        crystal.ndata["x"] = self.elements[graph.numbers]
        crystal.edata["edge_attr"] = gaussians(_distances(graph), 8.0, 41, width=0.2)
        values: Tensor = self.network(crystal)
        return values


class MEGNet(nn.Module):
    """matgl's network on all neighbours within 4 Å, the cutoff of its published models."""

    def __init__(self, n_targets: int) -> None:
        os.environ.setdefault("MATGL_BACKEND", "DGL")
        from matgl.models import MEGNet as MatglMEGNet

        super().__init__()
        symbols = tuple(Element.from_Z(z).symbol for z in range(1, N_ELEMENTS + 1))
        self.network = MatglMEGNet(element_types=symbols, cutoff=4.0)
        last = self.network.output_proj.layers[-1]
        self.network.output_proj.layers[-1] = nn.Linear(last.in_features, n_targets)
        self.n_targets = n_targets

    def forward(self, graph: AtomGraph) -> Tensor:
        """Values of a batch."""
        crystal = _dgl_graph(graph)
        crystal.ndata["node_type"] = graph.numbers - 1
        crystal.ndata["pos"] = graph.positions
        crystal.edata["pbc_offshift"] = -_image_vectors(graph)
        values: Tensor = self.network(crystal, graph.positions.new_zeros(graph.n_graphs, 2))
        return values.reshape(graph.n_graphs, self.n_targets)


class SchNet(nn.Module):
    """torch-geometric's network on the 12 nearest neighbours within 8 Å; mean over atoms."""

    def __init__(self, n_targets: int) -> None:
        from torch_geometric.nn import SchNet as GeometricSchNet

        super().__init__()
        self.network = GeometricSchNet(cutoff=8.0, interaction_graph=_unset, readout="mean")
        self.network.lin2 = nn.Linear(self.network.lin2.in_features, n_targets)

    def forward(self, graph: AtomGraph) -> Tensor:
        """Values of a batch."""
        edges = graph.edge_index, _distances(graph)
        self.network.interaction_graph = lambda positions, batch: edges
        values: Tensor = self.network(graph.numbers, graph.positions, graph.batch)
        return values


class MPNN(nn.Module):
    """MatDeepLearn's network on the 12 nearest neighbours within 8 Å."""

    def __init__(self, n_targets: int, hidden: int = 32, n_layers: int = 4) -> None:
        from torch_geometric.nn import NNConv, Set2Set

        super().__init__()
        self.embedding = nn.Embedding(N_ELEMENTS + 1, hidden)
        self.convolutions = nn.ModuleList(
            NNConv(hidden, hidden, _mlp(50, hidden, hidden * hidden), aggr="mean")
            for _ in range(n_layers)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(n_layers))
        self.gru = nn.GRU(hidden, hidden)
        self.pool = Set2Set(hidden, processing_steps=3)
        self.head = nn.Sequential(_mlp(2 * hidden, hidden, hidden), _mlp(hidden, hidden, n_targets))

    def forward(self, graph: AtomGraph) -> Tensor:
        """Values of a batch."""
        edge = gaussians(_distances(graph), 8.0, 50, width=8.0 / 49)
        atoms = torch.relu(self.embedding(graph.numbers))
        state = atoms[None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            message = torch.relu(norm(convolution(atoms, graph.edge_index, edge)))
            atoms, state = self.gru(message[None], state)
            atoms = atoms[0]
        values: Tensor = self.head(self.pool(atoms, graph.batch))
        return values


@dataclass(frozen=True, slots=True)
class Baseline:
    """How to build a network and its graphs."""

    build: Callable[[int], nn.Module]
    """Number of targets -> network."""
    cutoff: float
    """Å."""
    neighbors: int | None = None
    """Nearest neighbours of each atom that are kept; None keeps all within the cutoff."""

    def graph(self, atoms: Atoms) -> AtomGraph:
        """Graph of a structure as the network wants it."""
        graph = from_atoms(atoms, self.cutoff)
        return graph if self.neighbors is None else nearest(graph, self.neighbors)


BASELINES = {
    "CGCNN": Baseline(CGCNN, 8.0, 12),
    "MEGNet": Baseline(MEGNet, 4.0),
    "SchNet": Baseline(SchNet, 8.0, 12),
    "MPNN": Baseline(MPNN, 8.0, 12),
}


def nearest(graph: AtomGraph, k: int) -> AtomGraph:
    """Keep the edges from the ``k`` nearest neighbours of each atom."""
    destination = graph.edge_index[1].numpy()
    order = np.lexsort((_distances(graph).numpy(), destination))
    first = np.searchsorted(destination, np.arange(len(graph.numbers)))
    rank = np.arange(len(order)) - first[destination]  # edges are sorted by destination
    kept = torch.as_tensor(order[rank < k])
    return replace(graph, edge_index=graph.edge_index[:, kept], edge_shift=graph.edge_shift[kept])


def gaussians(distance: Tensor, last: float, n: int, width: float) -> Tensor:
    """(n_edges, n) expansion exp(-(d - d_k)^2 / width^2) with d_k from 0 to ``last`` Å."""
    centers = torch.linspace(0.0, last, n, device=distance.device)
    return torch.exp(-(((distance[:, None] - centers) / width) ** 2))


def element_table() -> Tensor:
    """CGCNN's one-hot element features from pymatgen's data, (95, n_features); row 0 is empty.

    Group, period, electronegativity, atomic radius, valence electrons, first ionisation energy,
    electron affinity, block and atomic volume, binned as in table S1 of Xie and Grossman 2018.
    """
    table = torch.zeros(N_ELEMENTS + 1, 93)
    for z in range(1, N_ELEMENTS + 1):
        start = 0
        for value, low, high, n in _element_bins(Element.from_Z(z)):
            if np.isfinite(value):
                bin_of = int(np.clip(n * (value - low) / (high - low), 0, n - 1))
                table[z, start + bin_of] = 1.0
            start += n
    return table


def _element_bins(element: Element) -> list[tuple[float, float, float, int]]:
    """Value (NaN = unknown), range and number of bins of each feature."""
    group = element.group
    return [
        (group, 1, 19, 18),
        (element.row, 1, 10, 9),
        (_number(element, "X"), 0.5, 4.0, 10),
        (100 * _number(element, "Atomic radius"), 25, 250, 10),
        (group if group <= 12 else group - 10, 1, 13, 12),
        (np.log(element.ionization_energies[0]), 1.3, 3.3, 10),
        (_number(element, "Electron affinity"), -3, 3.7, 10),
        ("spdf".index(element.block), 0, 4, 4),
        (np.log(_number(element, "Molar volume") / 0.6022), 1.5, 4.3, 10),
    ]


def _number(element: Element, key: str) -> float:
    value = element.data.get(key)
    return float("nan") if value is None else float(value)


def _dgl_graph(graph: AtomGraph) -> Any:
    os.environ.setdefault("DGLBACKEND", "pytorch")
    import dgl

    crystal = dgl.graph(tuple(graph.edge_index), num_nodes=len(graph.numbers))
    crystal.set_batch_num_nodes(graph.n_atoms)
    edges = torch.bincount(graph.batch[graph.edge_index[1]], minlength=graph.n_graphs)
    crystal.set_batch_num_edges(edges)
    return crystal


def _distances(graph: AtomGraph) -> Tensor:
    distance: Tensor = graph.edge_vectors().norm(dim=1)
    return distance


def _image_vectors(graph: AtomGraph) -> Tensor:
    """Lattice vectors S @ cell of the edges, (n_edges, 3), Å."""
    cell = graph.cell[graph.batch[graph.edge_index[1]]]
    images: Tensor = torch.einsum("es,esc->ec", graph.edge_shift, cell)
    return images


def _mlp(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, n_out))


def _unset(positions: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    raise RuntimeError("edges must be set before the forward pass")
