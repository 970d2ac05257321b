"""The loss: units, weights, and that a missing label changes nothing."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
from ase.build import bulk, molecule
from ase.units import GPa
from torch import Tensor

from qdgnn_ase.data.dataset import join, make_samples
from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.derivatives import energy_forces_stress
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.training.losses import (
    LossWeights,
    edge_loss,
    masked_mean,
    potential_loss,
    property_errors,
    property_loss,
)
from qdgnn_ase.training.scaler import Scaler, center

WEIGHTS = LossWeights()
TINY = QDGNNConfig(cutoff=4.0, hidden=8, n_layers=2, n_vectors=2, n_radial=4, n_pair=4, n_heads=2)
Values = dict[str, Tensor]


@pytest.fixture
def graph() -> AtomGraph:
    """Three crystals of 1, 4 and 2 atoms."""
    frames = [bulk("Cu"), bulk("Ag", cubic=True), bulk("NaCl", "rocksalt", a=5.6)]
    return join(make_samples(frames, 4.0)).graph


@pytest.fixture
def output(graph: AtomGraph) -> Values:
    generator = torch.Generator().manual_seed(0)
    n, atoms = graph.n_graphs, len(graph.numbers)
    return {
        "energy": torch.randn(n, generator=generator, dtype=torch.float64).requires_grad_(),
        "forces": torch.randn(atoms, 3, generator=generator).requires_grad_(),
        "stress": torch.randn(n, 3, 3, generator=generator).requires_grad_(),
    }


def loss_and_parts(
    output: Values, targets: Values, graph: AtomGraph, weights: LossWeights = WEIGHTS
) -> tuple[float, dict[str, float]]:
    loss, parts = potential_loss(output, targets, graph, weights)
    assert not any(part.requires_grad for part in parts.values())
    return loss.item(), {name: part.item() for name, part in parts.items()}


def copies(values: Values) -> Values:
    return {name: value.detach().clone() for name, value in values.items()}


def gradients(output: Values, targets: Values, graph: AtomGraph) -> list[Tensor]:
    loss, _ = potential_loss(output, targets, graph, WEIGHTS)
    return list(torch.autograd.grad(loss, list(output.values())))


def test_perfect_prediction_costs_nothing(output: Values, graph: AtomGraph) -> None:
    loss, parts = loss_and_parts(output, copies(output), graph)
    assert loss < 1e-5
    assert all(value < 1e-5 for value in parts.values())
    for gradient in gradients(output, copies(output), graph):
        assert torch.isfinite(gradient).all()  # the norm of a zero force error has a kink


def test_energy_part_is_the_mean_absolute_error_per_atom(output: Values, graph: AtomGraph) -> None:
    targets = copies(output)
    targets["energy"] += torch.tensor([0.3, -0.8, 0.5])
    _, parts = loss_and_parts(output, targets, graph)
    assert parts["energy"] == pytest.approx((0.3 + 0.8 / 4 + 0.5 / 2) / 3)


def test_forces_part_is_the_mean_norm(output: Values, graph: AtomGraph) -> None:
    targets = copies(output)
    targets["forces"][0] += torch.tensor([3.0, 0.0, 4.0])
    targets["forces"][5] += torch.tensor([0.0, -2.0, 0.0])
    _, parts = loss_and_parts(output, targets, graph)
    assert parts["forces"] == pytest.approx((5 + 2) / 7, abs=1e-5)


@pytest.mark.parametrize(("error_gpa", "cost"), [(0.1, 0.005), (0.5, 0.125), (4.0, 3.5)])
def test_stress_part_is_huber_in_gpa(
    output: Values, graph: AtomGraph, error_gpa: float, cost: float
) -> None:
    targets = copies(output)
    targets["stress"][1] += error_gpa * GPa
    _, parts = loss_and_parts(output, targets, graph)
    assert parts["stress"] == pytest.approx(cost / 3, rel=1e-3)


def test_weights_multiply_the_parts(output: Values, graph: AtomGraph) -> None:
    targets = {name: torch.zeros_like(value) for name, value in output.items()}
    for weights in (WEIGHTS, LossWeights(energy=0.0, forces=3.0, stress=0.5)):
        loss, parts = loss_and_parts(output, targets, graph, weights)
        expected = sum(weight * parts[name] for name, weight in asdict(weights).items())
        assert loss == pytest.approx(expected)


def test_weight_zero_gives_no_gradient(output: Values, graph: AtomGraph) -> None:
    targets = {name: torch.zeros_like(value) for name, value in output.items()}
    loss, _ = potential_loss(output, targets, graph, LossWeights(energy=0.0))
    (gradient,) = torch.autograd.grad(loss, output["energy"])
    assert not gradient.any()


@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
def test_missing_label_has_no_effect_and_no_gradient(
    output: Values, graph: AtomGraph, name: str
) -> None:
    targets = {key: torch.zeros_like(value) for key, value in output.items()}
    targets[name][1] = torch.nan
    _, parts = loss_and_parts(output, targets, graph)
    with torch.no_grad():
        output[name][1] += 100.0
    _, after = loss_and_parts(output, targets, graph)
    assert after == parts
    gradient = dict(zip(output, gradients(output, targets, graph), strict=True))
    assert not gradient[name][1].any()
    assert gradient[name][0].all()
    assert all(torch.isfinite(value).all() for value in gradient.values())


def test_nothing_labelled_gives_zero_loss_and_gradient(output: Values, graph: AtomGraph) -> None:
    targets = {name: torch.full_like(value, torch.nan) for name, value in output.items()}
    loss, parts = loss_and_parts(output, targets, graph)
    assert loss == 0.0
    assert set(parts.values()) == {0.0}
    for gradient in gradients(output, targets, graph):
        assert not gradient.any()


def test_force_with_one_missing_component_is_left_out(output: Values, graph: AtomGraph) -> None:
    targets = copies(output)
    targets["forces"][0] = torch.tensor([1e3, 0.0, torch.nan])
    _, parts = loss_and_parts(output, targets, graph)
    assert parts["forces"] < 1e-5


def test_mean_is_over_present_labels_only(output: Values, graph: AtomGraph) -> None:
    targets = copies(output)
    targets["energy"] += torch.tensor([0.3, math.nan, math.nan])
    _, parts = loss_and_parts(output, targets, graph)
    assert parts["energy"] == pytest.approx(0.3)


def test_stress_of_a_structure_without_volume_is_masked(output: Values, graph: AtomGraph) -> None:
    targets = {name: torch.zeros_like(value) for name, value in output.items()}
    with torch.no_grad():
        output["stress"][2] = torch.nan
    loss, _ = potential_loss(output, targets, graph, WEIGHTS)
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, output["stress"])
    assert not gradient[2].any()
    assert torch.isfinite(gradient).all()


def test_edge_loss_by_hand(graph: AtomGraph) -> None:
    atoms = torch.randn(len(graph.numbers), 4, generator=torch.Generator().manual_seed(0))
    wanted = []
    pairs = graph.edge_index.T.tolist()
    for (j, i), d in zip(pairs, graph.edge_vectors().norm(dim=1).tolist(), strict=True):
        decoded = 1 / (1 + math.exp(-float(atoms[i] @ atoms[j]) / 2))  # 2: root of the width
        x = d / 4.0
        wanted.append((1 - 10 * x**3 + 15 * x**4 - 6 * x**5 - decoded) ** 2)
    assert edge_loss(atoms, graph, 4.0).item() == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)


def test_edge_loss_without_edges() -> None:
    graph = join(make_samples([molecule("H")], 4.0)).graph
    atoms = torch.ones(1, 4, requires_grad=True)
    loss = edge_loss(atoms, graph, 4.0)
    assert loss.item() == 0.0
    assert not torch.autograd.grad(loss, atoms)[0].any()


def test_masked_mean() -> None:
    values = torch.tensor([1.0, torch.nan, 5.0], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, False, True]))
    mean.backward()
    assert mean.item() == 3.0
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, 0.0, 0.5]
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)).item() == 0.0


@pytest.mark.parametrize("names", ["molecule", "molecule and crystal"])
def test_molecules_give_finite_gradients_of_the_weights(names: str) -> None:
    """The stress of a molecule is NaN; none of that may reach the weights."""
    frames = [molecule("H2O"), bulk("Cu")] if "crystal" in names else [molecule("H2O")]
    batch = join(make_samples(frames, TINY.cutoff))
    targets = {
        name: torch.where(value.isnan(), torch.zeros_like(value), value)
        for name, value in batch.targets.items()
    }
    targets["stress"][0] = torch.nan
    model = QDGNN(TINY)
    output = energy_forces_stress(model, batch.graph, training=True)
    loss, _ = potential_loss(output, targets, batch.graph, WEIGHTS)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_members_learn_quantiles() -> None:
    """Exact: those of the labels themselves; the middle two stand for the median."""
    scaler = Scaler(("formation_energy",))
    labels = torch.linspace(0.0, 1.0, 1001)[:, None] ** 3
    members = torch.zeros(1, 1, 4, requires_grad=True)
    optimizer = torch.optim.SGD([members], lr=0.02)
    bag = torch.ones(1001, 4)
    for _ in range(800):
        values = members.expand(1001, 1, 4)
        loss, parts = property_loss(values, labels, bag, scaler, {"formation_energy": 1.0})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    levels = torch.tensor([0.125, 0.375, 0.625, 0.875])
    torch.testing.assert_close(members.detach()[0, 0], levels**3, rtol=0, atol=0.02)
    middle = center(members.detach()[0], scaler.properties[0])
    assert float(middle) == pytest.approx((0.375**3 + 0.625**3) / 2, abs=0.02)
    errors = property_errors(members.detach().expand(1001, 1, 4), labels, scaler)
    wanted = (labels - middle).abs().mean()
    assert errors["formation_energy"] == pytest.approx(float(wanted))
    assert float(parts["formation_energy"]) < errors["formation_energy"]


def test_a_confident_mistake_does_not_decide_validation() -> None:
    """Brier score of the members' mean probability; missing labels count for nothing."""
    scaler = Scaler(("metal_probability",))
    logits = torch.tensor([[40.0, -40.0], [900.0, 900.0], [0.0, 0.0]])[:, None]
    labels = torch.tensor([[1.0], [0.0], [torch.nan]])
    found = property_errors(logits, labels, scaler)
    assert found["metal_probability"] == pytest.approx((0.5**2 + 1.0) / 2)
    assert property_errors(logits[2:], labels[2:], scaler)["metal_probability"] == 0.0
