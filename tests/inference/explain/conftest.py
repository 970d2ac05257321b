"""Explainers on small random models; the embedded ones only where they are the subject."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qdgnn_ase import QDGNN, Explainer, MaskConfig, QDGNNConfig
from qdgnn_ase.nn.property_model import PropertyConfig, PropertyModel
from qdgnn_ase.training.checkpoint import save_property_model
from qdgnn_ase.training.scaler import Scaler

TARGETS = ("formation_energy", "band_gap", "metal_probability", "bulk_modulus")
TRUNK = QDGNNConfig(
    cutoff=4.5,
    hidden=16,
    n_layers=2,
    n_vectors=4,
    n_radial=6,
    n_pair=8,
    n_heads=2,
    quantum="t0_moments",
)


@pytest.fixture(scope="session")
def property_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a random property model that has seen all elements."""
    path = tmp_path_factory.mktemp("explain") / "random.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PropertyModel(PropertyConfig(targets=TARGETS, trunk=TRUNK, n_members=3))
    model.counts[1:] = 1
    model.limit.fill_(torch.inf)
    scaler = Scaler(TARGETS)
    scaler.mean[3] = 2.0
    train_config = {"val": 0.2, "test": 0.4, "split_seed": 0}
    save_property_model(path, model, scaler, {"train_config": train_config})
    return path


@pytest.fixture
def potential() -> QDGNN:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = QDGNN(TRUNK, neighbors=20.0)
    model.element_energies.copy_(-torch.arange(95.0) / 10)
    model.energy_scale.fill_(20.0)
    model.counts[1:] = 1
    return model


@pytest.fixture(params=["energy", "band_gap"])
def explainer(request: pytest.FixtureRequest, potential: QDGNN, property_file: Path) -> Explainer:
    """An extensive and an intensive prediction."""
    model = potential if request.param == "energy" else property_file
    return Explainer(request.param, model, mask=MaskConfig(steps=15))
