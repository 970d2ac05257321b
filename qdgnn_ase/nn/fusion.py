"""Step 3, fusion of structural and quantum features, and of a structure with its conditions.

h_i^0 = LayerNorm( sigma( W_f [x_struct || x_quant] + b_f ) )

| symbol | variable | meaning |
|---|---|---|
| x_struct | structural | element embedding, (n_atoms, width) |
| x_quant | quantum | standardised T0 descriptors, (n_atoms, n_features) |
| sigma | silu | |

Conditions (temperature, pressure ...), every one embedded to the width of the graph vector z and
left out where it is absent, c = W_c sum_k m_k sigma(a_k y_k + b_k):

z_final = sigma(W [z || c] + b)                                         concatenation
z_gated = g z + (1 - g) c,  g = sigmoid(W_g [z || c] + b_g)             gate
z_bil   = z^T W_b c, as (U z) (V c), product by element, of full rank   bilinear
fused   = sigma(W_f [z_final; z_gated; z_bil] + b_f)

The factorised bilinear form is that of Kim et al., Hadamard product for low-rank bilinear pooling,
ICLR 2017; W_f holds its third factor.

| symbol | variable | meaning |
|---|---|---|
| z | structure | mean features of the atoms, (n_graphs, hidden) |
| y_k | conditions | standardised conditions, (n_graphs, n_conditions) |
| m_k | present | 0 where a condition is absent |
| c | embedded | (n_graphs, hidden) |
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from qdgnn_ase.nn.linear import Linear

Term = Literal["concatenation", "gate", "bilinear"]
TERMS: tuple[Term, ...] = ("concatenation", "gate", "bilinear")


class Fusion(nn.Module):
    """Element embedding and quantum descriptors -> initial scalar features.

    Args:
        n_features: Quantum descriptors per atom; 0 leaves the quantum half out.
        hidden: Width of the result.
        n_elements: Rows of the embedding, largest atomic number + 1.
    """

    def __init__(self, n_features: int, hidden: int, n_elements: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_elements, hidden // 2)
        self.fuse = Linear(hidden // 2 + n_features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, numbers: Tensor, quantum: Tensor, fractions: Tensor | None = None) -> Tensor:
        """Initial features (n_atoms, hidden).

        Args:
            numbers: (n_atoms,) int64, atomic numbers.
            quantum: (n_atoms, n_features).
            fractions: (n_atoms, n_elements - 1) of shared sites: x_struct is the mean of its
                elements' embeddings.
        """
        table = self.embedding
        structural = table(numbers) if fractions is None else fractions @ table.weight[1:]
        x = torch.cat([structural, quantum], dim=1)
        hidden: Tensor = self.norm(nn.functional.silu(self.fuse(x)))
        return hidden


class ConditionFusion(nn.Module):
    """Graph vector and conditions -> graph vector.

    Buffers that training sets, (n_conditions,) each: ``mean`` and ``width`` to standardise with,
    ``lowest`` and ``highest`` value, ``absent``, 1 where it was absent in a structure.

    Args:
        n_conditions: Scalars per structure.
        hidden: Width of the graph vector.
        terms: Which terms to fuse, of `TERMS`.
    """

    mean: Tensor
    width: Tensor
    lowest: Tensor
    highest: Tensor
    absent: Tensor

    def __init__(self, n_conditions: int, hidden: int, terms: tuple[Term, ...] = TERMS) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(n_conditions, hidden))
        self.shift = nn.Parameter(torch.randn(n_conditions, hidden))
        self.embed = nn.Linear(hidden, hidden, bias=False)
        self.concatenation = nn.Linear(2 * hidden, hidden) if "concatenation" in terms else None
        self.gate = nn.Linear(2 * hidden, hidden) if "gate" in terms else None
        self.bilinear = (
            nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(2))
            if "bilinear" in terms
            else None
        )
        self.fuse = nn.Linear(len(terms) * hidden, hidden)
        for name, value in {"mean": 0, "width": 1, "lowest": 0, "highest": 0, "absent": 1}.items():
            self.register_buffer(name, torch.full((n_conditions,), float(value)))

    def set_range(self, conditions: Tensor) -> None:
        """Take mean, width and range from conditions (n_structures, n_conditions), NaN = absent.

        Raises:
            ValueError: If a condition is absent everywhere.
        """
        for k, column in enumerate(conditions.double().unbind(1)):
            known = column[torch.isfinite(column)]
            if not len(known):
                raise ValueError(f"condition {k} must be known of at least one training structure")
            self.mean[k] = known.mean()
            self.width[k] = known.std(correction=0) if known.max() > known.min() else 1.0
            self.lowest[k], self.highest[k] = known.min(), known.max()
            self.absent[k] = float(len(known) < len(column))

    def in_range(self, conditions: Tensor) -> Tensor:
        """Whether all are between those of training, or absent as some there; (n_graphs,) bool."""
        slack = 1e-6 * (self.highest.abs() + self.lowest.abs())
        inside = (conditions >= self.lowest - slack) & (conditions <= self.highest + slack)
        missing = ~torch.isfinite(conditions) & (self.absent > 0)
        return (inside | missing).all(dim=1)

    def forward(self, structure: Tensor, conditions: Tensor) -> Tensor:
        """(n_graphs, hidden) and (n_graphs, n_conditions), NaN = absent -> (n_graphs, hidden)."""
        embedded = self._embedded(conditions)
        both = torch.cat([structure, embedded], dim=1)
        parts = []
        if self.concatenation is not None:
            parts.append(nn.functional.silu(self.concatenation(both)))
        if self.gate is not None:
            gate = torch.sigmoid(self.gate(both))
            parts.append(gate * structure + (1 - gate) * embedded)
        if self.bilinear is not None:
            left, right = self.bilinear
            parts.append(left(structure) * right(embedded))
        fused: Tensor = nn.functional.silu(self.fuse(torch.cat(parts, dim=1)))
        return fused

    def _embedded(self, conditions: Tensor) -> Tensor:
        present = torch.isfinite(conditions)
        values = torch.where(present, conditions, self.mean.to(conditions.dtype))
        scaled = ((values - self.mean) / self.width)[:, :, None]
        each = nn.functional.silu(scaled * self.scale + self.shift) * present[:, :, None]
        embedded: Tensor = self.embed(each.sum(dim=1))
        return embedded
