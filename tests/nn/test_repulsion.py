"""Repulsion below the training distances: ZBL's values, and exactly nothing elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers

from qdgnn_ase.graph import from_atoms
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.repulsion import (
    join_shortest,
    repulsion_energy,
    seen_pairs,
    shortest_distances,
    zbl_energy,
)


def pair(symbols: str) -> tuple[torch.Tensor, torch.Tensor]:
    z = Atoms(symbols).numbers
    return torch.tensor([z[0]]), torch.tensor([z[1]])


def lammps_zbl(z_i: int, z_j: int, r: float) -> float:
    """``pair_style zbl`` without its switching function, with the constants of its manual."""
    x = r * (z_i**0.23 + z_j**0.23) / 0.46850
    terms = [(0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162)]
    return 14.399645 * z_i * z_j / r * sum(c * math.exp(-d * x) for c, d in terms)


@pytest.mark.parametrize("symbols", ["HH", "SiSi", "OW", "HeU"])
@pytest.mark.parametrize("distance", [0.05, 0.3, 1.0, 2.0])
def test_zbl_reference(symbols: str, distance: float) -> None:
    z_i, z_j = pair(symbols)
    got = zbl_energy(torch.tensor([distance], dtype=torch.float64), z_i, z_j).item()
    assert got == pytest.approx(lammps_zbl(int(z_i), int(z_j), distance), rel=1e-4)


def test_zbl_is_bare_coulomb_at_contact() -> None:
    z_i, z_j = pair("SiC")
    got = zbl_energy(torch.tensor([1e-9], dtype=torch.float64), z_i, z_j).item() * 1e-9
    assert got == pytest.approx(14.399645 * 14 * 6, rel=1e-4)


def test_exactly_zero_from_the_shortest_distance_on() -> None:
    distance = torch.tensor([1.2, 1.2 + 1e-6, 3.0, 50.0], requires_grad=True)
    z, shortest = torch.full((4,), 26), torch.full((4,), 1.2)
    energy = repulsion_energy(distance, z, z, shortest)
    (slope,) = torch.autograd.grad(energy.sum(), distance)
    assert energy.tolist() == [0.0] * 4
    assert slope.tolist() == [0.0] * 4


def test_repels_below_the_shortest_distance() -> None:
    distance = torch.linspace(0.3, 1.19, 90, dtype=torch.float64)
    z = torch.full((90,), 8)
    energy = repulsion_energy(distance, z, z, torch.full((90,), 1.2, dtype=torch.float64))
    assert bool((energy > 0).all())
    assert bool((energy.diff() < 0).all())


def test_pair_energy_in_the_model(model64: QDGNN) -> None:
    """Both directed edges together are the pair's energy, and nothing beyond the range."""
    graph = from_atoms(Atoms("CSi", [[0, 0, 0], [0, 0, 0.9]]), 4.5, torch.float64)
    with_range = model64(graph)["energy"].item()
    model64.shortest.fill_(0.3)
    without = model64(graph)["energy"].item()
    z_i, z_j = pair("CSi")
    d, shortest = (torch.tensor([x], dtype=torch.float64) for x in (0.9, 1.3))
    expected = 2.0 * repulsion_energy(d, z_i, z_j, shortest).item()
    assert with_range - without == pytest.approx(expected, rel=1e-6)


def dimers(*pairs: tuple[str, float]) -> torch.Tensor:
    return shortest_distances(
        [from_atoms(Atoms(symbols, [[0, 0, 0], [0, 0, d]]), 5.0) for symbols, d in pairs]
    )


def at(matrix: torch.Tensor, a: str, b: str) -> float:
    return float(matrix[atomic_numbers[a], atomic_numbers[b]])


def test_shortest_distances() -> None:
    matrix = dimers(("CO", 1.3), ("CO", 1.1), ("NaCl", 2.4), ("SiSi", 2.3), ("FeFe", 4.9))
    torch.testing.assert_close(matrix, matrix.T)
    assert at(matrix, "O", "C") == pytest.approx(1.1)  # the shorter of two
    assert at(matrix, "Fe", "Fe") < 2.6  # seen far away only: typical, not 4.9
    assert 0.0 < at(matrix, "Ti", "Ti") < 2.8  # never seen
    assert bool((matrix[1:, 1:] > 0).all())


def test_nothing_in_the_training_data_is_repelled() -> None:
    pairs = [("CO", 1.3), ("CO", 1.1), ("NaCl", 2.4), ("SiSi", 2.3), ("FeFe", 4.9)]
    matrix = dimers(*pairs)
    for symbols, distance in pairs:
        a, b = (atom.symbol for atom in Atoms(symbols))
        assert at(matrix, a, b) <= distance + 1e-6


def test_shortest_distances_without_edges() -> None:
    matrix = shortest_distances([from_atoms(Atoms("Ar"), 5.0)])
    assert at(matrix, "C", "C") == pytest.approx(0.7 * 1.5, rel=0.05)


def table(*pairs: tuple[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Shortest distances of dimers and the counts that go with them."""
    counts = torch.zeros(95, dtype=torch.int64)
    for symbols, _ in pairs:
        for z in Atoms(symbols).numbers:
            counts[z] += 1
    return dimers(*pairs), counts


FIRST = (("CO", 1.1), ("NaCl", 2.4), ("SiSi", 2.3), ("FeFe", 2.2), ("OO", 1.2))
SECOND = (("CO", 1.3), ("NaCl", 2.2), ("FeO", 1.9), ("SiO", 1.6))


@pytest.mark.parametrize("pairs", [FIRST, SECOND, (("CuCu", 2.5),)])
def test_what_was_seen_can_be_told_from_the_table(pairs: tuple[tuple[str, float], ...]) -> None:
    seen = seen_pairs(*table(*pairs))
    expected = torch.zeros_like(seen)
    for symbols, _ in pairs:
        i, j = Atoms(symbols).numbers
        expected[i, j] = expected[j, i] = True
    assert bool((seen == expected).all())


def test_without_edges_nothing_was_seen() -> None:
    counts = torch.zeros(95, dtype=torch.int64)
    counts[18] = 1
    assert not bool(seen_pairs(shortest_distances([from_atoms(Atoms("Ar"), 5.0)]), counts).any())


def test_joined_distances() -> None:
    first, second = table(*FIRST), table(*SECOND)
    joined = join_shortest(first, second)
    torch.testing.assert_close(joined, joined.T)
    assert at(joined, "C", "O") == pytest.approx(at(first[0], "C", "O"))  # both: the shorter
    assert at(joined, "Na", "Cl") == pytest.approx(at(second[0], "Na", "Cl"))
    assert at(joined, "Si", "Si") == at(first[0], "Si", "Si")  # one: its value
    assert at(joined, "Fe", "O") == at(second[0], "Fe", "O")
    assert at(joined, "Ti", "U") == at(first[0], "Ti", "U")  # neither: the first's guess


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_a_guess_never_hides_a_distance_that_was_seen(order: tuple[Any, Any]) -> None:
    """The fault that this had: the smaller of two tables, whether seen or guessed."""
    first, second = (table(*pairs) for pairs in order)
    joined, naive = join_shortest(first, second), torch.minimum(first[0], second[0])
    seen = seen_pairs(*first) | seen_pairs(*second)
    assert bool((joined >= naive)[seen].all())
    assert bool((joined > naive)[seen].any())  # negative control


def test_a_third_stage_still_tells_what_was_seen() -> None:
    first, second = table(*FIRST), table(*SECOND)
    joined = join_shortest(first, second)
    seen = seen_pairs(joined, torch.maximum(first[1], second[1]))
    assert bool((seen == (seen_pairs(*first) | seen_pairs(*second))).all())


def test_all_elements_held_counts_as_all_seen() -> None:
    shortest = table(*FIRST)[0]
    assert bool(seen_pairs(shortest, torch.ones(95, dtype=torch.int64)).all())
