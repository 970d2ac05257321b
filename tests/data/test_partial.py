"""Disordered structures and formulas: conversion, files, formulas that group them."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from pymatgen.core import Composition, DummySpecies, Lattice, Structure

from qdgnn_ase import read_labelled, read_structures, reduced_formula
from qdgnn_ase.data.exports import ordered_atoms
from qdgnn_ase.data.materials import as_atoms
from qdgnn_ase.data.partial import composition_atoms, integer_formula, structure_atoms
from qdgnn_ase.graph import amounts, basis
from qdgnn_ase.graph.sites import site_occupancies

CELL = Lattice.cubic(5.6)


def garnet_like(**species: float) -> Structure:
    """Rock salt with a shared site."""
    return Structure.from_spacegroup("Fm-3m", CELL, [species, "Cl"], [[0, 0, 0], [0.5] * 3])


def test_occupancies_are_kept() -> None:
    structure = garnet_like(Na=0.5, K=0.3)
    atoms = structure_atoms(structure)
    assert str(atoms.symbols) == "Na4Cl4"
    np.testing.assert_allclose(atoms.positions, structure.cart_coords)
    assert amounts(atoms)[[11, 17, 19]] == pytest.approx([2.0, 4.0, 1.2])


def test_order_of_species_does_not_matter() -> None:
    one, two = (
        structure_atoms(garnet_like(**s)) for s in ({"K": 0.5, "Na": 0.5}, {"Na": 0.5, "K": 0.5})
    )
    assert one.numbers.tolist() == two.numbers.tolist()
    np.testing.assert_array_equal(site_occupancies(one), site_occupancies(two))  # type: ignore[arg-type]


def test_oxidation_states_of_one_element_add_up() -> None:
    structure = Structure(CELL, [{"Fe2+": 0.3, "Fe3+": 0.6}, "O2-"], [[0, 0, 0], [0.5] * 3])
    assert structure_atoms(structure).info["occupancy"]["0"] == pytest.approx({"Fe": 0.9})


def test_records_are_those_of_ase(tmp_path: Path) -> None:
    """ASE reads a CIF into the same occupancies."""
    garnet_like(Na=0.5, K=0.3).to(str(tmp_path / "a.cif"))
    ours = read_structures(tmp_path / "a.cif", partial=True)[0]
    theirs = ase.io.read(tmp_path / "a.cif")
    assert basis(theirs) == "disordered"
    np.testing.assert_allclose(amounts(theirs), amounts(ours), atol=1e-6)


def test_extended_xyz_keeps_them(tmp_path: Path) -> None:
    atoms = structure_atoms(garnet_like(Na=0.5, K=0.3))
    ase.io.write(tmp_path / "a.extxyz", atoms)
    (back,) = read_structures(tmp_path / "a.extxyz", partial=True)
    np.testing.assert_array_equal(site_occupancies(back), site_occupancies(atoms))  # type: ignore[arg-type]


@pytest.mark.parametrize("formula", ["Li3PS4", "Si", "O2", "Na0.5K0.5Cl", "Li6.4La3Zr1.4Ta0.6O12"])
def test_materials(formula: str) -> None:
    composition = Composition(formula)
    rows = (formula, composition, {"formula": formula}, {"composition": composition.as_dict()})
    for material in rows:
        atoms = as_atoms(material)
        assert basis(atoms) == "composition"
        assert amounts(atoms).sum() == pytest.approx(1.0)
        for element in composition:
            wanted = composition.get_atomic_fraction(element)
            assert amounts(atoms)[element.Z] == pytest.approx(wanted)


def test_structures_as_materials() -> None:
    structure = garnet_like(Na=0.5, K=0.3)
    for material in (structure, structure.as_dict(), {"structure": structure.as_dict()}):
        assert basis(as_atoms(material)) == "disordered"
    atoms = as_atoms(structure)
    assert as_atoms(atoms) is atoms


@pytest.mark.parametrize("wrong", ["", "Quux7", "Li3P(S", 7, None, {"energy": 1.0}])
def test_what_is_no_material(wrong: object) -> None:
    with pytest.raises(ValueError, match="must"):
        as_atoms(wrong)  # type: ignore[arg-type]


def test_dummy_species_are_refused() -> None:
    with pytest.raises(ValueError, match="elements only"):
        composition_atoms(Composition({DummySpecies("X"): 1.0}))


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        ("Li3PS4", "Li3PS4"),
        ("Na0.5K0.5Cl", "KNaCl2"),
        ("Li6.4La3Zr1.4Ta0.6O12", "Li32La15Zr7Ta3O60"),
        ("Na0.333K0.667Cl", "K2NaCl3"),
        ("O2", "O2"),
    ],
)
def test_formulas(formula: str, wanted: str) -> None:
    atoms = composition_atoms(formula)
    assert reduced_formula(atoms) == Composition(wanted).reduced_formula
    assert integer_formula(atoms) == integer_formula(atoms.copy())


def test_order_and_disorder_of_one_composition_are_in_one_group() -> None:
    shared = structure_atoms(garnet_like(Na=0.5, K=0.5))
    formulas = {
        reduced_formula(atoms)
        for atoms in (
            shared,
            shared.repeat((2, 1, 1)),
            composition_atoms("NaKCl2"),
            Atoms("NaKCl2"),
        )
    }
    assert len(formulas) == 1


def test_files_with_all_kinds_of_rows(tmp_path: Path) -> None:
    ordered = ordered_atoms(garnet_like(Na=1.0))
    rows = [
        {
            "lattice": ordered.cell.tolist(),
            "species": list(ordered.symbols),
            "frac_coords": ordered.get_scaled_positions().tolist(),
            "sigma": 1e-5,
        },
        {"structure": garnet_like(Na=0.5, K=0.3).as_dict(), "sigma": 1e-4},
        {"formula": "Li3PS4", "sigma": 1e-3},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    found = read_labelled(path, {"ionic_conductivity": "sigma"}, partial=True)
    assert [basis(row.atoms) for row in found] == ["structure", "disordered", "composition"]
    assert [row.labels["ionic_conductivity"] for row in found] == [1e-5, 1e-4, 1e-3]
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 2 .*fully occupied sites"):
        read_labelled(path, {"ionic_conductivity": "sigma"})
    path.write_text(json.dumps(rows[2]))
    with pytest.raises(ValueError, match=r"row 1 .* must have the keys"):
        read_structures(path)


def test_table_with_cif_or_formula(tmp_path: Path) -> None:
    cif = garnet_like(Na=0.5, K=0.3).to(fmt="cif").replace('"', '""')
    path = tmp_path / "rows.csv"
    path.write_text(f'formula,cif,sigma\nNa5K3Cl10,"{cif}",1e-5\nLi3PS4,,1e-3\n')
    found = read_structures(path, partial=True)
    assert [basis(atoms) for atoms in found] == ["disordered", "composition"]
    assert found[0].info["sigma"] == "1e-5"
