"""Cells of packed molecules: no contacts, and what makes a contact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.data import vdw_radii
from ase.neighborlist import natural_cutoffs, neighbor_list
from click.testing import CliRunner
from scipy.sparse.csgraph import connected_components

from qdgnn_ase import read_structures
from qdgnn_matgl.packed import GROUPS, MAX_ATOMS, VOLUMES, _placed, exchanged, main, packed


def fragments(atoms: Atoms) -> np.ndarray:
    """Number of the bonded fragment of each atom."""
    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    bonded = np.zeros((len(atoms), len(atoms)), dtype=bool)
    bonded[first, second] = True
    return np.asarray(connected_components(bonded)[1])


@pytest.mark.parametrize("seed", range(6))
def test_molecules_stay_whole_and_apart(seed: int) -> None:
    atoms = packed(np.random.default_rng(seed))
    assert set(atoms.get_chemical_symbols()) <= set(VOLUMES)
    assert len(atoms) <= MAX_ATOMS
    owner = fragments(atoms)
    assert 2 <= owner.max() + 1 <= 6
    first, second, shift, length = neighbor_list("ijSd", atoms, 3.0)
    between = (owner[first] != owner[second]) | shift.any(axis=1)
    radii = np.nan_to_num(vdw_radii, nan=1.9)[atoms.numbers]
    assert (length[between] >= 0.77 * (radii[first] + radii[second])[between]).all()
    assert 5 < atoms.get_volume() / len(atoms) < 80


def test_same_seed_same_cell() -> None:
    one, same, other = (packed(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one == same
    assert one != other


def test_no_room() -> None:
    rng = np.random.default_rng(0)
    waters = [molecule("H2O")] * 3
    assert _placed(waters, 3.2 * np.eye(3), rng) is None  # the second one
    assert _placed([molecule("C2H6")], 3.2 * np.eye(3), rng) is None  # its own image
    assert _placed(waters, 9.0 * np.eye(3), rng) is not None


def test_exchanged_within_groups() -> None:
    group = {symbol: members for members in GROUPS for symbol in members}
    original = molecule("SO2")
    formulas = set()
    for seed in range(20):
        changed = exchanged(original, np.random.default_rng(seed))
        for old, new in zip(original.symbols, changed.symbols, strict=True):
            assert new in group[old]
        ratio = changed.get_distance(0, 1) / original.get_distance(0, 1)
        radii = natural_cutoffs(changed)[:2], natural_cutoffs(original)[:2]
        assert ratio == pytest.approx(sum(radii[0]) / sum(radii[1]))
        assert changed.get_angle(1, 0, 2) == pytest.approx(original.get_angle(1, 0, 2))
        formulas.add(changed.get_chemical_formula())
    assert len(formulas) > 5
    assert original == molecule("SO2")


def test_heavier_cells_differ() -> None:
    cells = [packed(np.random.default_rng(seed), heavier=True) for seed in range(4)]
    assert {"Ge", "As", "Se", "Br", "Sn", "Sb", "Te", "I"} & {s for a in cells for s in a.symbols}


def test_command(tmp_path: Path) -> None:
    path = tmp_path / "cells.extxyz"
    result = CliRunner().invoke(main, [str(path), "-n", "2", "--seed", "5"])
    assert result.exit_code == 0, result.output
    cells = list(read_structures(path))
    assert [str(atoms.symbols) for atoms in cells] == [
        str(packed(np.random.default_rng([5, index])).symbols) for index in range(2)
    ]
    assert all(atoms.pbc.all() for atoms in cells)
