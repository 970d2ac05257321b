"""A small architecture and the frames it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from qdgnn_ase.data.dataset import Sample, make_samples
from qdgnn_ase.data.io import read_structures
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.training.config import TrainConfig

FRAMES = Path(__file__).parents[1] / "data_files" / "alloys_emt.extxyz"
SMALL = QDGNNConfig(hidden=16, n_layers=1, n_vectors=4, n_radial=5, n_pair=8, n_heads=2)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return make_samples(read_structures(FRAMES)[:24], SMALL.cutoff)


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig(files=(str(FRAMES),), model=SMALL)
