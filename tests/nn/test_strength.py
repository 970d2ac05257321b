"""Bonds of variable strength: 1 changes nothing, 0 is a graph without the edge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from ase import Atoms
from torch import Tensor, nn

from qdgnn_ase.graph import AtomGraph, collate, from_atoms
from qdgnn_ase.nn import attention
from qdgnn_ase.nn.attention import attention_weights
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.property_model import PropertyConfig, PropertyModel
from qdgnn_ase.nn.segment import Edges
from qdgnn_ase.nn.trunk import QDGNNConfig

KINDS = ("t0", "t0_hoppings", "t0_moments")


def trunk_config(quantum: str) -> QDGNNConfig:
    sizes = {"hidden": 16, "n_layers": 2, "n_vectors": 4, "n_radial": 6, "n_pair": 8, "n_heads": 2}
    return QDGNNConfig(cutoff=4.5, quantum=quantum, **sizes)


@pytest.fixture(params=[*KINDS, "property"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if request.param == "property":
            config = PropertyConfig(
                targets=("formation_energy", "band_gap"), trunk=trunk_config("t0_moments")
            )
            return PropertyModel(config).double()
        model = QDGNN(trunk_config(request.param)).double()
    model.shortest.fill_(3.0)  # repulsion between all neighbours: it must go with its edge
    return model


@pytest.fixture
def graph(structures: dict[str, Atoms]) -> AtomGraph:
    names = ("perovskite", "close_pair", "triclinic", "benzene")
    return collate([from_atoms(structures[name], 4.5, torch.float64) for name in names])


def output(network: nn.Module, graph: AtomGraph, strength: Tensor | None = None) -> list[Tensor]:
    with torch.no_grad():
        result: dict[str, Tensor] = network(graph, strength=strength)
    return list(result.values())


def half(graph: AtomGraph) -> Tensor:
    keep = torch.rand(graph.n_edges, generator=torch.Generator().manual_seed(0)) < 0.5
    assert 0 < int(keep.sum()) < graph.n_edges
    return keep


def test_whole_bonds_change_no_bit(network: nn.Module, graph: AtomGraph) -> None:
    ones = torch.ones(graph.n_edges, 1, dtype=torch.float64)
    for a, b in zip(output(network, graph), output(network, graph, ones), strict=True):
        assert torch.equal(a, b)


def test_absent_bonds_are_no_edges(network: nn.Module, graph: AtomGraph) -> None:
    keep = half(graph)
    fewer = replace(graph, edge_index=graph.edge_index[:, keep], edge_shift=graph.edge_shift[keep])
    masked = output(network, graph, keep.double()[:, None])
    for a, b in zip(output(network, fewer), masked, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(output(network, graph)[0], masked[0])


def test_control_a_mask_behind_the_moments_leaves_a_trace(graph: AtomGraph) -> None:
    """The moments see every bond: masked messages alone are not the graph without the edges."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = QDGNN(trunk_config("t0_moments")).double()
    keep = half(graph)
    fewer = replace(graph, edge_index=graph.edge_index[:, keep], edge_shift=graph.edge_shift[keep])
    wanted = output(model, fewer)[0]

    def mask(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, vectors, radial, fc, unit, edges = inputs
        strength = keep.double()[:, None]
        return hidden, vectors, radial * strength, fc * strength, unit, edges

    for layer in model.trunk.layers:
        layer.register_forward_pre_hook(mask)
    assert not torch.allclose(output(model, graph)[0], wanted, rtol=1e-10, atol=1e-10)


def test_attention_is_that_of_the_layer(
    model64: QDGNN, graph: AtomGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Tensor] = []
    told: list[Tensor] = []

    def recorded(logits: Tensor, fc: Tensor, edges: Edges) -> Tensor:
        used.append(attention_weights(logits, fc, edges))
        return used[-1]

    def ask(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        hidden, _, radial, fc, _, edges = inputs
        with monkeypatch.context() as context:
            context.setattr(attention, "attention_weights", attention_weights)
            told.append(layer.attention(hidden, radial, fc, edges))

    monkeypatch.setattr(attention, "attention_weights", recorded)
    for layer in model64.trunk.layers:
        layer.register_forward_pre_hook(ask)
    output(model64, graph)
    assert len(used) == len(told) == model64.config.n_layers
    for a, b in zip(used, told, strict=True):
        assert torch.equal(a, b)
