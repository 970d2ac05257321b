"""Both forms of the messages: the same numbers and derivatives, and the one in place keeps less."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qdgnn_ase.nn.messages import (
    attention_average,
    pair_features,
    sum_messages,
    sum_vectors,
    widen,
)
from qdgnn_ase.nn.segment import Edges

N_ATOMS, N_EDGES, WIDTH, HEADS = 5, 23, 6, 3


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + 100 * seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def edges_of(plain_form: bool) -> Edges:
    index = torch.randint(0, N_ATOMS - 1, (2, N_EDGES), generator=torch.Generator().manual_seed(1))
    edges = Edges(index, N_ATOMS)  # the last atom has no edge
    edges.plain = not plain_form
    return edges


def on_atoms(seed: int = 0) -> Tensor:
    return random(N_ATOMS, WIDTH, seed=seed)


def on_edges(width: int = WIDTH, seed: int = 0) -> Tensor:
    return random(N_EDGES, width, seed=seed)


def first_vectors(edges: Edges, values: Tensor, filters: Tensor, *unit: Tensor) -> Tensor:
    return torch.stack(sum_vectors(values, filters, unit, edges))


def later_vectors(
    edges: Edges, values: Tensor, filters: Tensor, others: Tensor, *tensors: Tensor
) -> Tensor:
    unit, vectors = tensors[:3], tensors[3:]
    return torch.stack(sum_vectors(values, filters, unit, edges, vectors, [others]))


UNIT = [on_edges(1, seed) for seed in range(3)]
CASES: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
    "pair": (
        lambda edges, *inputs: torch.cat(pair_features(*inputs, edges), dim=1),
        [on_edges(), on_atoms(), on_atoms(1), on_edges(1)],
    ),
    "messages": (lambda edges, *inputs: sum_messages(*inputs, edges), [on_atoms(), on_edges()]),
    "average": (
        lambda edges, *inputs: attention_average(*inputs, edges),
        [on_atoms(), on_edges(), on_edges(HEADS)],
    ),
    "average of as many heads": (
        lambda edges, *inputs: attention_average(*inputs, edges),
        [on_atoms(), on_edges(), on_edges(seed=1)],
    ),
    "vectors of the first layer": (first_vectors, [on_atoms(), on_edges(), *UNIT]),
    "vectors": (
        later_vectors,
        [on_atoms(), on_edges(), on_edges(seed=1), *UNIT, *(on_atoms(k) for k in (1, 2, 3))],
    ),
}


def derivatives(
    function: Callable[..., Tensor], edges: Edges, inputs: list[Tensor]
) -> list[Tensor]:
    """Values, first derivatives as at inference and in training, second derivatives."""
    leaves = [x.clone().requires_grad_(True) for x in inputs]
    values = function(edges, *leaves)
    cubes = values.pow(3).sum()
    once = torch.autograd.grad(cubes, leaves, retain_graph=True)
    again = torch.autograd.grad(cubes, leaves, create_graph=True)
    twice = torch.autograd.grad(sum(x.square().sum() for x in again), leaves)
    return [values, *once, *again, *twice]


@pytest.mark.parametrize("name", CASES)
def test_forms_agree(name: str, path: str) -> None:
    function, inputs = CASES[name]
    assert (edges_of(False).dgl is not None) == (path == "dgl")
    found = derivatives(function, edges_of(False), inputs)
    wanted = derivatives(function, edges_of(True), inputs)
    for got, expected in zip(found, wanted, strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_inputs_that_depend_on_each_other(name: str) -> None:
    """Each input is made of one tensor; counted twice or not at all, a derivative is wrong."""
    function, inputs = CASES[name]

    def of_one(x: Tensor) -> Tensor:
        chain = [inputs[0] * x]
        for value in inputs[1:]:
            chain.append(value * x + chain[-1].mean())
        return function(edges_of(False), *chain)

    x = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(of_one, [x])
    assert torch.autograd.gradgradcheck(of_one, [x])


@pytest.mark.parametrize("name", CASES)
def test_inputs_stay_and_nothing_else_is_kept(name: str, path: str) -> None:
    function, inputs = CASES[name]
    leaves = [x.clone().requires_grad_(True) for x in inputs]
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        function(edges_of(False), *leaves).sum().backward()
    for leaf, value in zip(leaves, inputs, strict=True):
        assert torch.equal(leaf, value)
    addresses = {leaf.data_ptr() for leaf in leaves}
    assert kept
    assert all(tensor.data_ptr() in addresses for tensor in kept)


def test_control_plain_form_keeps_products() -> None:
    function, inputs = CASES["vectors"]
    sizes = {}
    for plain_form in (False, True):
        leaves, sizes[plain_form] = [x.clone().requires_grad_(True) for x in inputs], 0

        def note(tensor: Tensor, form: bool = plain_form) -> Tensor:
            sizes[form] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            function(edges_of(plain_form), *leaves)
    assert sizes[True] > 1.5 * sizes[False]


def test_widen_repeats_columns() -> None:
    values = torch.tensor([[1.0, 2.0]])
    assert widen(values, 6).tolist() == [[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]]
    assert widen(values, 2) is values
