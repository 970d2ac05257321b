"""What a potential has seen: elements and shortest distances of its training data."""

from __future__ import annotations

import warnings

import torch
from ase import Atoms
from ase.data import chemical_symbols

from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.quantum.atomic import N_ELEMENTS


class ExtrapolationWarning(UserWarning):
    """The structure lies outside the training data; the numbers are a guess."""


class Domain:
    """Checks structures against the training data of a model; each kind warns once.

    Args:
        model: Its ``counts`` and ``shortest`` buffers tell what training held.
    """

    def __init__(self, model: QDGNN) -> None:
        self._seen = {int(z) for z in torch.nonzero(model.counts).flatten()}
        self._shortest = model.shortest.detach().cpu()
        self._warned: set[str] = set()

    def check_elements(self, atoms: Atoms) -> None:
        """Warn of elements that training did not hold.

        Raises:
            ValueError: If an element lies beyond the descriptor table.
        """
        numbers = {int(z) for z in atoms.numbers}
        beyond = sorted(z for z in numbers if z > N_ELEMENTS)
        if beyond:
            raise ValueError(f"atomic numbers must lie in 1..{N_ELEMENTS}, got {beyond}")
        unseen = [chemical_symbols[z] for z in sorted(numbers - self._seen) if z > 0]
        if unseen:
            self._warn("elements", f"elements not in the training data: {', '.join(unseen)}")

    def check_distances(self, graph: AtomGraph) -> None:
        """Warn of pairs closer than the shortest distance of their elements in training."""
        with torch.no_grad():
            distance = graph.edge_vectors().norm(dim=1)
        source, destination = (graph.numbers.index_select(0, end) for end in graph.edge_index)
        limit = self._shortest.view(-1).index_select(0, source * len(self._shortest) + destination)
        excess = distance.float() - limit
        if len(excess) and float(excess.min()) < -1e-4:
            worst = int(excess.argmin())
            pair = "-".join(
                chemical_symbols[int(graph.numbers[k])] for k in graph.edge_index[:, worst]
            )
            self._warn(
                "distances",
                f"{pair} at {float(distance[worst]):.2f} Å is below the shortest distance of the "
                f"training data (typical one if it has no such pair), {float(limit[worst]):.2f} Å",
            )

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, ExtrapolationWarning, stacklevel=6)
