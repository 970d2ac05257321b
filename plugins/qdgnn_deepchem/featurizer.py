"""Crystals -> graphs, offline; what cannot be featurized is an error, not an empty array."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from deepchem.feat import MaterialStructureFeaturizer
from pymatgen.core import Structure

from qdgnn_ase import QDGNNConfig
from qdgnn_deepchem.crystal_graph import CrystalGraph, as_atoms

log = logging.getLogger(__name__)


class QDGNNFeaturizer(MaterialStructureFeaturizer):  # type: ignore[misc]  # DeepChem has no types
    """Graphs of all pairs within a cutoff, with quantum descriptors on the atoms.

    `QDGNNModel` computes its own descriptors from elements and positions; those of the graph serve
    DeepChem's other models, through ``to_dgl_graph``.

    Args:
        cutoff: Å; that of the model's trunk.
        quantum: Descriptors on the atoms: "t0" (free atoms), "t0_moments" (and the moments of the
            tight-binding Hamiltonian), "permuted" (control) or "none".

    Raises:
        ValueError: If an argument is none of these.
    """

    def __init__(
        self,
        cutoff: float = 5.0,
        quantum: Literal["t0", "t0_moments", "permuted", "none"] = "t0",
    ) -> None:
        QDGNNConfig(cutoff=cutoff, quantum=quantum)
        self.cutoff = cutoff
        self.quantum = quantum

    def featurize(
        self, datapoints: Iterable[Any] | Any = None, log_every_n: int = 1000, **kwargs: Any
    ) -> Any:
        """Graphs of structures, in order: an object array of `CrystalGraph`, (n_structures,).

        Args:
            datapoints: ASE Atoms, pymatgen Structures, their dicts or paths; one or a sequence.
            log_every_n: Structures between two lines of the log.
            **kwargs: Refused: DeepChem's older names of ``datapoints``.

        Raises:
            ValueError: If a structure cannot be featurized; the message tells which and why.
                DeepChem's base class logs that and puts an empty array in its place.
        """
        if kwargs:
            raise TypeError(f"featurize takes datapoints and log_every_n, got {sorted(kwargs)}")
        if isinstance(datapoints, Atoms | Structure | Mapping | str | Path):
            datapoints = [datapoints]
        structures = list(datapoints)
        graphs = np.empty(len(structures), dtype=object)
        for index, structure in enumerate(structures):
            if index % log_every_n == 0:
                log.info("featurizing structure %d of %d", index, len(structures))
            try:
                graphs[index] = self.graph(structure)
            except (ValueError, TypeError, FileNotFoundError) as error:
                raise ValueError(f"structure {index}: {error}") from error
        return graphs

    def graph(self, structure: Any) -> CrystalGraph:
        """Graph of one structure; see `featurize`."""
        return CrystalGraph.from_atoms(as_atoms(structure), self.cutoff, self.quantum)

    def _featurize(self, datapoint: Any, **kwargs: Any) -> CrystalGraph:
        return self.graph(datapoint)
