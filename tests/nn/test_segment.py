"""DGL's path and torch's give the same numbers; DGL is used where it should be, and dispensable."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import pytest
import torch
from ase import Atoms
from torch import Tensor

from qdgnn_ase.graph import AtomGraph, collate, from_atoms
from qdgnn_ase.nn import segment
from qdgnn_ase.nn.derivatives import energy_forces_stress
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.segment import Edges, has_dgl, segment_sum
from qdgnn_ase.training.losses import LossWeights, potential_loss

needs_dgl = pytest.mark.skipif(not has_dgl(), reason="DGL has no wheel for this Python")


@pytest.fixture
def batch(structures: dict[str, Atoms]) -> AtomGraph:
    return collate([from_atoms(atoms, 4.5, torch.float64) for atoms in structures.values()])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often DGL's kernels were called."""
    from dgl import ops

    counts: dict[str, int] = {}

    def counted(name: str) -> Callable[..., Tensor]:
        kernel = getattr(ops, name)

        def call(*args: object) -> Tensor:
            counts[name] = counts.get(name, 0) + 1
            return kernel(*args)

        return call

    for name in ("u_mul_e_sum", "copy_e_sum"):
        monkeypatch.setattr(ops, name, counted(name))
    return counts


def training_targets(graph: AtomGraph) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = {"energy": (graph.n_graphs,), "forces": graph.positions.shape}
    shapes["stress"] = (graph.n_graphs, 3, 3)
    dtype = graph.positions.dtype
    return {k: torch.randn(v, generator=generator, dtype=dtype) for k, v in shapes.items()}


def evaluate(model: QDGNN, graph: AtomGraph) -> dict[str, Tensor]:
    """Energy, forces, stress and the gradient of the training loss, by name."""
    output = energy_forces_stress(model, graph, training=True)
    loss, _ = potential_loss(output, training_targets(graph), graph, LossWeights())
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    result = {name: output[name] for name in ("energy", "forces", "stress")}
    return {k: v.detach() for k, v in (result | dict(zip(names, gradient, strict=True))).items()}


@needs_dgl
def test_dgl_equals_torch(
    model64: QDGNN, batch: AtomGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for threshold in (0, 10**9):
        monkeypatch.setattr(segment, "DGL_MIN_EDGES", threshold)
        assert (Edges(batch.edge_index, len(batch.numbers)).dgl is not None) == (threshold == 0)
        results.append(evaluate(model64, batch))
    for name, expected in results[1].items():
        scale = max(1.0, expected.nan_to_num().abs().max().item())
        got, equal_nan = results[0][name], name == "stress"  # NaN without a volume
        torch.testing.assert_close(
            got, expected, atol=1e-10 * scale, rtol=0, equal_nan=equal_nan, msg=name
        )


@needs_dgl
def test_lone_atom_on_the_dgl_path(model64: QDGNN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "DGL_MIN_EDGES", 0)
    output = energy_forces_stress(model64, from_atoms(Atoms("Ar"), 4.5, torch.float64))
    assert not bool(output["forces"].any())


@needs_dgl
def test_dgl_is_called_on_large_graphs_only(
    model64: QDGNN, structures: dict[str, Atoms], calls: dict[str, int]
) -> None:
    small = from_atoms(structures["perovskite"], 4.5, torch.float64)
    energy_forces_stress(model64, small)
    assert calls == {}
    large = from_atoms(structures["perovskite"] * (3, 3, 3), 4.5, torch.float64)
    assert large.n_edges >= segment.DGL_MIN_EDGES
    energy_forces_stress(model64, large)
    assert calls["u_mul_e_sum"] >= 2 * model64.config.n_layers
    assert calls["copy_e_sum"] >= model64.config.n_layers


@needs_dgl
def test_blocked_dgl_is_not_called(
    model64: QDGNN, batch: AtomGraph, calls: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "DGL_MIN_EDGES", 0)
    monkeypatch.setitem(sys.modules, "dgl", None)
    assert not has_dgl()
    energy_forces_stress(model64, batch)
    assert calls == {}


def training_step(model: QDGNN, graph: AtomGraph) -> list[Tensor]:
    """Weights after one step down the gradient of the training loss."""
    model = copy.deepcopy(model)
    output = energy_forces_stress(model, graph, training=True)
    loss, _ = potential_loss(output, training_targets(graph), graph, LossWeights())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    loss.backward()
    optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def test_training_step_without_dgl(
    model64: QDGNN, batch: AtomGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "DGL_MIN_EDGES", 0)
    with_dgl = training_step(model64, batch)
    monkeypatch.setitem(sys.modules, "dgl", None)
    without = training_step(model64, batch)
    moved = [
        (a - b).abs().max().item() for a, b in zip(with_dgl, model64.parameters(), strict=True)
    ]
    assert max(moved) > 1e-3
    for a, b in zip(with_dgl, without, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@needs_dgl
@pytest.mark.parametrize("kind", ["meta", "subclass"])
def test_other_tensors_take_the_torch_path(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DGL's wheels know the CPU only, and cannot be traced."""
    monkeypatch.setattr(segment, "DGL_MIN_EDGES", 0)
    index = torch.zeros(2, 5, dtype=torch.long, device="meta" if kind == "meta" else "cpu")
    if kind == "subclass":
        index = index.as_subclass(type("Traced", (Tensor,), {}))
    assert Edges(index, 3).dgl is None


def sums_and_derivatives(edges: Edges, values: Tensor, weights: Tensor) -> list[Tensor]:
    """A sum of gathered rows, and derivatives of the first and second order of a function of it."""
    total = edges.sum(edges.gather(values).square() * weights)
    first = torch.autograd.grad(total.pow(3).sum(), [values, weights], create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), [values, weights])
    return [total, *first, *second]


@pytest.mark.parametrize("n_atoms", [7, 2**16 + 7])
def test_bags_equal_sums(n_atoms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no order, with atoms that have no edge, more of them than 16 bits hold."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, n_atoms - 2, (2, 50), generator=generator)
    leaves = [torch.randn(n, 3, generator=generator).requires_grad_(True) for n in (n_atoms, 50)]
    monkeypatch.setattr(segment, "_FAST_BAGS", True)
    found = sums_and_derivatives(Edges(index, n_atoms), *leaves)
    monkeypatch.setattr(segment, "_FAST_BAGS", False)
    wanted = sums_and_derivatives(Edges(index, n_atoms), *leaves)
    for got, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert not found[0][-2:].any()


def test_bags_without_edges() -> None:
    edges = Edges(torch.zeros(2, 0, dtype=torch.long), 3)
    assert edges.sum(torch.zeros(0, 4)).tolist() == [[0.0] * 4] * 3


def test_segment_sum() -> None:
    values = torch.arange(10.0).reshape(5, 2).requires_grad_(True)
    total = segment_sum(values, torch.tensor([0, 0, 2, 2, 2]), 4)
    assert total.tolist() == [[2.0, 4.0], [0.0, 0.0], [18.0, 21.0], [0.0, 0.0]]
    assert torch.autograd.grad(total[2].sum(), values)[0][:, 0].tolist() == [0, 0, 1, 1, 1]
