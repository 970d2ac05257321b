"""A small potential for the commands."""

from __future__ import annotations

import pytest
import torch

from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.trunk import QDGNNConfig

TINY = QDGNNConfig(cutoff=4.0, hidden=8, n_layers=1, n_vectors=2, n_radial=4, n_pair=4, n_heads=2)


@pytest.fixture(scope="session")
def small_potential() -> QDGNN:
    """Random weights, all elements in training, no pair closer than 1.5 Å."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = QDGNN(TINY, neighbors=20.0)
    network.energy_scale.fill_(50.0)
    network.counts[1:] = 1
    network.shortest.fill_(1.5)
    return network
