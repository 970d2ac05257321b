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
from torch.nn.functional import silu

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
        self.n_vectors, self.n_heads, self.first, self.last = n_vectors, n_heads, first, last
        self.half = hidden // 2
        self.scale = neighbors**-0.5
        self.norm = nn.LayerNorm(hidden)
        self.pair_radial = nn.Linear(n_radial, n_pair)
        self.pair_atoms = nn.Linear(hidden, 2 * n_pair, bias=False)
        n_filters = hidden + n_vectors * (1 if first else 2)
        self.pair_out = nn.Linear(n_pair, n_heads + n_filters)
        self.values = nn.Sequential(
            nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden + n_vectors)
        )
        self.mix = nn.Linear(n_vectors, 2 * n_vectors, bias=False)
        self.update = nn.Sequential(
            nn.Linear(2 * hidden + n_vectors, 2 * hidden),
            nn.SiLU(),
            nn.Linear(2 * hidden, 2 * hidden + (0 if last else n_vectors)),
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
        logits, scalar_filter, *vector_filters = self._pair(x, radial, edges)
        attention = attention_weights(logits, fc, edges)
        scalar_filter = torch.cat(
            [
                scalar_filter[:, : self.half]
                * attention.repeat_interleave(self.half // self.n_heads, dim=1),
                scalar_filter[:, self.half :] * (fc * self.scale),
            ],
            dim=1,
        )
        values, vector_values = self.values(x).split([2 * self.half, self.n_vectors], dim=1)
        message = edges.sum_messages(values, scalar_filter)
        vectors = self._vectors(vectors, vector_values, vector_filters, fc, unit, edges)
        return self._update(hidden, x, message, vectors)

    def _pair(self, x: Tensor, radial: Tensor, edges: Edges) -> tuple[Tensor, ...]:
        to_destination, from_source = self.pair_atoms(x).chunk(2, dim=1)
        pair = silu(
            self.pair_radial(radial)
            + to_destination.index_select(0, edges.destination)
            + from_source.index_select(0, edges.source)
        )
        widths = [self.n_heads, 2 * self.half] + [self.n_vectors] * (1 if self.first else 2)
        return self.pair_out(pair).split(widths, dim=1)

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
        weight = filters[0] * (fc * self.scale)
        weights = torch.cat([weight * unit[:, axis : axis + 1] for axis in range(3)], dim=1)
        result = edges.sum_messages(values.repeat(1, 3), weights)
        if vectors is None:
            return result
        carry = (filters[1] * (fc * self.scale)).repeat(1, 3)
        return vectors + result + edges.sum_messages(vectors, carry)

    def _update(
        self, hidden: Tensor, x: Tensor, message: Tensor, vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        left, right = self.mix(vectors.view(-1, 3, self.n_vectors)).chunk(2, dim=2)
        invariants = (left * right).sum(dim=1)
        out = self.update(torch.cat([x, message, invariants], dim=1))
        delta, gate = out[:, : 2 * self.half], out[:, 2 * self.half : 4 * self.half]
        hidden = hidden + torch.sigmoid(gate) * delta
        if self.last:
            return hidden, vectors
        return hidden, vectors * (1.0 + out[:, 4 * self.half :]).repeat(1, 3)
