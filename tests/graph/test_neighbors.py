"""Neighbour lists against ASE's; refused inputs; size of large graphs."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read
from ase.neighborlist import neighbor_list
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from qdgnn_ase.graph import AtomGraph, from_atoms
from qdgnn_ase.graph.neighbors import MIN_DISTANCE

Array = NDArray[np.float64]
Change = Callable[[Atoms], None]

DISORDERED_CIF = """data_x
_cell_length_a 3.8
_cell_length_b 3.8
_cell_length_c 3.8
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cu1 Cu 0 0 0 {copper}
{silver}
"""


def edge_points(i: Array, j: Array, vector: Array) -> Array:
    """Edges as points (100 i, 100 j, vector): equal edges coincide, others are far apart."""
    return np.column_stack([100.0 * i, 100.0 * j, vector])


def assert_same_edges(graph: AtomGraph, atoms: Atoms, cutoff: float) -> None:
    source, destination = graph.edge_index.numpy()
    ours = edge_points(destination, source, graph.edge_vectors().numpy())
    theirs = edge_points(*neighbor_list("ijD", atoms, cutoff))
    assert len(ours) == len(theirs)
    if len(ours):
        distance, match = cKDTree(theirs).query(ours)
        assert distance.max() < 1e-7
        assert len(np.unique(match)) == len(theirs)


@pytest.mark.parametrize("cutoff", [1.7, 3.0, 6.0])
def test_edges_equal_ase(structure: Atoms, cutoff: float) -> None:
    graph = from_atoms(structure, cutoff, torch.float64)
    assert_same_edges(graph, structure, cutoff)


def test_edges_are_sorted_by_destination(structure: Atoms) -> None:
    destination = from_atoms(structure, 5.0).edge_index[1]
    assert bool((destination.diff() >= 0).all())


def test_every_edge_has_its_reverse(structure: Atoms) -> None:
    graph = from_atoms(structure, 4.1)  # no pair is on the cutoff
    rows = torch.cat([graph.edge_index.T, graph.edge_shift.long()], dim=1)
    reverse = torch.cat([graph.edge_index.flip(0).T, -graph.edge_shift.long()], dim=1)
    assert sorted(rows.tolist()) == sorted(reverse.tolist())


def test_atoms_are_not_mutated(structure: Atoms) -> None:
    before = structure.copy()
    graph = from_atoms(structure, 4.0, torch.float64)
    graph.positions.add_(1.0)  # nor shares the graph memory with the atoms
    graph.cell.add_(1.0)
    graph.numbers.add_(1)
    assert structure == before
    assert (structure.cell.array == before.cell.array).all()


def test_far_structure_keeps_its_precision_in_float32(structures: dict[str, Atoms]) -> None:
    near, far = (from_atoms(structures[name], 4.0) for name in ("perovskite", "far"))
    torch.testing.assert_close(
        near.edge_vectors().norm(dim=1).sort().values,
        far.edge_vectors().norm(dim=1).sort().values,
        atol=2e-6,
        rtol=0,
    )


def test_fragments_far_apart_need_no_memory(structures: dict[str, Atoms]) -> None:
    """The search's memory grows with the bounding box unless gaps are closed."""
    for name in ("water", "slab_two_vectors", "wire_rank_1"):
        one = structures[name]
        other, single = one.copy(), from_atoms(one, 4.0).n_edges
        axes = ~np.asarray(one.pbc)
        other.positions += np.where(axes, [1e6, -3e5, 2e6], 0.0)
        assert from_atoms(one + other, 4.0, torch.float64).n_edges == 2 * single


def test_float32_refuses_edges_that_it_cannot_resolve(structures: dict[str, Atoms]) -> None:
    pair = structures["water"] + structures["far_molecule"]
    with pytest.raises(ValueError, match=r"must stay below .* Å in torch.float32, got .*float64"):
        from_atoms(pair, 4.0)


@st.composite
def periodic_structures(draw: st.DrawFn) -> Atoms:
    """Cells of any skewness and handedness, any periodic axes, atoms anywhere."""
    length, skew = st.floats(1.5, 7.0), st.floats(-9.0, 9.0)
    cell = np.diag([draw(length) * draw(st.sampled_from([1, -1])) for _ in range(3)])
    cell[np.tril_indices(3, -1)] = [draw(skew) for _ in range(3)]
    cell = cell[list(draw(st.permutations(range(3))))]
    turn, _ = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 99))).normal(size=(3, 3)))
    n = draw(st.integers(1, 4))
    scaled = [[draw(st.floats(-2.0, 3.0)) for _ in range(3)] for _ in range(n)]
    pbc = [draw(st.booleans()) for _ in range(3)]
    return Atoms(["Fe"] * n, scaled_positions=scaled, cell=cell @ turn, pbc=pbc)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(atoms=periodic_structures(), cutoff=st.floats(1.0, 6.0))
def test_random_cells_equal_ase(atoms: Atoms, cutoff: float) -> None:
    distance = neighbor_list("d", atoms, cutoff + 1e-6)
    assume(not (np.abs(distance - cutoff) < 1e-6).any())  # on the edge both answers are right
    assume(not (np.abs(distance - MIN_DISTANCE) < 1e-6).any())
    if len(distance) and distance.min() < MIN_DISTANCE:
        with pytest.raises(ValueError, match="apart, got"):
            from_atoms(atoms, cutoff)
    else:
        assert_same_edges(from_atoms(atoms, cutoff, torch.float64), atoms, cutoff)


@pytest.mark.parametrize("repeat", [4, 8, 20])
def test_large_graphs_grow_linearly(repeat: int) -> None:
    """500 to 32,000 atoms: twelve neighbours each, every tensor linear in the atoms."""
    atoms = bulk("Cu", cubic=True).repeat(repeat)
    graph = from_atoms(atoms, 3.0)
    n = 4 * repeat**3
    assert graph.n_edges == 12 * n
    assert graph.edge_index.shape == (2, 12 * n)
    assert graph.edge_shift.shape == (12 * n, 3)
    assert graph.positions.shape == (n, 3)
    assert bool((torch.bincount(graph.edge_index[1], minlength=n) == 12).all())


def no_atoms(atoms: Atoms) -> None:
    del atoms[:]


def nan_position(atoms: Atoms) -> None:
    atoms.positions[1, 2] = np.nan


def inf_cell(atoms: Atoms) -> None:
    atoms.cell[0, 0] = np.inf


def lost_atom(atoms: Atoms) -> None:
    atoms.positions[3, 1] = 2e9


def dummy_element(atoms: Atoms) -> None:
    atoms.numbers[0] = 0


def unknown_element(atoms: Atoms) -> None:
    atoms.numbers[0] = 119


def no_third_vector(atoms: Atoms) -> None:
    atoms.cell[2] = 0.0


def flat_cell(atoms: Atoms) -> None:
    atoms.cell[2] = atoms.cell[0] + atoms.cell[1]


def flat_slab(atoms: Atoms) -> None:
    atoms.cell[1] = 2.0 * atoms.cell[0]
    atoms.pbc = (True, True, False)


def dense_cell(atoms: Atoms) -> None:
    atoms.set_cell(atoms.cell.array * 0.04, scale_atoms=True)


def coincident(atoms: Atoms) -> None:
    atoms.positions[1] = atoms.positions[0]


def coincident_with_image(atoms: Atoms) -> None:
    atoms.positions[1] = atoms.positions[0] + atoms.cell[0] - 2 * atoms.cell[2]


def too_close(atoms: Atoms) -> None:
    atoms.positions[1] = atoms.positions[0] + [0.0, 0.29, 0.0]


def half_occupied(atoms: Atoms) -> None:
    atoms.info["occupancy"] = {"0": {"Na": 0.5}}


REFUSED: list[tuple[Change, str]] = [
    (no_atoms, "at least one atom, got an empty"),
    (nan_position, r"positions must be finite, got NaN or inf for atoms \[1\]"),
    (inf_cell, "cell must be finite, got"),
    (lost_atom, r"must lie within 1e\+09 Å of the origin, got 2e\+09 Å"),
    (dummy_element, r"must lie in 1..118, got \[0\]; replace dummy atoms"),
    (unknown_element, r"must lie in 1..118, got \[119\]"),
    (no_third_vector, r"cell vector 2 must be longer than 0.3 Å .* got 0 Å; set atoms.cell"),
    (flat_cell, "cell must not be singular .* got volume"),
    (flat_slab, "cell must not be singular .* got volume"),
    (dense_cell, "cell"),
    (coincident, "at least 0.3 Å apart, got 0 Å between atoms . and .; look for duplicate sites"),
    (coincident_with_image, "at least 0.3 Å apart, got"),
    (too_close, "at least 0.3 Å apart, got 0.29 Å between atoms"),
    (half_occupied, r"fully occupied by one element, got occupancy \{'Na': 0.5\}"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=lambda x: getattr(x, "__name__", ""))
def test_refused(change: Change, message: str) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    change(atoms)
    with pytest.raises(ValueError, match=message):
        from_atoms(atoms, 5.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_refused_cutoff(cutoff: float) -> None:
    with pytest.raises(ValueError, match="cutoff must be finite and larger than 0 Å, got"):
        from_atoms(molecule("H2O"), cutoff)


def read_cif(copper: float, silver: str = "") -> Atoms:
    text = DISORDERED_CIF.format(copper=copper, silver=silver)
    return read(io.BytesIO(text.encode()), format="cif")


def test_disordered_cif_read_with_ase_is_refused() -> None:
    for atoms in (read_cif(0.5, "Ag1 Ag 0 0 0 0.5"), read_cif(0.9)):
        with pytest.raises(ValueError, match="make an ordered structure first"):
            from_atoms(atoms, 5.0)
    assert from_atoms(read_cif(1.0), 5.0).n_edges == 6


def test_foreign_occupancy_entry_is_ignored() -> None:
    atoms = molecule("H2O")
    atoms.info["occupancy"] = 0.5
    assert from_atoms(atoms, 5.0).n_edges == 6
