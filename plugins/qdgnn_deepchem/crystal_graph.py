"""What a DeepChem data set holds for each crystal: a graph as small NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from pymatgen.core import Structure

from qdgnn_ase import (
    AtomGraph,
    QDGNNConfig,
    from_atoms,
    ordered_atoms,
    quantum_descriptors,
    read_structures,
)
from qdgnn_ase import reduced_formula as formula_of

if TYPE_CHECKING:
    from dgl import DGLGraph

_JSON_LINE = {"species", "lattice", "frac_coords"}


@dataclass(frozen=True, slots=True, eq=False)
class CrystalGraph:
    """A graph of all pairs within a cutoff, edges sorted by destination."""

    numbers: NDArray[np.uint8]
    """(n_atoms,) atomic numbers."""
    positions: NDArray[np.float32]
    """(n_atoms, 3), Å, wrapped into the cell."""
    cell: NDArray[np.float32]
    """(3, 3), Å, rows are lattice vectors."""
    pbc: NDArray[np.bool_]
    """(3,) periodic axes."""
    edge_index: NDArray[np.int32]
    """(2, n_edges), [source, destination]."""
    edge_shift: NDArray[np.int16]
    """(n_edges, 3), image of the source."""
    node_features: NDArray[np.float32]
    """(n_atoms, n_features) quantum descriptors."""
    cutoff: float
    """Å."""
    formula: str
    """Reduced formula."""

    @classmethod
    def from_atoms(cls, atoms: Atoms, cutoff: float, quantum: Any) -> CrystalGraph:
        """Graph of a structure; see `qdgnn_ase.from_atoms` and `QDGNNConfig.quantum`."""
        graph = from_atoms(atoms, cutoff)
        features = quantum_descriptors(graph, QDGNNConfig(cutoff=cutoff, quantum=quantum))
        return cls(
            numbers=graph.numbers.numpy().astype(np.uint8),
            positions=graph.positions.numpy(),
            cell=graph.cell[0].numpy(),
            pbc=graph.pbc[0].numpy(),
            edge_index=graph.edge_index.numpy().astype(np.int32),
            edge_shift=graph.edge_shift.numpy().astype(np.int16),
            node_features=features.numpy(),
            cutoff=float(cutoff),
            formula=formula_of(atoms),
        )

    def to_atom_graph(self) -> AtomGraph:
        """The graph that `qdgnn_ase.from_atoms` made, float32."""
        return AtomGraph(
            numbers=torch.from_numpy(self.numbers.astype(np.int64)),
            positions=torch.from_numpy(self.positions),
            cell=torch.from_numpy(self.cell)[None],
            edge_index=torch.from_numpy(self.edge_index.astype(np.int64)),
            edge_shift=torch.from_numpy(self.edge_shift.astype(np.float32)),
            batch=torch.zeros(len(self.numbers), dtype=torch.long),
            pbc=torch.from_numpy(self.pbc)[None],
            n_atoms=torch.tensor([len(self.numbers)]),
        )

    def to_dgl_graph(self) -> DGLGraph:
        """DGL graph that QDGNN reads, with what DeepChem's own models read beside it.

        ``ndata['x']`` are the quantum descriptors, ``edata['edge_attr']`` (n_edges, 1) the
        distances in Å.
        """
        graph = self.to_atom_graph()
        result = graph.to_dgl()
        result.ndata["x"] = torch.from_numpy(self.node_features)
        result.edata["edge_attr"] = graph.edge_vectors().norm(dim=1, keepdim=True)
        return result


def as_atoms(structure: Any) -> Atoms:
    """One structure of any of the kinds that DeepChem and materials users have.

    Args:
        structure: ASE Atoms, pymatgen Structure, its dict, a dict with species, lattice and
            frac_coords, or the path of a file with one structure.

    Raises:
        ValueError: If it is disordered, holds dummy species, or the file not one structure.
        TypeError: If it is of another kind.
    """
    if isinstance(structure, Atoms):
        return structure
    if isinstance(structure, str | Path):
        return _single(structure)
    if isinstance(structure, Mapping):
        structure = _structure(structure)
    if not isinstance(structure, Structure):
        raise TypeError(
            "structure must be ASE Atoms, a pymatgen Structure, its dict or a path, got "
            f"{type(structure).__name__}"
        )
    return ordered_atoms(structure)


def _single(path: str | Path) -> Atoms:
    frames = read_structures(path)
    if len(frames) > 1:
        raise ValueError(
            f"{path} must hold one structure, got {len(frames)}; read it with load_qdgnn_dataset"
        )
    return frames[0]


def _structure(values: Mapping[str, Any]) -> Structure:
    if values.keys() >= _JSON_LINE:
        return Structure(values["lattice"], values["species"], values["frac_coords"])
    if missing := {"lattice", "sites"} - values.keys():
        raise ValueError(
            f"dict must be pymatgen's Structure.as_dict() or hold {sorted(_JSON_LINE)}, got keys "
            f"{sorted(values)} without {sorted(missing)}"
        )
    return Structure.from_dict(dict(values))
