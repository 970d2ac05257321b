"""A small random potential with forces of the order of 1 eV/Å, for tests of everything around it.

The embedded model is used only where it is itself the subject: its numbers may change.
"""

from __future__ import annotations

import pytest
import torch

from qdgnn_ase import QDGNN, QDGNNConfig

TINY = QDGNNConfig(cutoff=4.5, hidden=16, n_layers=2, n_vectors=4, n_radial=6, n_pair=8, n_heads=2)


@pytest.fixture
def model() -> QDGNN:
    """Random weights, scaled up from their smooth start; all elements count as seen."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = QDGNN(TINY, neighbors=20.0)
    with torch.no_grad():
        for layer in model.trunk.layers:
            layer.pair_radial.weight *= 0.4
            layer.pair_out.weight *= 3.0
            layer.values[2].weight *= 2.0
    model.element_energies.copy_(-torch.arange(95.0) / 10)
    model.energy_scale.fill_(500.0)
    model.counts[1:] = 1
    return model
