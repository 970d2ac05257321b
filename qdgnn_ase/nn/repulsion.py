"""Short-range repulsion below the shortest distances of the training data.

Ziegler-Biersack-Littmark screened nuclear repulsion (The Stopping and Range of Ions in Solids,
1985), multiplied by the envelope with r_c = the shortest distance of that element pair in the
training data. It is exactly 0 wherever training data exists, so it changes no fitted value, and
rises steeply where the network extrapolates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase.units import Bohr, Hartree
from torch import Tensor

from qdgnn_ase.graph import AtomGraph, envelope
from qdgnn_ase.quantum.atomic import N_ELEMENTS, atomic_table

_COEFFICIENTS = torch.tensor((0.18175, 0.50986, 0.28022, 0.02817), dtype=torch.float64)
_EXPONENTS = torch.tensor((3.19980, 0.94229, 0.40290, 0.20162), dtype=torch.float64)
_GUESS = 0.999
"""Makes a guess differ from every length that was seen: `seen_pairs` tells them apart by it."""


def zbl_energy(distance: Tensor, z_i: Tensor, z_j: Tensor) -> Tensor:
    """Screened repulsion in eV of pairs at ``distance`` (Å); all (n_pairs,)."""
    z_i, z_j = z_i.to(distance.dtype), z_j.to(distance.dtype)
    length = 0.88534 * Bohr / (z_i**0.23 + z_j**0.23)
    terms = torch.exp(-torch.outer(distance / length, _EXPONENTS.to(distance)))
    energy: Tensor = Hartree * Bohr * z_i * z_j / distance * (terms @ _COEFFICIENTS.to(distance))
    return energy


def repulsion_energy(distance: Tensor, z_i: Tensor, z_j: Tensor, shortest: Tensor) -> Tensor:
    """ZBL energy in eV of each directed pair's destination (half of the pair's), (n_pairs,).

    Args:
        distance: (n_pairs,), Å.
        z_i: (n_pairs,) int64, atomic numbers of the destinations.
        z_j: (n_pairs,) int64, atomic numbers of the sources.
        shortest: (n_pairs,), Å, shortest distance of that element pair in the training data.
    """
    return 0.5 * zbl_energy(distance, z_i, z_j) * envelope(distance, shortest)


def shortest_distances(graphs: Sequence[AtomGraph]) -> Tensor:
    """Shortest distance of every element pair in Å, (95, 95), symmetric.

    Lengths in units of the sum of covalent radii: a pair that the graphs hold only at long range
    gets the median of the pairs seen, a pair that they do not hold 0.999 of the 10th percentile.
    """
    n = N_ELEMENTS + 1
    flat = torch.full((n * n,), torch.inf)
    for graph in graphs:
        source, destination = graph.numbers[graph.edge_index]
        distance = graph.edge_vectors().norm(dim=1).float()
        flat = flat.scatter_reduce(0, source * n + destination, distance, "amin")
    seen = flat.view(n, n)
    sums = _radius_sums()
    ratios = (seen / sums)[torch.isfinite(seen)]
    low, middle = torch.quantile(ratios, torch.tensor([0.1, 0.5])) if len(ratios) else (0.7, 0.7)
    return torch.where(
        torch.isfinite(seen), torch.minimum(seen, middle * sums), _GUESS * low * sums
    )


def seen_pairs(shortest: Tensor, counts: Tensor) -> Tensor:
    """Which entries of a table of `shortest_distances` come from data, (95, 95) bool.

    All guesses of a table have one ratio to the sum of covalent radii; the pairs of an element
    that the data do not hold show it. All pairs count as seen where every element is held.

    Args:
        shortest: (95, 95), Å.
        counts: (95,), atoms of each element in the data.
    """
    ratios = shortest / _radius_sums()
    absent = (counts == 0).nonzero().flatten()
    absent = absent[absent > 0]
    if not len(absent):
        return torch.ones_like(shortest, dtype=torch.bool)
    guess = ratios[absent[0], absent[0]]
    return (ratios - guess).abs() > 1e-5 * guess


def join_shortest(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Shortest distances in Å of two data sets, (95, 95).

    The smaller value of a pair that both hold, the value of the one that holds it, else the first
    one's guess.

    Args:
        first: Table and counts as in `seen_pairs`.
        second: The same of the other data.
    """
    shortest, other = first[0], second[0]
    in_first, in_second = seen_pairs(*first), seen_pairs(*second)
    joined = torch.where(in_second, other, shortest)
    return torch.where(in_first & in_second, torch.minimum(shortest, other), joined)


def _radius_sums() -> Tensor:
    """Sums of covalent radii in Å, (95, 95); row and column 0 hold one radius."""
    radii = torch.zeros(N_ELEMENTS + 1)
    radii[1:] = torch.as_tensor(atomic_table()["covalent_radius_angstrom"].copy())
    return radii[:, None] + radii[None, :]
