"""Labelled graphs and batches of them by edge count."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from ase import Atoms
from torch import Tensor

from qdgnn_ase.data.io import labels
from qdgnn_ase.graph import AtomGraph, collate, from_atoms

log = logging.getLogger(__name__)

Targets = dict[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One structure with its labels."""

    graph: AtomGraph
    targets: Targets
    """energy (1,) eV, forces (n_atoms, 3) eV/Å, stress (1, 3, 3) eV/Å^3; NaN = missing."""


def make_samples(frames: Sequence[Atoms], cutoff: float) -> list[Sample]:
    """Graphs and labels of frames, in order.

    Raises:
        ValueError: If a frame's structure or labels are not valid; the message names its index.
    """
    samples = []
    for index, atoms in enumerate(frames):
        try:
            values = labels(atoms)
            graph = from_atoms(atoms, cutoff)
        except ValueError as error:
            raise ValueError(f"frame {index} ({atoms.get_chemical_formula()}): {error}") from error
        targets = {
            "energy": torch.as_tensor(values["energy"]).reshape(1),
            "forces": torch.as_tensor(values["forces"], dtype=torch.float32),
            "stress": torch.as_tensor(values["stress"], dtype=torch.float32)[None],
        }
        samples.append(Sample(graph, targets))
    return samples


def join(samples: Sequence[Sample]) -> Sample:
    """One batch: a collated graph and the concatenated labels."""
    names = samples[0].targets
    targets = {name: torch.cat([sample.targets[name] for sample in samples]) for name in names}
    return Sample(collate([sample.graph for sample in samples]), targets)


def batch_indices(
    n_edges: Sequence[int], max_edges: int, order: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Lists of indices whose edges add up to at most ``max_edges`` (one structure at least)."""
    batch: list[int] = []
    total = 0
    for index in order if order is not None else range(len(n_edges)):
        if batch and total + n_edges[index] > max_edges:
            yield batch
            batch, total = [], 0
        batch.append(index)
        total += n_edges[index]
    if batch:
        yield batch
