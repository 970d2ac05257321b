"""Step 4, message passing with quantum attention.

| symbol | variable | meaning |
|---|---|---|
| h_i | hidden | scalar features of atom i, (n_atoms, hidden) |
| v_i | vectors | equivariant vector channels, (3, n_atoms, n_vectors) |
| e_ij | radial | enveloped radial basis, (n_edges, n_radial) |
| f_c(d_ij) | fc | envelope, (n_edges, 1) |
| s_ij | logits | bounded attention logits, (n_edges, n_heads) |
| alpha_ij | attention | w_ij / (1 + sum_k w_ik), w_ij = exp(s_ij) f_c(d_ij) |
| m_i | message | [sum_j alpha_ij phi_ij h_j, sum_j f_c phi_ij h_j], (n_atoms, hidden) |

The envelope stands inside the normalisation: a neighbour's share goes to 0 smoothly at r_c. An
attention average cannot count neighbours, so half of the channels carry an enveloped plain sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from qdgnn_ase.nn.linear import Linear, product
from qdgnn_ase.nn.messages import (
    attention_average,
    pair_features,
    sum_messages,
    sum_vectors,
    widen,
)
from qdgnn_ase.nn.segment import Edges

LOGIT_BOUND = 8.0
"""Attention logits are bounded to (-8, 8) by tanh: exp cannot overflow in float32."""

INVARIANT_BOUND = 30.0
"""Products of vectors decide by how much vectors are stretched: unbounded, one odd structure's
features grow from layer to layer until training meets numbers that are not finite."""


def attention_weights(logits: Tensor, fc: Tensor, edges: Edges) -> Tensor:
    """Normalised weights alpha_ij, (n_edges, n_heads).

    Args:
        logits: Unbounded logits s_ij, (n_edges, n_heads).
        fc: Envelope, (n_edges, 1).
        edges: Edges of the batch.
    """
    # LOGIT_BOUND * tanh(s / LOGIT_BOUND) by the sigmoid, whose kernel is faster
    bounded = 2 * LOGIT_BOUND * torch.sigmoid(2 / LOGIT_BOUND * logits) - LOGIT_BOUND
    weight = torch.exp(bounded) * fc
    share = 1.0 / (1.0 + edges.sum(weight))
    return weight * share.index_select(0, edges.destination)


class Interaction(nn.Module):
    """One layer: pair features -> attention and filters -> messages -> gated residual update.

    Args:
        hidden: Scalar channels, divisible by 2 * n_heads.
        n_vectors: Vector channels.
        n_radial: Radial functions.
        n_pair: Width of the pair features that make logits and filters.
        n_heads: Attention heads.
        filters: One filter value per channel and edge, or one per head and edge.
        attends: Whether the network makes the logits of the attention; they are 0 without.
        neighbors: Constant that scales plain sums (mean number of neighbours in training).
        first: The first layer has no vectors to pass on yet.
        last: The last layer does not update vectors, nobody reads them.
    """

    def __init__(
        self,
        *,
        hidden: int,
        n_vectors: int,
        n_radial: int,
        n_pair: int,
        n_heads: int,
        filters: Literal["channel", "head"],
        attends: bool,
        neighbors: float,
        first: bool,
        last: bool,
    ) -> None:
        super().__init__()
        self.n_vectors, self.n_heads, self.last = n_vectors, n_heads, last
        self.attends = attends
        self.part = hidden // 2
        self.filtered = [self.part, self.part, n_vectors] + ([] if first else [n_vectors])
        self.narrow = filters == "head"
        self.widths = [n_heads, *(n_heads if self.narrow else width for width in self.filtered)]
        self.update_widths = [hidden, hidden] + ([] if last else [n_vectors])
        self.scale = neighbors**-0.5
        self.norm = nn.LayerNorm(hidden)
        self.pair_radial = Linear(n_radial, n_pair)
        self.pair_atoms = Linear(hidden, 2 * n_pair, bias=False)
        self.pair_out = Linear(n_pair, sum(self.widths))
        self.values = nn.Sequential(
            Linear(hidden, hidden), nn.SiLU(), Linear(hidden, hidden + n_vectors)
        )
        self.mix = nn.Linear(n_vectors, 2 * n_vectors, bias=False)
        self.update = nn.Sequential(
            Linear(2 * hidden + n_vectors, 2 * hidden),
            nn.SiLU(),
            Linear(2 * hidden, sum(self.update_widths)),
        )

    def forward(
        self,
        hidden: Tensor,
        vectors: Tensor | None,
        radial: Tensor,
        fc: Tensor,
        unit: Sequence[Tensor],
        edges: Edges,
    ) -> tuple[Tensor, Tensor]:
        """Updated scalars (n_atoms, hidden) and vectors (3, n_atoms, n_vectors).

        Args:
            hidden: (n_atoms, hidden).
            vectors: (3, n_atoms, n_vectors), or None in the first layer.
            radial: (n_edges, n_radial).
            fc: (n_edges, 1).
            unit: x, y and z of r_ij / d_ij, each (n_edges, 1): products broadcast row by row.
            edges: Edges of the batch.
        """
        x = self.norm(hidden)
        logits, *filters = self._pair(x, radial, fc, edges)
        attention = attention_weights(logits, fc, edges)
        averaged, summed, first, *others = (
            widen(part, width) for part, width in zip(filters, self.filtered, strict=True)
        )
        to_average, to_sum, vector_values = self.values(x).split(
            [self.part, self.part, self.n_vectors], dim=1
        )
        average = attention_average(to_average, averaged, attention, edges)
        total = sum_messages(to_sum, summed, edges) * self.scale
        old = () if vectors is None else vectors.unbind()
        new = torch.stack(sum_vectors(vector_values, first, unit, edges, old, others)) * self.scale
        vectors = new if vectors is None else vectors + new
        return self._update(hidden, torch.cat([x, average, total], dim=1), vectors)

    def attention(self, hidden: Tensor, radial: Tensor, fc: Tensor, edges: Edges) -> Tensor:
        """Attention weights alpha_ij of this layer, (n_edges, n_heads); arguments as `forward`."""
        logits = self._pair(self.norm(hidden), radial, fc, edges)[0]
        return attention_weights(logits, fc, edges)

    def _pair(self, x: Tensor, radial: Tensor, fc: Tensor, edges: Edges) -> tuple[Tensor, ...]:
        """Logits and filter of the attention average, then the enveloped filters f_c phi_ij."""
        to_destination, from_source = self.pair_atoms(x).chunk(2, dim=1)
        pair, enveloped = pair_features(
            self.pair_radial(radial), to_destination, from_source, fc, edges
        )
        # one product per part: the backward of a split would copy the wide tensor once more
        weights = self.pair_out.weight.split(self.widths)
        biases = self.pair_out.bias.split(self.widths)
        plain = [product(pair, w, b) for w, b in zip(weights[:2], biases[:2], strict=True)]
        if not self.attends:
            plain[0] = torch.zeros_like(plain[0])
        # f_c (W p + b) = [W, b] [f_c p, f_c]: one product with f_c in place of one per filter
        columns = torch.cat([self.pair_out.weight, self.pair_out.bias[:, None]], dim=1)
        return (*plain, *(product(enveloped, w) for w in columns.split(self.widths)[2:]))

    def _update(self, hidden: Tensor, inputs: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.mix(vectors).chunk(2, dim=2)
        products = (left * right).sum(dim=0)
        invariants = INVARIANT_BOUND * torch.tanh(products / INVARIANT_BOUND)
        out = self.update(torch.cat([inputs, invariants], dim=1))
        delta, gate, *stretch = out.split(self.update_widths, dim=1)
        hidden = hidden + torch.sigmoid(gate) * delta
        if self.last:
            return hidden, vectors
        return hidden, vectors * (1.0 + stretch[0])
