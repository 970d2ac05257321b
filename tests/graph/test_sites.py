"""Records of occupancies and the graphs of disordered structures and compositions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii

from qdgnn_ase.graph import amounts, basis, collate, from_atoms, site_graph
from qdgnn_ase.graph.sites import TOO_CLOSE, site_occupancies


def test_basis(partial: dict[str, Atoms]) -> None:
    assert {name: basis(atoms) for name, atoms in partial.items()} == {
        "ordered": "structure",
        "shared": "disordered",
        "vacant": "disordered",
        "split": "disordered",
        "composition": "composition",
    }


def test_amounts(partial: dict[str, Atoms]) -> None:
    counts = amounts(partial["vacant"].repeat((2, 1, 1)))
    assert {int(z): round(float(counts[z]), 12) for z in np.flatnonzero(counts)} == {
        11: 1.2,
        17: 1.0,
        35: 0.4,
    }
    fractions = amounts(partial["composition"])
    assert fractions[[3, 15, 16]] == pytest.approx([3 / 8, 1 / 8, 4 / 8])
    np.testing.assert_array_equal(amounts(bulk("NaCl", "rocksalt", a=5.6))[[11, 17]], 1.0)


def test_ordered_structure_has_its_graph(partial: dict[str, Atoms]) -> None:
    graph, wanted = site_graph(partial["ordered"], 4.5), from_atoms(partial["ordered"], 4.5)
    assert graph.occupancies is None
    for name, value in wanted.tensors().items():
        assert torch.equal(graph.tensors()[name], value), name


def test_full_occupancies_are_an_ordered_structure(partial: dict[str, Atoms]) -> None:
    atoms = partial["ordered"].copy()
    atoms.info["occupancy"] = {"0": {"Na": 1.0}, "1": {"Cl": 1.0}}
    atoms.set_array("spacegroup_kinds", np.arange(2))
    assert basis(atoms) == "structure"
    assert site_graph(atoms, 4.5).occupancies is None


def test_a_site_is_one_node(partial: dict[str, Atoms]) -> None:
    graph = site_graph(partial["shared"], 4.5)
    assert graph.n_atoms.tolist() == [2]
    assert graph.n_edges == from_atoms(partial["ordered"], 4.5).n_edges
    assert graph.occupancies is not None
    assert graph.occupancies[0, [11, 19, 37]].tolist() == pytest.approx([0.5, 0.3, 0.2])
    assert graph.occupancies.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_split_sites_are_no_neighbours(partial: dict[str, Atoms]) -> None:
    """Both are neighbours of the rest; filled more than once between them, they are neighbours."""
    atoms = partial["split"]
    pairs = set(zip(*site_graph(atoms, 3.6).edge_index.tolist(), strict=True))
    assert {(0, 1), (0, 2), (1, 0), (2, 0)} <= pairs
    assert not {(1, 2), (2, 1)} & pairs
    fuller = atoms.copy()
    fuller.info["occupancy"] = atoms.info["occupancy"] | {"2": {"Li": 0.9}}
    assert "0.9" in str(fuller.info), "kind 2 is one of the lithium sites"
    fuller.set_distance(1, 2, 0.9, fix=0)
    assert (1, 2) in set(zip(*site_graph(fuller, 3.6).edge_index.tolist(), strict=True))
    atoms.set_distance(1, 2, 0.1, fix=0)
    assert site_graph(atoms, 3.6).n_edges > 0, "alternatives may be closer than atoms"
    far = atoms.copy()
    far.set_distance(1, 2, 1.01 * TOO_CLOSE * 2 * covalent_radii[3], fix=0)
    assert (1, 2) in set(zip(*site_graph(far, 3.6).edge_index.tolist(), strict=True))


def test_full_sites_that_are_too_close_are_refused(partial: dict[str, Atoms]) -> None:
    atoms = partial["shared"]
    atoms.set_distance(0, 1, 0.1, fix=0)
    with pytest.raises(ValueError, match=r"at least 0\.3 Å apart"):
        site_graph(atoms, 4.5)


def test_composition_has_no_geometry(partial: dict[str, Atoms]) -> None:
    graph = site_graph(partial["composition"], 4.5)
    assert graph.numbers.tolist() == [3, 15, 16]
    assert graph.n_edges == 0
    assert graph.occupancies is not None
    assert float(graph.occupancies.sum()) == pytest.approx(1.0)
    assert all(value.isfinite().all() for value in graph.tensors().values())


def test_a_batch_of_both_kinds(partial: dict[str, Atoms]) -> None:
    batch = collate([site_graph(atoms, 4.5) for atoms in partial.values()])
    assert batch.occupancies is not None
    assert batch.occupancies[:2].argmax(dim=1).tolist() == [11, 17]
    ordered = collate([site_graph(partial["ordered"], 4.5)] * 2)
    assert ordered.occupancies is None
    assert batch.to(dtype=torch.float64).occupancies.dtype == torch.float64  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["shared", "vacant", "split", "composition"])
def test_a_potential_refuses_them(partial: dict[str, Atoms], name: str) -> None:
    with pytest.raises(ValueError, match="must be fully occupied by one element"):
        from_atoms(partial[name], 4.5)


@pytest.mark.parametrize(
    ("record", "match"),
    [
        ({"0": {"Na": 0.5, "K": 0.7}, "1": {"Cl": 1.0}}, "at most 1"),
        ({"0": {"Na": -0.5}, "1": {"Cl": 1.0}}, "shares from 0 to 1"),
        ({"0": {"Xx": 0.5}, "1": {"Cl": 1.0}}, "shares from 0 to 1"),
        ({"0": {"Na": 0.0}, "1": {"Cl": 1.0}}, "more than 0"),
        ({"0": {"Na": float("nan")}, "1": {"Cl": 1.0}}, "shares from 0 to 1"),
        ({"0": {"K": 0.5}, "1": {"Cl": 1.0}}, "changed after it was read"),
    ],
)
def test_bad_records(partial: dict[str, Atoms], record: dict[str, Any], match: str) -> None:
    atoms = partial["shared"]
    atoms.info["occupancy"] = record
    with pytest.raises(ValueError, match=match):
        site_graph(atoms, 4.5)


def test_record_without_kinds(partial: dict[str, Atoms]) -> None:
    atoms = partial["shared"]
    del atoms.arrays["spacegroup_kinds"]
    with pytest.raises(ValueError, match="array spacegroup_kinds"):
        site_graph(atoms, 4.5)


def test_positions_that_are_not_known_are_no_composition() -> None:
    broken = Atoms("NaCl", np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="must be finite"):
        site_graph(broken, 4.5)


def test_foreign_records_are_ignored() -> None:
    atoms = bulk("Cu")
    atoms.info["occupancy"] = {"of": "the hotel"}
    assert site_occupancies(atoms) is None
    assert basis(atoms) == "structure"
