"""The traced program has symbolic sizes and the numbers of the eager one."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from ase import Atoms

from qdgnn_ase.graph import AtomGraph, collate, from_atoms
from qdgnn_ase.nn import compile as compilation
from qdgnn_ase.nn.compile import CompilationWarning, CompiledPotential, check_sizes
from qdgnn_ase.nn.derivatives import energy_forces_stress
from qdgnn_ase.nn.model import QDGNN

NAMES = ("rocksalt", "perovskite", "one_atom_cell", "slab_tilted_vacuum", "benzene")


@pytest.fixture
def graphs(structures: dict[str, Atoms]) -> list[AtomGraph]:
    return [from_atoms(structures[name], 4.5, torch.float64) for name in NAMES]


@pytest.fixture
def traced(model64: QDGNN, monkeypatch: pytest.MonkeyPatch) -> CompiledPotential:
    """Traced and run without inductor, which takes minutes."""
    monkeypatch.setattr(torch, "compile", lambda program, **_: program)
    monkeypatch.setattr(compilation, "tune_process", lambda: None)
    return CompiledPotential(model64.requires_grad_(False))


def assert_equal(potential: CompiledPotential, graph: AtomGraph) -> None:
    wanted = energy_forces_stress(potential.model, graph)
    got = potential(graph)
    for name in ("energy", "energies", "forces", "stress"):
        torch.testing.assert_close(
            got[name], wanted[name], atol=1e-10, rtol=1e-10, equal_nan=True, msg=name
        )


def test_trace_serves_every_size(traced: CompiledPotential, graphs: list[AtomGraph]) -> None:
    for graph in graphs:
        assert_equal(traced, graph)
    assert_equal(traced, collate(graphs))
    assert traced._program is not None


def test_a_lone_atom_has_no_edges(traced: CompiledPotential) -> None:
    assert_equal(traced, from_atoms(Atoms("Ar"), 4.5, torch.float64))


def test_trace_follows_the_weights(traced: CompiledPotential, graphs: list[AtomGraph]) -> None:
    traced(graphs[0])
    traced.model.element_energies += 1.0
    assert_equal(traced, graphs[0])


@pytest.mark.slow
def test_copies_compile_for_themselves(traced: CompiledPotential, graphs: list[AtomGraph]) -> None:
    traced(graphs[0])
    for other in (copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):  # noqa: S301
        assert other._program is None
        assert other.model is not traced.model
        assert_equal(other, graphs[1])


def test_failure_warns_once_and_goes_on(
    model64: QDGNN, graphs: list[AtomGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no g++")

    monkeypatch.setattr(compilation, "compile_traced", broken)
    monkeypatch.setattr(compilation, "tune_process", lambda: None)
    potential = CompiledPotential(model64)
    with pytest.warns(CompilationWarning, match="no g\\+\\+") as record:
        first = potential(graphs[0])
    assert len(record) == 1
    torch.testing.assert_close(first, energy_forces_stress(model64, graphs[0]), rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(potential, graphs[1])


def test_example_has_distinct_sizes(model64: QDGNN, graphs: list[AtomGraph]) -> None:
    example = compilation._example(model64, graphs[0])
    check_sizes(model64, example)
    with pytest.raises(ValueError, match="must be distinct"):
        check_sizes(model64, collate([graphs[0]] * 8))  # a width of the model
    with pytest.raises(ValueError, match="must be distinct"):
        check_sizes(model64, collate([graphs[0]] * model64.trunk.quantum.shape[1]))  # of a table


@pytest.mark.slow
def test_compiled_equals_eager(
    model64: QDGNN, structures: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "tune_process", lambda: None)
    potential = CompiledPotential(model64.float().requires_grad_(False))
    graphs = [from_atoms(structures[name], 4.5) for name in NAMES]
    for graph in (*graphs, collate(graphs)):
        got, wanted = potential(graph), energy_forces_stress(potential.model, graph)
        n = graph.n_atoms
        assert (got["energy"] - wanted["energy"]).abs().div(n).max() < 1e-6 * 200
        torch.testing.assert_close(got["forces"], wanted["forces"], atol=1e-4, rtol=1e-4)
    assert potential._program is not None
