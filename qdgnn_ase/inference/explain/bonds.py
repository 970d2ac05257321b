"""Bonds of one structure: the pairs of atoms that a model lets speak to each other.

A bond is a pair within the model's cutoff, periodic images included. It is two directed edges of
the graph, i <- j and j <- i, which share one strength.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from qdgnn_ase.graph import AtomGraph

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Bonds:
    """All bonds of one structure."""

    atoms: Integers
    """(n_bonds, 2), atoms i and j; equal for an atom and its own image."""
    vectors: Array
    """(n_bonds, 3), Å, from i to the image of j."""
    lengths: Array
    """(n_bonds,), Å."""
    pairs: tuple[str, ...]
    """(n_bonds,), the two elements in alphabetical order, e.g. "Cl-Na"."""
    of_edge: Integers
    """(n_edges,), bond of each directed edge of the graph."""

    def __len__(self) -> int:
        return len(self.lengths)

    def halves(self, scores: Array, n_atoms: int) -> Array:
        """Scores (n_bonds,) shared equally by the two atoms of each bond, (n_atoms,)."""
        totals = np.zeros(n_atoms)
        np.add.at(totals, self.atoms, scores[:, None] / 2)
        return totals


def bonds_of(graph: AtomGraph) -> Bonds:
    """Bonds of a graph.

    Raises:
        ValueError: If the graph holds more than one structure.
    """
    if graph.n_graphs != 1:
        raise ValueError(f"bonds_of takes one structure, got a batch of {graph.n_graphs}")
    source, destination = graph.edge_index.cpu().numpy()
    shift = graph.edge_shift.cpu().numpy().round().astype(np.int64)
    there = np.column_stack([destination, source, shift])
    back = np.column_stack([source, destination, -shift])
    rows, first, of_edge = np.unique(
        np.where(_is_later(there, back)[:, None], back, there),
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    turned = np.where(_is_later(there, back)[first], -1.0, 1.0)[:, None]
    vectors = turned * graph.edge_vectors().detach().double().cpu().numpy()[first]
    symbols = [chemical_symbols[int(z)] for z in graph.numbers]
    return Bonds(
        atoms=rows[:, :2],
        vectors=vectors,
        lengths=np.linalg.norm(vectors, axis=1),
        pairs=tuple("-".join(sorted((symbols[i], symbols[j]))) for i, j in rows[:, :2]),
        of_edge=of_edge.reshape(-1),
    )


def _is_later(rows: Integers, others: Integers) -> NDArray[np.bool_]:
    """Whether each row comes after the other one in lexicographic order, (n,)."""
    difference = rows - others
    first = np.argmax(difference != 0, axis=1)[:, None]
    later: NDArray[np.bool_] = np.take_along_axis(difference, first, axis=1)[:, 0] > 0
    return later
