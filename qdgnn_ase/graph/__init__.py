"""Floor 1: structures as graphs."""

from __future__ import annotations

from qdgnn_ase.graph.atom_graph import AtomGraph, collate
from qdgnn_ase.graph.envelope import envelope
from qdgnn_ase.graph.neighbors import MIN_DISTANCE, from_atoms
from qdgnn_ase.graph.sites import Basis, amounts, basis, site_graph

__all__ = [
    "MIN_DISTANCE",
    "AtomGraph",
    "Basis",
    "amounts",
    "basis",
    "collate",
    "envelope",
    "from_atoms",
    "site_graph",
]
