"""Step 3, fusion of structural and quantum features.

h_i^0 = LayerNorm( sigma( W_f [x_struct || x_quant] + b_f ) )

| symbol | variable | meaning |
|---|---|---|
| x_struct | structural | element embedding, (n_atoms, width) |
| x_quant | quantum | standardised T0 descriptors, (n_atoms, n_features) |
| sigma | silu | |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        self.fuse = nn.Linear(hidden // 2 + n_features, hidden)
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
