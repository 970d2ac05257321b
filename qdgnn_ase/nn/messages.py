"""What a layer makes on the edges and sums over them, without keeping what can be made again.

Every function has a plain form, which defines it: torch operations on tensors of the edges. On a
CPU a step waits for the memory behind those tensors, more than for arithmetic. So calls that are
not traced take another form, with the same numbers: products are made in place, the inputs alone
are kept, and the derivatives make the products again. A compiler fuses by itself and gets the
plain form, as second derivatives do.

| symbol | variable | meaning |
|---|---|---|
| x_j | values | features of the source, (n_atoms, width) |
| phi_ij | filters | (n_edges, width) |
| alpha_ij | attention | (n_edges, n_heads) |
| f_c | fc | envelope, (n_edges, 1) |
| u_ij | unit | x, y and z of r_ij / d_ij, each (n_edges, 1): products broadcast row by row |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from qdgnn_ase.nn.segment import Edges

Tensors = tuple[Tensor, ...]


def pair_features(
    radial: Tensor, to_destination: Tensor, from_source: Tensor, fc: Tensor, edges: Edges
) -> Tensors:
    """p_ij = silu(e_ij + a_i + b_j), (n_edges, n), and [f_c p_ij, f_c], (n_edges, n + 1).

    Args:
        radial: e, (n_edges, n).
        to_destination: a, (n_atoms, n).
        from_source: b, (n_atoms, n).
        fc: (n_edges, 1).
        edges: Edges of the batch.
    """
    return _run(_PAIR, edges, radial, to_destination, from_source, fc)


def sum_messages(values: Tensor, filters: Tensor, edges: Edges) -> Tensor:
    """sum_j phi_ij x_j, (n_atoms, width)."""
    return _run(_MESSAGES, edges, values, filters)[0]


def attention_average(values: Tensor, filters: Tensor, attention: Tensor, edges: Edges) -> Tensor:
    """sum_j alpha_ij phi_ij x_j, (n_atoms, width); alpha of a head for width / n_heads columns."""
    return _run(_AVERAGE, edges, values, filters, attention)[0]


def sum_vectors(
    values: Tensor,
    filters: Tensor,
    unit: Sequence[Tensor],
    edges: Edges,
    vectors: Sequence[Tensor] = (),
    vector_filters: Sequence[Tensor] = (),
) -> Tensors:
    """x, y and z of sum_j (phi_ij x_j u_ij + phi'_ij v_j), each (n_atoms, width).

    Args:
        values: x, (n_atoms, width).
        filters: phi, (n_edges, width).
        unit: u, three times (n_edges, 1).
        edges: Edges of the batch.
        vectors: v, three times (n_atoms, width), or none.
        vector_filters: phi', (n_edges, width), one if there are vectors.
    """
    return _run(_VECTORS, edges, values, filters, *unit, *vectors, *vector_filters)


def widen(values: Tensor, width: int) -> Tensor:
    """(n_edges, n) -> (n_edges, width), each column repeated width / n times in a row."""
    n = values.shape[1]
    # 2.5 times as fast as a repeat
    return values if n == width else values @ _columns(n, width, values)


@dataclass(frozen=True)
class _Form:
    """Plain form, the one in place, and its derivatives from those of its results."""

    plain: Callable[..., Tensors]
    in_place: Callable[..., Tensors]
    derivatives: Callable[..., Tensors]


def _run(form: _Form, edges: Edges, *inputs: Tensor) -> Tensors:
    if not edges.plain:
        return form.plain(edges, *inputs)
    results: Tensors = _InPlace.apply(form, edges, *inputs)
    return results


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: _Form, edges: Edges, *inputs: Tensor) -> Tensors:
        ctx.form, ctx.edges = form, edges
        ctx.save_for_backward(*inputs)
        return form.in_place(edges, *inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        inputs = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return (None, None, *ctx.form.derivatives(ctx.edges, gradients, *inputs))
        inputs = [x.view_as(x) for x in inputs]  # one may be made of another: partial derivatives
        needed = ctx.needs_input_grad[2:]
        found = iter(
            torch.autograd.grad(
                ctx.form.plain(ctx.edges, *inputs),
                [x for x, need in zip(inputs, needed, strict=True) if need],
                gradients,
                create_graph=True,
            )
        )
        return (None, None, *(next(found) if need else None for need in needed))


def _pair(edges: Edges, radial: Tensor, first: Tensor, second: Tensor, fc: Tensor) -> Tensors:
    pair = silu(radial + edges.reversed.gather(first) + edges.gather(second))
    return pair, torch.cat([pair * fc, fc], dim=1)


def _pair_in_place(
    edges: Edges, radial: Tensor, first: Tensor, second: Tensor, fc: Tensor
) -> Tensors:
    pair = silu(_before(edges, radial, first, second), inplace=True)
    return pair, torch.cat([pair * fc, fc], dim=1)


def _pair_derivatives(
    edges: Edges, gradients: Tensors, radial: Tensor, first: Tensor, second: Tensor, fc: Tensor
) -> Tensors:
    of_pair, of_both = gradients
    before = _before(edges, radial, first, second)
    of_fc = (silu(before) * of_both[:, :-1]).sum(dim=1, keepdim=True).add_(of_both[:, -1:])
    slope = torch.addcmul(of_pair, of_both[:, :-1], fc)
    slope = torch.ops.aten.silu_backward(slope, before)
    return slope, edges.sum(slope), edges.reversed.sum(slope), of_fc


def _before(edges: Edges, radial: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return edges.reversed.gather(first).add_(edges.gather(second)).add_(radial)


def _messages(edges: Edges, values: Tensor, filters: Tensor) -> Tensors:
    return (edges.sum(edges.gather(values) * filters),)


def _messages_in_place(edges: Edges, values: Tensor, filters: Tensor) -> Tensors:
    return (edges.sum_products(values, filters),)


def _messages_derivatives(
    edges: Edges, gradients: Tensors, values: Tensor, filters: Tensor
) -> Tensors:
    gradient = edges.reversed.gather(gradients[0])
    of_filters = edges.gather(values).mul_(gradient)
    return edges.reversed.sum(gradient.mul_(filters)), of_filters


def _average(edges: Edges, values: Tensor, filters: Tensor, attention: Tensor) -> Tensors:
    shares = filters * widen(attention, filters.shape[1])
    return (edges.sum(edges.gather(values) * shares),)


def _average_in_place(edges: Edges, values: Tensor, filters: Tensor, attention: Tensor) -> Tensors:
    shares = widen(attention, filters.shape[1]) * filters
    return (edges.sum_products(values, shares),)


def _average_derivatives(
    edges: Edges, gradients: Tensors, values: Tensor, filters: Tensor, attention: Tensor
) -> Tensors:
    n, width = attention.shape[1], filters.shape[1]
    gradient = edges.reversed.gather(gradients[0])
    shares = widen(attention, width)
    of_shares = edges.gather(values).mul_(gradient)
    of_values = edges.reversed.sum(gradient.mul_(filters).mul_(shares))
    of_filters = of_shares * shares
    of_attention = of_shares.mul_(filters)
    if n < width:  # the narrow product by way of its transpose: a third of the time
        of_attention = (_columns(n, width, filters) @ of_attention.T).T
    return of_values, of_filters, of_attention


def _vectors(edges: Edges, values: Tensor, filters: Tensor, *unit_and_vectors: Tensor) -> Tensors:
    unit, vectors, vector_filters = _three(unit_and_vectors)
    messages = edges.gather(values) * filters
    along = [messages * component for component in unit]
    for k, vector in enumerate(vectors):
        along[k] = torch.addcmul(along[k], edges.gather(vector), vector_filters[0])
    return tuple(edges.sum(product) for product in along)


def _vectors_in_place(
    edges: Edges, values: Tensor, filters: Tensor, *unit_and_vectors: Tensor
) -> Tensors:
    unit, vectors, vector_filters = _three(unit_and_vectors)
    messages = edges.gather(values).mul_(filters)
    if not vectors:
        return tuple(edges.sum(messages * component) for component in unit)
    return tuple(
        edges.sum(edges.gather(vector).mul_(vector_filters[0]).addcmul_(messages, component))
        for vector, component in zip(vectors, unit, strict=True)
    )


def _vectors_derivatives(
    edges: Edges, gradients: Tensors, values: Tensor, filters: Tensor, *unit_and_vectors: Tensor
) -> Tensors:
    unit, vectors, vector_filters = _three(unit_and_vectors)
    gathered = edges.gather(values)
    messages = gathered * filters
    of_messages = torch.zeros_like(messages)
    of_vector_filters = [torch.zeros_like(messages) for _ in vector_filters]
    of_unit, of_vectors = [], []
    for k, component in enumerate(unit):
        gradient = edges.reversed.gather(gradients[k])
        of_messages.addcmul_(gradient, component)
        of_unit.append((gradient * messages).sum(dim=1, keepdim=True))
        if vectors:
            of_vector_filters[0].addcmul_(gradient, edges.gather(vectors[k]))
            of_vectors.append(edges.reversed.sum(gradient.mul_(vector_filters[0])))
    of_filters = gathered.mul_(of_messages)
    of_values = edges.reversed.sum(of_messages.mul_(filters))
    return of_values, of_filters, *of_unit, *of_vectors, *of_vector_filters


def _three(tensors: Tensors) -> tuple[Tensors, Tensors, Tensors]:
    """Components of the unit vectors, those of the vectors, and the vectors' filters."""
    return tensors[:3], tensors[3:6], tensors[6:]


_PAIR = _Form(_pair, _pair_in_place, _pair_derivatives)
_MESSAGES = _Form(_messages, _messages_in_place, _messages_derivatives)
_AVERAGE = _Form(_average, _average_in_place, _average_derivatives)
_VECTORS = _Form(_vectors, _vectors_in_place, _vectors_derivatives)


def _columns(n: int, width: int, like: Tensor) -> Tensor:
    """Unit matrix with each column repeated, (n, width)."""
    make = _kept_columns if type(like) is Tensor else _new_columns  # a traced one must not be kept
    return make(n, width, like.dtype, like.device)


def _new_columns(n: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.eye(n, dtype=dtype, device=device).repeat_interleave(width // n, dim=1)


@cache
def _kept_columns(*arguments: Any) -> Tensor:
    with torch.inference_mode(False):  # or no derivative could be taken later
        return _new_columns(*arguments)
