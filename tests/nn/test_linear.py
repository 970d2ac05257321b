"""Products by oneDNN: the numbers and derivatives of ``torch.nn.functional.linear``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import linear

from qdgnn_ase.nn import linear as module
from qdgnn_ase.nn.linear import Linear, product

Function = Callable[[Tensor, Tensor, Tensor], Tensor]
N_IN, N_OUT = 7, 5
ROWS = [1, 63, 64, 65, 129, 2100]
pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch is without oneDNN"
)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """All products go to oneDNN; the rows of each that did."""
    found: list[int] = []
    multiply = module._multiply

    def recorded(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found.append(len(x))
        return multiply(x, weight, bias)

    monkeypatch.setattr(module, "_MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(module, "_multiply", recorded)
    return found


@pytest.mark.parametrize("n", ROWS)
@pytest.mark.parametrize("biased", [True, False])
def test_product_is_that_of_torch(n: int, biased: bool, rows: list[int]) -> None:
    x, weight, bias = random(n, N_IN), random(N_OUT, N_IN), random(N_OUT) if biased else None
    assert torch.allclose(product(x, weight, bias), linear(x, weight, bias), atol=1e-5)
    assert rows == [n]


@pytest.mark.parametrize("n", [100, 128])  # filled up, and not
def test_product_takes_views(n: int, rows: list[int]) -> None:
    x, weight = random(2 * N_IN, n).T[:, :N_IN], random(N_IN, N_OUT).T
    assert torch.allclose(product(x, weight), x @ weight.T, atol=1e-5)
    assert rows == [n]


def test_derivatives_to_second_order_are_those_of_torch_in_double(rows: list[int]) -> None:
    x, weight, bias = random(130, N_IN), random(N_OUT, N_IN), random(N_OUT)
    found = derivatives(product, x, weight, bias)
    expected = derivatives(linear, x.double(), weight.double(), bias.double())
    for value, reference in zip(found, expected, strict=True):
        assert torch.allclose(value.double(), reference, rtol=1e-4, atol=1e-4)
    assert len(rows) > 2


def derivatives(function: Function, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    x = x.requires_grad_()
    (first,) = torch.autograd.grad(function(x, weight, bias).sin().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.cos().sum(), x)
    return [first, second]


@pytest.mark.parametrize("frozen", ["weight", "bias", "neither"])
def test_training_stays_with_torch(frozen: str, rows: list[int]) -> None:
    x, layer = random(100, N_IN), Linear(N_IN, N_OUT)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name != frozen)
    layer(x).sum().backward()
    if frozen != "weight":
        assert layer.weight.grad is not None
        assert torch.allclose(layer.weight.grad[0], x.sum(dim=0), atol=1e-5)
    if frozen != "bias":
        assert layer.bias.grad is not None
        assert torch.allclose(layer.bias.grad, torch.full((N_OUT,), 100.0))
    assert rows == []


def test_rows_beside_do_not_matter(rows: list[int]) -> None:
    x, weight = random(2100, N_IN), random(N_OUT, N_IN)
    before = x.clone()
    assert torch.equal(product(x[:1999], weight), product(x, weight)[:1999])
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("dtype", "n"), [(torch.float64, 10_000), (torch.float32, 100)], ids=["double", "small"]
)
def test_others_stay_with_torch(
    dtype: torch.dtype, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_multiply", None)
    x, weight = random(n, 30).to(dtype), random(40, 30).to(dtype)
    assert torch.equal(product(x, weight), linear(x, weight))


def test_large_products_go_to_onednn_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_multiply", lambda *_: torch.zeros(()))
    assert product(random(10_000, 30), random(40, 30)).shape == ()


def test_a_traced_product_is_left_to_the_compiler(rows: list[int]) -> None:
    inputs = random(100, N_IN), random(N_OUT, N_IN)
    traced = make_fx(lambda x, weight: product(x, weight), tracing_mode="symbolic")(*inputs)
    assert "mkldnn" not in traced.code
    assert rows == []
    assert traced(random(300, N_IN), inputs[1]).shape == (300, N_OUT)


def test_layer_has_the_weights_of_torch(rows: list[int]) -> None:
    theirs, ours = torch.nn.Linear(N_IN, N_OUT), Linear(N_IN, N_OUT)
    ours.load_state_dict(theirs.state_dict())
    x = random(100, N_IN)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert rows == [100]
