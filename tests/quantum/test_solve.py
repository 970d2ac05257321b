"""Tight binding for users: from Atoms, remembered, and clear about bad input."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

import qdgnn_ase.quantum.solve as solve_module
from qdgnn_ase import ElectronicStructure, tight_binding
from qdgnn_ase.graph import from_atoms
from qdgnn_ase.quantum.bands import CUTOFF, TightBindingBands

MP36K = Path(__file__).parents[2] / ".." / "shared" / "data" / "mp36k" / "mp36k.jsonl.gz"


def test_same_as_the_module() -> None:
    atoms = bulk("GaAs", "zincblende", a=5.65)
    result = tight_binding(atoms, mesh=[2, 2, 2], temperature=0.1)
    assert isinstance(result, ElectronicStructure)
    want = TightBindingBands(temperature=0.1)(from_atoms(atoms, CUTOFF, torch.float64), [(2, 2, 2)])
    torch.testing.assert_close(result.bond_orders, want.bond_orders)
    torch.testing.assert_close(result.soft_gap, want.soft_gap)
    assert not result.soft_gap.requires_grad
    assert result.bond_orders.shape == (result.graph.n_edges,)


def test_remembered_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """One diagonalisation for equal structures; another for any change; results are copies."""
    calls = []
    solve = TightBindingBands.forward

    def counted(self: TightBindingBands, *arguments: object) -> ElectronicStructure:
        calls.append(arguments)
        return solve(self, *arguments)

    monkeypatch.setattr(TightBindingBands, "forward", counted)
    solve_module._remembered.cache_clear()
    atoms = molecule("CH4")
    first = tight_binding(atoms)
    first.charges.zero_()
    again = tight_binding(atoms.copy())
    assert len(calls) == 1
    assert again.charges.abs().max().item() > 0.0
    atoms.positions[0, 0] += 1e-8
    tight_binding(atoms)
    tight_binding(atoms, temperature=0.3)
    tight_binding(atoms, mesh=(1, 1, 1))
    assert len(calls) == 4


def test_atoms_are_not_changed() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.positions += 20.0
    before = atoms.copy()
    tight_binding(atoms)
    assert atoms == before


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "at least one atom"),
        (Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]), "positions must be finite"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.1]]), "0.3"),
        (Atoms([110]), r"1\.\.94, got \[110\]"),
        (Atoms("Cu", cell=[1, 1, 0], pbc=True), "cell"),
    ],
)
def test_bad_structures(atoms: Atoms, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tight_binding(atoms)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="temperature must be larger than 0"):
        tight_binding(bulk("Si"), temperature=-1.0)
    with pytest.raises(ValueError, match="at least one k-point"):
        tight_binding(bulk("Si"), mesh=(0, 1, 1))


@pytest.mark.slow
def test_no_nan_in_many_real_crystals() -> None:
    """Every hundredth crystal of up to 60 atoms."""
    if not MP36K.is_file():
        pytest.skip(f"real crystals are absent: no {MP36K}")
    with gzip.open(MP36K, "rt") as lines:
        rows = [json.loads(line) for k, line in enumerate(lines) if k % 100 == 0]
    elements = set()
    model = TightBindingBands()
    for row in rows:
        if len(row["species"]) > 60:
            continue
        structure = Structure(row["lattice"], row["species"], row["frac_coords"])
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        elements.update(atoms.numbers.tolist())
        graph = from_atoms(atoms, CUTOFF, torch.float64)
        graph = replace(graph, positions=graph.positions.requires_grad_(len(atoms) <= 10))
        result = model(graph)
        assert result.populations.sum().item() == pytest.approx(result.electrons.item(), abs=1e-6)
        for value in (result.soft_gap, result.band_gap, result.bond_orders, result.fermi_offset):
            assert bool(torch.isfinite(value).all()), row["material_id"]
        assert result.soft_gap.item() > 0.0
        if graph.positions.requires_grad:
            total = result.soft_gap.sum() + result.charges.square().sum()
            (gradient,) = torch.autograd.grad(total, graph.positions)
            assert bool(torch.isfinite(gradient).all()), row["material_id"]
    assert len(elements) > 70
