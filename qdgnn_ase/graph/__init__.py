"""Floor 1: structures as graphs."""

from __future__ import annotations

from qdgnn_ase.graph.atom_graph import AtomGraph, collate
from qdgnn_ase.graph.neighbors import from_atoms

__all__ = ["AtomGraph", "collate", "from_atoms"]
