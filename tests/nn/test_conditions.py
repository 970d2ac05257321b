"""Conditions: fused term by term, masked where absent, the same for a supercell."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from ase import Atoms

from qdgnn_ase.graph import AtomGraph, collate, from_atoms
from qdgnn_ase.nn.fusion import TERMS, ConditionFusion, Term
from qdgnn_ase.nn.property_model import PropertyConfig, PropertyModel
from qdgnn_ase.nn.segment import has_dgl
from qdgnn_ase.nn.trunk import QDGNNConfig

TRUNK = QDGNNConfig(cutoff=4.0, hidden=16, n_layers=1, n_vectors=4, n_pair=8, n_heads=2)
NAN = float("nan")
SUBSETS: tuple[tuple[Term, ...], ...] = (TERMS, *((term,) for term in TERMS))


def model_of(terms: tuple[Term, ...] = TERMS) -> PropertyModel:
    config = PropertyConfig(
        targets=("heat_capacity", "band_gap"),
        trunk=TRUNK,
        n_members=3,
        conditions=("temperature", "pressure"),
        condition_terms=terms,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PropertyModel(config).double()
    assert model.conditions is not None
    model.conditions.set_range(torch.tensor([[100.0, 0.0], [500.0, 2.0]]))
    return model


def given(atoms: Atoms, *conditions: float) -> AtomGraph:
    graph = from_atoms(atoms, 4.0, torch.float64)
    return replace(graph, conditions=torch.tensor([conditions], dtype=torch.float64))


@pytest.mark.parametrize("terms", SUBSETS)
def test_every_term_sees_conditions_and_structure(
    terms: tuple[Term, ...], structures: dict[str, Atoms]
) -> None:
    model = model_of(terms)
    values = [
        model(given(structures[name], temperature, 1.0))["values"]
        for name in ("rocksalt", "perovskite")
        for temperature in (100.0, 500.0)
    ]
    for k, value in enumerate(values):
        for other in values[:k]:
            assert float((value - other).abs().min().detach()) > 1e-6


def test_terms_are_those_of_the_equations() -> None:
    """Gate between z and c, bilinear in both, concatenation in neither."""
    fusion = model_of().conditions
    assert fusion is not None
    z, c = torch.randn(2, 7, 16, dtype=torch.float64)
    both = torch.cat([z, c], dim=1)
    assert fusion.gate is not None
    assert fusion.bilinear is not None
    gated = torch.sigmoid(fusion.gate(both))
    between = gated * z + (1 - gated) * c
    assert bool((between <= torch.maximum(z, c)).all() and (between >= torch.minimum(z, c)).all())
    left, right = fusion.bilinear
    torch.testing.assert_close(left(2 * z) * right(3 * c), 6 * (left(z) * right(c)))


def test_an_absent_condition_is_masked(structures: dict[str, Atoms]) -> None:
    """Its parameters have no gradient, the other one's have; nothing is NaN."""
    model = model_of()
    output = model(given(structures["rocksalt"], NAN, 2.0))["values"]
    assert bool(output.isfinite().all())
    assert model.conditions is not None
    (gradient,) = torch.autograd.grad(output.sum(), model.conditions.scale)
    assert float(gradient[0].abs().max()) == 0.0
    assert float(gradient[1].abs().max()) > 0.0


def test_no_conditions_are_absent_conditions(structures: dict[str, Atoms]) -> None:
    model, atoms = model_of(), structures["rocksalt"]
    plain = model(from_atoms(atoms, 4.0, torch.float64))["values"]
    torch.testing.assert_close(model(given(atoms, NAN, NAN))["values"], plain)
    assert not torch.allclose(model(given(atoms, 300.0, NAN))["values"], plain)


def test_supercell_and_batch(structures: dict[str, Atoms]) -> None:
    model, atoms = model_of(), structures["perovskite"]
    graphs = [
        given(atoms, 250.0, 0.5),
        given(atoms.repeat((2, 1, 1)), 250.0, 0.5),
        given(atoms, NAN, 0.5),
        from_atoms(structures["fcc"], 4.0, torch.float64),
    ]
    batch = collate(graphs)
    together = model(batch)
    for k, graph in enumerate(graphs):
        alone = model(graph)
        for name in ("values", "embedding"):
            torch.testing.assert_close(together[name][k], alone[name][0], rtol=1e-9, atol=1e-9)
        atoms_of = together["atoms"][batch.batch == k]
        torch.testing.assert_close(atoms_of, alone["atoms"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(together["values"][0], together["values"][1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(together["embedding"][0], together["embedding"][2])


def test_range_of_training() -> None:
    fusion = ConditionFusion(2, 8)
    fusion.set_range(torch.tensor([[100.0, NAN], [300.0, 1.0], [200.0, 1.0]]))
    assert fusion.mean.tolist() == [200.0, 1.0]
    assert fusion.width.tolist() == pytest.approx([(2e4 / 3) ** 0.5, 1.0])
    asked = torch.tensor([[100.0, 1.0], [300.0, NAN], [99.0, 1.0], [NAN, 1.0], [200.0, 1.1]])
    assert fusion.in_range(asked).tolist() == [True, True, False, False, False]
    with pytest.raises(ValueError, match="condition 1 must be known"):
        fusion.set_range(torch.tensor([[100.0, NAN]]))


def test_other_number_of_conditions(structures: dict[str, Atoms]) -> None:
    with pytest.raises(ValueError, match="must have the conditions"):
        model_of()(given(structures["fcc"], 300.0))


@pytest.mark.skipif(not has_dgl(), reason="DGL has no wheel for this Python")
def test_dgl_round_trip(structures: dict[str, Atoms]) -> None:
    names = ("perovskite", "fcc")
    graph = collate([given(structures[name], 1.0 + k, 2.0) for k, name in enumerate(names)])
    back = AtomGraph.from_dgl(graph.to_dgl())
    assert back.conditions is not None
    assert back.conditions.tolist() == [[1.0, 2.0], [2.0, 2.0]]


def test_config_round_trip() -> None:
    config = model_of(("gate",)).config
    assert PropertyConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    plain = PropertyConfig(targets=("band_gap",), trunk=TRUNK)
    assert not {"conditions", "condition_terms"} & set(plain.to_dict()), "as it was before"
    assert not any("condition" in name for name in PropertyModel(plain).state_dict())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"conditions": ("a", "a")}, "distinct names"),
        ({"conditions": ("",)}, "distinct names"),
        ({"conditions": ("a",), "condition_terms": ()}, "at least one of"),
        ({"conditions": ("a",), "condition_terms": ("sum",)}, "at least one of"),
    ],
)
def test_bad_configs(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        PropertyConfig(targets=("band_gap",), **changes)  # type: ignore[arg-type]
