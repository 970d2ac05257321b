"""Samples and batches by edge count."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from qdgnn_ase.data.dataset import batch_indices, join, make_samples
from qdgnn_ase.graph import from_atoms

SIZES = st.lists(st.integers(0, 50), max_size=40)
LIMIT = st.integers(1, 120)
no_deadline = settings(deadline=None)  # the machine may be busy


@no_deadline
@given(SIZES, LIMIT)
def test_every_index_is_in_one_batch_in_order(sizes: list[int], limit: int) -> None:
    batches = list(batch_indices(sizes, limit))
    assert list(chain(*batches)) == list(range(len(sizes)))
    assert all(batches)


@no_deadline
@given(SIZES, LIMIT)
def test_only_a_single_structure_exceeds_the_limit(sizes: list[int], limit: int) -> None:
    for batch in batch_indices(sizes, limit):
        assert len(batch) == 1 or sum(sizes[k] for k in batch) <= limit


@no_deadline
@given(SIZES, LIMIT)
def test_batches_are_full(sizes: list[int], limit: int) -> None:
    batches = list(batch_indices(sizes, limit))
    for batch, following in pairwise(batches):
        assert sum(sizes[k] for k in batch) + sizes[following[0]] > limit


@no_deadline
@given(SIZES.flatmap(lambda sizes: st.tuples(st.just(sizes), st.permutations(range(len(sizes))))))
def test_order_is_kept(case: tuple[list[int], list[int]]) -> None:
    sizes, order = case
    assert list(chain(*batch_indices(sizes, 60, order))) == list(order)


def labelled(atoms: Atoms) -> Atoms:
    atoms.calc = EMT()
    results = {
        name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", "stress")
    }
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def test_sample_holds_graph_and_labels() -> None:
    atoms = labelled(bulk("Cu", cubic=True))
    (sample,) = make_samples([atoms], cutoff=4.0)
    assert sample.graph.n_edges == from_atoms(atoms, 4.0).n_edges
    assert sample.targets["energy"].dtype == torch.float64  # float32 loses meV on large totals
    assert sample.targets["energy"].tolist() == [atoms.get_potential_energy()]
    assert sample.targets["forces"].shape == (4, 3)
    assert sample.targets["stress"].shape == (1, 3, 3)
    xx, yy, zz, yz, xz, xy = atoms.get_stress()
    expected = torch.tensor([[[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]], dtype=torch.float32)
    torch.testing.assert_close(sample.targets["stress"], expected)


def test_missing_labels_are_nan() -> None:
    (sample,) = make_samples([molecule("H2O")], cutoff=4.0)
    assert all(value.isnan().all() for value in sample.targets.values())
    assert sample.targets["forces"].shape == (3, 3)


def test_join_keeps_order_and_labels() -> None:
    frames = [labelled(bulk("Cu", cubic=True)), bulk("Al"), labelled(bulk("Ag"))]
    samples = make_samples(frames, cutoff=4.0)
    batch = join(samples)
    assert batch.graph.n_atoms.tolist() == [4, 1, 1]
    assert batch.graph.numbers.tolist() == [29] * 4 + [13, 47]
    assert batch.targets["energy"].shape == (3,)
    assert batch.targets["forces"].shape == (6, 3)
    assert batch.targets["stress"].shape == (3, 3, 3)
    assert batch.targets["energy"].isnan().tolist() == [False, True, False]
    assert batch.targets["energy"][2] == samples[2].targets["energy"][0]
    torch.testing.assert_close(batch.targets["stress"][2], samples[2].targets["stress"][0])


def test_join_does_not_alter_the_samples() -> None:
    samples = make_samples([labelled(bulk("Cu")), labelled(bulk("Ag"))], cutoff=4.0)
    before = [sample.graph.edge_index.clone() for sample in samples]
    join(samples).targets["energy"].fill_(7.0)
    for sample, edges in zip(samples, before, strict=True):
        assert torch.equal(sample.graph.edge_index, edges)
        assert sample.targets["energy"].item() != 7.0


def test_error_names_the_frame() -> None:
    broken = molecule("H2O")
    broken.positions[1] = np.nan
    with pytest.raises(ValueError, match=r"frame 1 \(H2O\): positions must be finite"):
        make_samples([bulk("Cu"), broken], cutoff=4.0)


def test_error_names_the_frame_with_bad_labels() -> None:
    broken = bulk("Cu", cubic=True)
    broken.calc = SinglePointCalculator(broken)
    broken.calc.results["forces"] = np.zeros((3, 3))
    with pytest.raises(ValueError, match=r"frame 1 \(Cu4\): stored forces must have shape"):
        make_samples([bulk("Cu"), broken], cutoff=4.0)
