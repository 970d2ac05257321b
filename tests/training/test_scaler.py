"""Scaling of labels: inverse, supercells, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk

from qdgnn_ase.graph import collate, from_atoms
from qdgnn_ase.quantum.references import composition_matrix
from qdgnn_ase.training.scaler import Scaler

TARGETS = ("formation_energy", "band_gap", "metal_probability", "bulk_modulus")
CRYSTALS = [
    bulk("NaCl", "rocksalt", a=5.6),
    bulk("MgO", "rocksalt", a=4.2),
    bulk("KCl", "rocksalt", a=6.3),
    bulk("Cu"),
]
LABELS = np.array(
    [[-2.1, 5.0, 0, 25.0], [-3.0, 4.5, 0, 150.0], [-2.2, 5.1, 0, np.nan], [0.0, 0.0, 1, 140.0]]
)
COMPOSITION = composition_matrix([atoms.numbers for atoms in CRYSTALS])


@pytest.fixture
def scaler() -> Scaler:
    scaler = Scaler(TARGETS)
    scaler.fit(COMPOSITION, LABELS)
    return scaler


def test_inverse(scaler: Scaler) -> None:
    graph = collate([from_atoms(atoms, 4.0) for atoms in CRYSTALS])
    scaled = scaler.scaled(torch.as_tensor(LABELS, dtype=torch.float32), graph)
    back = scaler.transformed_values(scaled[:, :, None], graph)[:, :, 0].numpy()
    wanted = LABELS.copy()
    wanted[:, 3] = np.log10(wanted[:, 3])
    np.testing.assert_allclose(back, wanted, atol=1e-4)
    assert float(scaled[:, 2].min()) == 0.0  # probabilities are not scaled
    assert float(scaled[:, 2].max()) == 1.0


def test_offset_of_a_supercell_is_that_of_its_cell(scaler: Scaler) -> None:
    cells = [CRYSTALS[0], CRYSTALS[0].repeat((2, 2, 1))]
    graph = collate([from_atoms(atoms, 4.0) for atoms in cells])
    one, two = scaler.transformed_values(torch.zeros(2, 4, 1), graph)
    torch.testing.assert_close(one, two)


def test_composition_explains_part_of_a_mean_over_atoms(scaler: Scaler) -> None:
    spread = np.abs(LABELS[:, 0] - LABELS[:, 0].mean()).mean()
    assert float(scaler.width[0]) < 0.1 * spread
    assert float(scaler.elements[1].abs().max()) == 0.0


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        (3, 0.0, "bulk_modulus must be larger than 0 GPa"),
        (3, -1.3, "is the column a logarithm already"),
        (2, 0.5, "labels of metal_probability must be 0 or 1"),
        (1, -0.1, r"band_gap must be at least 0.0 eV, got -0\.1"),
    ],
)
def test_impossible_labels(column: int, value: float, match: str) -> None:
    labels = LABELS.copy()
    labels[1, column] = value
    with pytest.raises(ValueError, match=match):
        Scaler(TARGETS).fit(COMPOSITION, labels)


def test_target_without_labels() -> None:
    labels = LABELS.copy()
    labels[:, 1] = np.nan
    with pytest.raises(ValueError, match="at least one label of band_gap"):
        Scaler(TARGETS).fit(COMPOSITION, labels)


def test_calibration_brings_the_spread_to_the_size_of_the_errors(scaler: Scaler) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, 4, generator=generator)
    sigma = 0.5
    center = truth + sigma * torch.randn(4000, 4, generator=generator)
    noise = torch.randn(4000, 4, 8, generator=generator)
    noise = (noise - noise.mean(dim=2, keepdim=True)) / noise.std(dim=2, keepdim=True)
    scaler.calibrate(center[:, :, None] + 0.1 * noise, truth)
    for k in (0, 1, 3):
        assert 0.1 * float(scaler.calibration[k]) == pytest.approx(sigma, rel=0.05)
    assert float(scaler.calibration[2]) == 1.0


def test_predictions_are_in_the_units_of_the_properties(scaler: Scaler) -> None:
    graph = collate([from_atoms(atoms, 4.0) for atoms in CRYSTALS])
    wanted = np.nan_to_num(LABELS, nan=100.0)
    scaled = scaler.scaled(torch.as_tensor(wanted, dtype=torch.float32), graph)
    spread = torch.tensor([-1.0, 0.0, 1.0]) * 0.1
    scaler.calibration.fill_(3.0)
    value, std = scaler.predictions(scaled[:, :, None] + spread, graph)
    for k in (0, 1, 3):
        np.testing.assert_allclose(value[:, k], wanted[:, k], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(std[:, 1], 0.3 * float(scaler.width[1]), rtol=1e-4)
    tenth = 0.3 * float(scaler.width[3]) * np.log(10) * wanted[:, 3]
    np.testing.assert_allclose(std[:, 3], tenth, rtol=1e-3)
    shares = torch.sigmoid(scaled[:, 2, None] + spread).double()
    np.testing.assert_allclose(value[:, 2], shares.mean(dim=1), rtol=1e-6)
    np.testing.assert_allclose(std[:, 2], shares.std(dim=1), rtol=1e-5)  # not calibrated
    assert float(scaler.predictions(scaled[:, :, None] - 1e3 + spread, graph)[0][:, 1].max()) == 0.0
