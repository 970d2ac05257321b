"""Step 4, message passing with quantum attention.

| symbol | variable | meaning |
|---|---|---|
| h_i | hidden | scalar features of atom i, (n_atoms, hidden) |
| v_i | vectors | equivariant vector channels, (n_atoms, 3 * n_vectors), axis-major |
| e_ij | radial | enveloped radial basis, (n_edges, n_radial) |
| f_c(d_ij) | fc | envelope, (n_edges, 1) |
| s_ij | logits | bounded attention logits, (n_edges, n_heads) |
| alpha_ij | attention | w_ij / (1 + sum_k w_ik), w_ij = exp(s_ij) f_c(d_ij) |
| m_i | message | [sum_j alpha_ij phi_ij h_j, sum_j f_c phi_ij h_j], (n_atoms, hidden) |

The envelope stands inside the normalisation: a neighbour's share goes to 0 smoothly at r_c. An
attention average cannot count neighbours, so half of the channels carry an enveloped plain sum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from qdgnn_ase.nn.segment import Edges

LOGIT_BOUND = 8.0
"""Attention logits are bounded to (-8, 8) by tanh: exp cannot overflow in float32."""


def attention_weights(logits: Tensor, fc: Tensor, edges: Edges) -> Tensor:
    """Normalised weights alpha_ij, (n_edges, n_heads).

    Args:
        logits: Unbounded logits s_ij, (n_edges, n_heads).
        fc: Envelope, (n_edges, 1).
        edges: Edges of the batch.
    """
    weight = torch.exp(LOGIT_BOUND * torch.tanh(logits / LOGIT_BOUND)) * fc
    total = 1.0 + edges.sum(weight)
    return weight / total.index_select(0, edges.destination)


class Interaction(nn.Module):
    """One layer: pair features -> attention and filters -> messages -> gated residual update.

    Args:
        hidden: Scalar channels, divisible by 2 * n_heads.
        n_vectors: Vector channels.
        n_radial: Radial functions.
        n_pair: Width of the pair features that make logits and filters.
        n_heads: Attention heads.
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
        neighbors: float,
        first: bool,
        last: bool,
    ) -> None:
        super().__init__()
        self.n_vectors, self.n_heads, self.last = n_vectors, n_heads, last
        self.part = hidden // 2
        self.widths = [n_heads, self.part, self.part, n_vectors] + ([] if first else [n_vectors])
        self.update_widths = [hidden, hidden] + ([] if last else [n_vectors])
        self.scale = neighbors**-0.5
        self.norm = nn.LayerNorm(hidden)
        self.pair_radial = nn.Linear(n_radial, n_pair)
        self.pair_atoms = nn.Linear(hidden, 2 * n_pair, bias=False)
        self.pair_out = nn.Linear(n_pair, sum(self.widths))
        self.values = nn.Sequential(
            nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden + n_vectors)
        )
        self.mix = nn.Linear(n_vectors, 2 * n_vectors, bias=False)
        self.update = nn.Sequential(
            nn.Linear(2 * hidden + n_vectors, 2 * hidden),
            nn.SiLU(),
            nn.Linear(2 * hidden, sum(self.update_widths)),
        )

    def forward(
        self,
        hidden: Tensor,
        vectors: Tensor | None,
        radial: Tensor,
        fc: Tensor,
        unit: Tensor,
        edges: Edges,
    ) -> tuple[Tensor, Tensor]:
        """Updated scalars (n_atoms, hidden) and vectors (n_atoms, 3 * n_vectors)."""
        x = self.norm(hidden)
        logits, averaged, summed, *vector_filters = self._pair(x, radial, edges)
        attention = attention_weights(logits, fc, edges)
        attention = attention.repeat_interleave(self.part // self.n_heads, dim=1)
        fc = fc * self.scale
        to_average, to_sum, vector_values = self.values(x).split(
            [self.part, self.part, self.n_vectors], dim=1
        )
        average = edges.sum_messages(to_average, averaged * attention)
        total = edges.sum_messages(to_sum, summed * fc)
        vectors = self._vectors(vectors, vector_values, vector_filters, fc, unit, edges)
        return self._update(hidden, torch.cat([x, average, total], dim=1), vectors)

    def _pair(self, x: Tensor, radial: Tensor, edges: Edges) -> tuple[Tensor, ...]:
        to_destination, from_source = self.pair_atoms(x).chunk(2, dim=1)
        pair = silu(
            self.pair_radial(radial)
            + to_destination.index_select(0, edges.destination)
            + from_source.index_select(0, edges.source)
        )
        # one product per part: the backward of a split would copy the wide tensor once more
        weights, biases = (
            self.pair_out.weight.split(self.widths),
            self.pair_out.bias.split(self.widths),
        )
        return tuple(linear(pair, w, b) for w, b in zip(weights, biases, strict=True))

    def _vectors(
        self,
        vectors: Tensor | None,
        values: Tensor,
        filters: list[Tensor],
        fc: Tensor,
        unit: Tensor,
        edges: Edges,
    ) -> Tensor:
        """v_i + sum_j f_c (phi_ij y_j r_ij/d_ij + phi'_ij v_j), (n_atoms, 3 * n_vectors)."""
        weight = (filters[0] * fc)[:, None, :] * unit[:, :, None]
        result = edges.sum_messages(values.repeat(1, 3), weight.flatten(1))
        if vectors is None:
            return result
        carry = (filters[1] * fc).repeat(1, 3)
        return vectors + result + edges.sum_messages(vectors, carry)

    def _update(self, hidden: Tensor, inputs: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.mix(vectors.view(-1, 3, self.n_vectors)).chunk(2, dim=2)
        invariants = (left * right).sum(dim=1)
        out = self.update(torch.cat([inputs, invariants], dim=1))
        delta, gate, *stretch = out.split(self.update_widths, dim=1)
        hidden = hidden + torch.sigmoid(gate) * delta
        if self.last:
            return hidden, vectors
        return hidden, vectors * (1.0 + stretch[0]).repeat(1, 3)
