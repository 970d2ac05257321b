"""How different the frames of a data set are, and which of them are the same.

The descriptor of a frame is its radial distribution for each pair of elements: distances up to a
cutoff, smeared by a Gaussian and divided by the number of atoms. It does not change when atoms of
an element change places or the crystal is moved or turned, so that such copies are found. Frames
of different composition are never copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]
CUTOFF = 6.0
"""Å."""
WIDTH = 0.05
"""Å. Standard deviation of the smearing."""
TOLERANCE = 1e-3
"""Distance of descriptors below which frames are the same."""


@dataclass(frozen=True, slots=True)
class Diversity:
    """Report on a set of frames."""

    n_frames: int
    n_compositions: int
    """Different chemical formulas."""
    n_duplicates: int
    """Frames that are the same as an earlier one."""
    mean_distance: float
    """Mean distance of the descriptors of two frames of one formula."""
    nearest_distance: float
    """Median distance to the nearest frame of the same formula."""
    effective_dimensions: float
    """Participation ratio of the principal variances of the descriptors: in how many directions
    the frames differ."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON."""
        return asdict(self)


def descriptors(frames: Sequence[Atoms]) -> Array:
    """Radial distributions, (n_frames, n_pairs * n_bins).

    Raises:
        ValueError: If there are no frames.
    """
    if not frames:
        raise ValueError("frames must hold at least one structure, got none")
    elements = sorted({int(number) for atoms in frames for number in atoms.numbers})
    pairs = list(combinations_with_replacement(elements, 2))
    return np.array([_radial_distribution(atoms, pairs) for atoms in frames])


def _radial_distribution(atoms: Atoms, pairs: Sequence[tuple[int, int]]) -> Array:
    i, j, distances = neighbor_list("ijd", atoms, CUTOFF)
    first, second = np.sort([atoms.numbers[i], atoms.numbers[j]], axis=0)
    edges = np.arange(0.0, CUTOFF + WIDTH, WIDTH)
    kernel = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    kernel /= kernel.sum()
    rows = []
    for a, b in pairs:
        chosen = distances[(first == a) & (second == b)]
        # weights fade to zero at the cutoff, so that a distance that crosses it makes no step
        weights = np.cos(0.5 * np.pi * chosen / CUTOFF) ** 2 / np.maximum(chosen, WIDTH) ** 2
        # each distance is shared by the two nearest bins, so that it makes no step there either
        place = chosen / WIDTH
        low = place.astype(int)
        part = place - low
        counts = np.bincount(low, weights * (1 - part), len(edges) + 1)
        counts += np.bincount(low + 1, weights * part, len(edges) + 1)
        rows.append(np.convolve(counts, kernel, mode="same") / len(atoms))
    return np.concatenate(rows)


def deduplicate(frames: Sequence[Atoms], tolerance: float = TOLERANCE) -> list[int]:
    """Indices of the frames that differ from every earlier one that was kept.

    Args:
        frames: Structures.
        tolerance: Distance of the descriptors up to which two are the same.

    Raises:
        ValueError: If the tolerance is negative.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")
    vectors = descriptors(frames)
    kept: dict[str, list[int]] = {}
    for index, atoms in enumerate(frames):
        same = kept.setdefault(str(atoms.symbols.formula.format("hill")), [])
        if not same or cdist(vectors[[index]], vectors[same]).min() > tolerance:
            same.append(index)
    return sorted(index for indices in kept.values() for index in indices)


def measure_diversity(frames: Sequence[Atoms], tolerance: float = TOLERANCE) -> Diversity:
    """Report on how different the frames are; NaN where no two share a formula."""
    vectors = descriptors(frames)
    formulas = np.array([str(atoms.symbols.formula.format("hill")) for atoms in frames])
    distances, nearest = [], []
    for formula in np.unique(formulas):
        mine = vectors[formulas == formula]
        if len(mine) > 1:
            table = cdist(mine, mine)
            distances.append(table[np.triu_indices(len(mine), 1)])
            nearest.append(np.where(np.eye(len(mine), dtype=bool), np.inf, table).min(axis=1))
    centred = vectors - vectors.mean(axis=0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    total = float((variances**2).sum())
    return Diversity(
        n_frames=len(frames),
        n_compositions=len(np.unique(formulas)),
        n_duplicates=len(frames) - len(deduplicate(frames, tolerance)),
        mean_distance=float(np.concatenate(distances).mean()) if distances else float("nan"),
        nearest_distance=float(np.median(np.concatenate(nearest))) if nearest else float("nan"),
        effective_dimensions=float(variances.sum() ** 2 / total) if total else 0.0,
    )
