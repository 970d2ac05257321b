"""Attention: normalisation, and second derivatives where attention is far from uniform.

At initialisation attention is nearly uniform and a wrong second derivative does not show: the
check scales the logits up and compares the gradient of a loss on forces with finite differences.
"""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from qdgnn_ase.graph import AtomGraph, collate, from_atoms
from qdgnn_ase.nn import attention, segment
from qdgnn_ase.nn.attention import INVARIANT_BOUND, LOGIT_BOUND, Interaction, attention_weights
from qdgnn_ase.nn.derivatives import energy_forces_stress
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.segment import Edges, has_dgl

needs_dgl = pytest.mark.skipif(not has_dgl(), reason="DGL has no wheel for this Python")


@pytest.fixture
def graph(structures: dict[str, Atoms]) -> AtomGraph:
    names = ("perovskite", "skewed", "benzene")
    return collate([from_atoms(structures[name], 4.5, torch.float64) for name in names])


def force_loss(model: nn.Module, graph: AtomGraph) -> Tensor:
    target = torch.linspace(-1.0, 1.0, graph.positions.numel(), dtype=torch.float64)
    forces = energy_forces_stress(model, graph, training=True)["forces"]
    return (forces.reshape(-1) - target).square().mean()


def gradient_error(model: QDGNN, graph: AtomGraph) -> float:
    """Largest error of the force loss's directional derivatives, relative to the gradient's norm.

    Directions: the gradient itself with random ones of the same length added.
    """
    parameters = list(model.parameters())
    loss = force_loss(model, graph)
    gradient = parameters_to_vector(torch.autograd.grad(loss, parameters, materialize_grads=True))
    start, norm = parameters_to_vector(parameters).detach().clone(), gradient.norm()
    errors = []
    for seed in range(4):
        random = torch.randn(len(start), generator=torch.Generator().manual_seed(seed)).double()
        direction = gradient / norm + random / random.norm()
        numeric = 0.0
        for k, weight in ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12)):
            vector_to_parameters(start + k * 1e-4 * direction, parameters)
            numeric += weight * force_loss(model, graph).item() / 1e-4
        errors.append(abs(numeric - float(gradient @ direction)) / norm.item())
    vector_to_parameters(start, parameters)
    return max(errors)


def test_force_loss_gradient(model64: QDGNN, graph: AtomGraph, path: str) -> None:
    on_dgl = Edges(graph.edge_index, len(graph.numbers)).dgl is not None
    assert on_dgl == (path == "dgl")
    assert gradient_error(model64, graph) < 1e-6


def softmax_of_dgl(logits: Tensor, fc: Tensor, edges: Edges) -> Tensor:
    from dgl.nn.functional import edge_softmax

    return edge_softmax(edges.dgl, LOGIT_BOUND * torch.tanh(logits / LOGIT_BOUND) + torch.log(fc))


def softmax_of_torch(logits: Tensor, fc: Tensor, edges: Edges) -> Tensor:
    weight = torch.exp(LOGIT_BOUND * torch.tanh(logits / LOGIT_BOUND)) * fc
    return weight / edges.sum(weight)[edges.destination]


@needs_dgl
def test_control_edge_softmax_of_dgl_fails(
    model64: QDGNN, graph: AtomGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The known fault: right energies and forces, wrong gradient of a force loss."""
    monkeypatch.setattr(segment, "DGL_MIN_EDGES", 0)
    forces = {}
    for softmax in (softmax_of_torch, softmax_of_dgl):
        monkeypatch.setattr(attention, "attention_weights", softmax)
        forces[softmax] = energy_forces_stress(model64, graph)["forces"]
        error = gradient_error(model64, graph)
        assert (error < 1e-6) == (softmax is softmax_of_torch), (softmax.__name__, error)
    assert error > 1e-3
    torch.testing.assert_close(forces[softmax_of_dgl], forces[softmax_of_torch])


def test_fixture_attention_is_far_from_uniform(
    model64: QDGNN, graph: AtomGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios = []

    def recorded(logits: Tensor, fc: Tensor, edges: Edges) -> Tensor:
        alpha = attention_weights(logits, torch.ones_like(fc), edges)  # without the distances' part
        uniform = 1.0 / torch.bincount(edges.destination)[edges.destination, None]
        ratios.append((alpha / uniform).quantile(0.99).item())
        return attention_weights(logits, fc, edges)

    monkeypatch.setattr(attention, "attention_weights", recorded)
    model64(graph)
    assert len(ratios) == model64.config.n_layers
    assert min(ratios) > 2.0


def test_attention_is_a_share(graph: AtomGraph) -> None:
    edges = Edges(graph.edge_index, len(graph.numbers))
    logits = torch.randn(graph.n_edges, 4, dtype=torch.float64) * 10
    fc = torch.rand(graph.n_edges, 1, dtype=torch.float64)
    alpha = attention_weights(logits, fc, edges)
    total = edges.sum(alpha)
    assert bool((alpha >= 0).all())
    assert bool((total < 1).all())
    rest = 1.0 / (1.0 - total)  # 1 + sum_k w_ik
    expected = torch.exp(LOGIT_BOUND * torch.tanh(logits / LOGIT_BOUND)) * fc
    torch.testing.assert_close(alpha * rest[edges.destination], expected)


def test_without_attention_the_envelope_decides(graph: AtomGraph) -> None:
    """An ablation of `qdgnn bench-properties`; with attention the shares differ."""
    edges, generator = Edges(graph.edge_index, len(graph.numbers)), torch.Generator().manual_seed(0)
    hidden, radial = (
        torch.randn(n, 16, generator=generator) for n in (len(graph.numbers), graph.n_edges)
    )
    fc = torch.rand(graph.n_edges, 1, generator=generator)
    shares = []
    for attends in (True, False):
        layer = Interaction(
            hidden=16,
            n_vectors=4,
            n_radial=16,
            n_pair=8,
            n_heads=2,
            filters="channel",
            attends=attends,
            neighbors=10.0,
            first=True,
            last=True,
        )
        shares.append(layer.attention(hidden, radial, fc, edges))
    plain = attention_weights(torch.zeros(graph.n_edges, 2), fc, edges)
    torch.testing.assert_close(shares[1], plain)
    assert not torch.allclose(shares[0], plain, rtol=1e-3)


def test_neighbour_at_the_cutoff_has_no_share(graph: AtomGraph) -> None:
    edges = Edges(graph.edge_index, len(graph.numbers))
    logits = torch.full((graph.n_edges, 2), 50.0)
    fc = torch.ones(graph.n_edges, 1)
    fc[::3] = 0.0
    alpha = attention_weights(logits, fc, edges)
    assert not bool(alpha[::3].any())
    assert bool((alpha[1::3] > 0).all())


def test_huge_logits_stay_finite_in_float32(graph: AtomGraph) -> None:
    edges = Edges(graph.edge_index, len(graph.numbers))
    logits = torch.full((graph.n_edges, 2), 1e8, requires_grad=True)
    alpha = attention_weights(logits, torch.ones(graph.n_edges, 1), edges)
    (slope,) = torch.autograd.grad(alpha.sum(), logits)
    assert bool(torch.isfinite(alpha).all())
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize("length", [0.03, 1e3, 1e15])
def test_no_layer_lets_features_explode(model64: QDGNN, graph: AtomGraph, length: float) -> None:
    """Invariants are products of vectors, but never beyond the bound, whatever the vectors."""
    layer = model64.trunk.layers[1]
    assert isinstance(layer, Interaction)
    seen: list[Tensor] = []
    layer.update.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    n, hidden = len(graph.numbers), model64.config.hidden
    inputs = torch.randn(n, 2 * hidden, dtype=torch.float64)
    vectors = length * torch.randn(3, n, layer.n_vectors, dtype=torch.float64)
    vectors.requires_grad_()
    scalars, _ = layer._update(inputs[:, :hidden], inputs, vectors)
    (slope,) = torch.autograd.grad(scalars.square().sum(), vectors)
    assert bool(torch.isfinite(slope).all())
    left, right = layer.mix(vectors).chunk(2, dim=2)
    products, invariants = (left * right).sum(dim=0), seen[0][:, 2 * hidden :]
    assert invariants.abs().max() <= INVARIANT_BOUND
    if length < 1:
        torch.testing.assert_close(invariants, products, rtol=1e-3, atol=0)
    else:
        assert products.abs().max() > 100 * INVARIANT_BOUND
