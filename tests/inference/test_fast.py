"""``fast=True``: the numbers of the eager calculator, in this process and in workers."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from qdgnn_ase import QDGNN, CompilationWarning, QDGNNCalculator
from qdgnn_ase.nn import compile as compilation


def rattled(name: str = "NaCl", n: int = 1) -> Atoms:
    atoms = bulk(name, "rocksalt", a=5.6, cubic=True).repeat((n, 1, 1))
    atoms.rattle(0.05, seed=n)
    return atoms


def assert_equal(fast: QDGNNCalculator, eager: QDGNNCalculator, atoms: Atoms) -> None:
    (got,), (wanted,) = fast.predict_batch([atoms]), eager.predict_batch([atoms])
    assert set(got) == set(wanted)
    assert got["energy"] == pytest.approx(wanted["energy"], abs=1e-6 * len(atoms), rel=1e-6)
    np.testing.assert_allclose(got["forces"], wanted["forces"], atol=1e-4)


@pytest.fixture
def no_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the process of the tests as it is."""
    monkeypatch.setattr(compilation, "tune_process", lambda: None)


@pytest.fixture
def no_compiler(no_tuning: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(compilation, "compile_traced", broken)


def test_eager_numbers_without_a_compiler(model: QDGNN, no_compiler: None) -> None:
    fast, eager = QDGNNCalculator(model, fast=True), QDGNNCalculator(model)
    atoms = rattled()
    with pytest.warns(CompilationWarning, match="no working C"):
        fast.predict_batch([atoms])
    (got,), (wanted,) = fast.predict_batch([atoms]), eager.predict_batch([atoms])  # no warning
    assert got["energy"] == wanted["energy"]
    np.testing.assert_array_equal(got["forces"], wanted["forces"])


def test_nothing_is_compiled_at_construction(model: QDGNN, no_compiler: None) -> None:
    fast = QDGNNCalculator(model, fast=True)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):  # noqa: S301
        assert other.compiled is not None
        assert other.compiled.model is other.model


def test_slow_by_default(model: QDGNN) -> None:
    assert QDGNNCalculator(model).compiled is None


@pytest.mark.slow
def test_compiled_here_and_in_a_spawned_worker(model: QDGNN, no_tuning: None) -> None:
    fast, eager = QDGNNCalculator(model, fast=True), QDGNNCalculator(model)
    dtype = torch.get_default_dtype()
    for n in (1, 2):
        assert_equal(fast, eager, rattled(n=n))
    assert torch.get_default_dtype() == dtype
    structures = [rattled(n=n) for n in (1, 3, 2)]
    for got, wanted in zip(
        fast.predict_batch(structures), eager.predict_batch(structures), strict=True
    ):
        np.testing.assert_allclose(got["forces"], wanted["forces"], atol=1e-4)
        np.testing.assert_allclose(got["stress"], wanted["stress"], atol=1e-6, rtol=1e-4)
    atoms = rattled(n=4)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (there,) = pool.apply_async(fast.predict_batch, ([atoms],)).get(timeout=300)
    (here,) = eager.predict_batch([atoms])
    np.testing.assert_allclose(there["forces"], here["forces"], atol=1e-4)
