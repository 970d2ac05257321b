"""QDGNNModel and DeepChem's own crystal models on equal terms: offline features, one schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from deepchem.feat import CGCNNFeaturizer
from deepchem.feat.graph_data import GraphData
from deepchem.models import CGCNNModel, TorchModel
from deepchem.models.torch_models import MEGNetModel
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase import Property, QDGNNConfig, from_atoms, quantum_descriptors
from qdgnn_deepchem.crystal_graph import CrystalGraph
from qdgnn_deepchem.model import QDGNNModel

N_GLOBAL = 2
"""Width of MEGNet's state of the structure, zeros at the start as in its paper."""
HIDDEN = 64
"""Channels of QDGNNModel here."""


class OfflineCGCNNFeaturizer(CGCNNFeaturizer):  # type: ignore[misc]  # DeepChem has no types
    """CGCNN's graphs (12 neighbours within 8 Å) with free-atom descriptors for element features.

    The original downloads its table of elements when it is made.
    """

    def __init__(self) -> None:
        self.radius, self.max_neighbors, self.step = 8.0, 12, 0.2

    def graph(self, atoms: Atoms) -> GraphData:
        """Graph of a structure."""
        structure = AseAtomsAdaptor.get_structure(atoms)
        edge_index, edge_features = self._get_edge_features_and_index(structure)
        nodes = quantum_descriptors(from_atoms(atoms, 5.0), QDGNNConfig(quantum="t0"))
        zeros = np.zeros((1, N_GLOBAL), dtype=np.float32)
        return GraphData(nodes.numpy(), edge_index, edge_features, global_features=zeros)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model of the benchmark."""

    features: Callable[[Atoms], Any]
    create: Callable[..., TorchModel]
    """Takes batch_size and learning_rate."""


def subjects(task: Property) -> dict[str, Subject]:
    """Models by name, sizes as their authors' defaults."""
    graph = OfflineCGCNNFeaturizer().graph
    example = graph(Atoms("CsCl", [[0, 0, 0], [2, 2, 2]], cell=[4.0] * 3, pbc=True))
    n_node, n_edge = example.node_features.shape[1], example.edge_features.shape[1]
    trunk = QDGNNConfig(hidden=HIDDEN)
    return {
        "QDGNNModel": Subject(
            lambda atoms: CrystalGraph.from_atoms(atoms, trunk.cutoff, "none"),
            lambda **options: QDGNNModel(tasks=[task], trunk=trunk, **options),
        ),
        "CGCNNModel": Subject(
            graph,
            lambda **options: CGCNNModel(in_node_dim=n_node, in_edge_dim=n_edge, **options),
        ),
        "MEGNetModel": Subject(
            graph,
            lambda **options: MEGNetModel(
                n_node_features=n_node,
                n_edge_features=n_edge,
                n_global_features=N_GLOBAL,
                n_blocks=3,
                is_undirected=False,  # both directions are among the edges
                **options,
            ),
        ),
    }
