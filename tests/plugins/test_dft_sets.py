"""Other DFT sets are put on a model's scale: what is known to be wrong is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.units import GPa
from click.testing import CliRunner

from qdgnn_ase import QDGNNCalculator, labels, read_structures
from qdgnn_bench.dft_sets import labelled, main, on_scale, stress_from_kbar

FOLDER = Path(__file__).parents[1] / "data_files"
ALLOYS, CHECKPOINT = FOLDER / "alloys_emt.extxyz", FOLDER / "checkpoint_format1.safetensors"
SHIFT = {"Al": -3.0, "Ni": 0.5, "Cu": 2.0, "Pd": 1.5, "Ag": -0.25, "Pt": 4.0, "Au": 0.75}
KBAR = -10 / GPa


def exact(frames: list[Atoms]) -> list[dict[str, Any]]:
    """Predictions of a model that knows the labels."""
    return [{k: atoms.calc.results[k] for k in ("energy", "forces", "stress")} for atoms in frames]


def with_energies(frames: list[Atoms], extra: list[float]) -> list[Atoms]:
    return [
        labelled(a, a.get_potential_energy() + e, a.get_forces(), a.get_stress())
        for a, e in zip(frames, extra, strict=True)
    ]


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    return read_structures(ALLOYS)


def test_shift_per_element_is_taken_off(frames: list[Atoms]) -> None:
    extra = [sum(SHIFT[symbol] for symbol in atoms.symbols) for atoms in frames]
    moved, figures = on_scale(with_energies(frames, extra), exact(frames))
    present = {symbol for atoms in frames for symbol in atoms.symbols}
    assert figures["shift_ev"].keys() == present
    for symbol, shift in figures["shift_ev"].items():
        assert shift == pytest.approx(SHIFT[symbol], abs=1e-3)
    assert figures["energies_kept"]
    for old, new in zip(frames, moved, strict=True):
        wanted, got = labels(old), labels(new)
        assert got["energy"] == pytest.approx(wanted["energy"], abs=0.01)
        np.testing.assert_array_equal(got["forces"], wanted["forces"])
        np.testing.assert_allclose(got["stress"], wanted["stress"])


@pytest.mark.parametrize(("sigma", "kept"), [(0.03, True), (0.3, False)])
def test_energies_that_are_no_shift_are_dropped(
    frames: list[Atoms], sigma: float, kept: bool
) -> None:
    noise = np.random.default_rng(0).normal(0, sigma, len(frames))
    extra = [float(x) * len(atoms) for x, atoms in zip(noise, frames, strict=True)]
    moved, figures = on_scale(with_energies(frames, extra), exact(frames))
    assert figures["energies_kept"] is kept
    for atoms in moved:
        assert np.isfinite(labels(atoms)["energy"]) == kept
        assert np.isfinite(labels(atoms)["forces"]).all()
        assert np.isfinite(labels(atoms)["stress"]).all()


def test_wrong_sign_is_noticed(frames: list[Atoms]) -> None:
    wrong = [labelled(a, a.get_potential_energy(), a.get_forces(), -a.get_stress()) for a in frames]
    with pytest.raises(ValueError, match="tension positive"):
        on_scale(wrong, exact(frames))


@pytest.mark.parametrize(
    ("columns", "names"),
    [([5, 3, 4], ["xy", "yz", "xz"]), ([5, 4, 3], ["xy", "xz", "yz"]), ([3, 4, 5], None)],
)
def test_shear_order_is_found(
    frames: list[Atoms], columns: list[int], names: list[str] | None
) -> None:
    stress = np.array([atoms.get_stress() for atoms in frames])
    kbar = KBAR * stress[:, [0, 1, 2, *columns]]
    found, order = stress_from_kbar(kbar, 0.7 * stress + 0.002)
    assert order == (names or ["yz", "xz", "xy"])
    np.testing.assert_allclose(found, stress)


def test_shear_order_that_cannot_be_told_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="one shear order"):
        stress_from_kbar(rng.normal(size=(50, 6)), rng.normal(size=(50, 6)))


def test_no_shear_at_all_is_refused() -> None:
    diagonal = np.random.default_rng(0).normal(size=(50, 6)) * [1, 1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="one shear order"):
        stress_from_kbar(diagonal, -diagonal)


@pytest.mark.filterwarnings("ignore::qdgnn_ase.ExtrapolationWarning")
def test_command(frames: list[Atoms], tmp_path: Path) -> None:
    """A file labelled by the model itself, in VASP's stress: comes out as the model gives it."""
    calculator = QDGNNCalculator(CHECKPOINT)
    raw = []
    for atoms, row in zip(frames, calculator.predict_batch(frames), strict=True):
        bare = labelled(atoms, row["energy"], row["forces"], np.full(6, np.nan))
        bare.info["kbar"] = KBAR * row["stress"][[0, 1, 2, 5, 3, 4]]
        raw.append(bare)
    ase.io.write(tmp_path / "raw.extxyz", raw)
    output = tmp_path / "new" / "set.extxyz"
    arguments = [CHECKPOINT, output, tmp_path / "raw.extxyz", "--kbar-key", "kbar", "--limit", "40"]
    result = CliRunner().invoke(main, [str(x) for x in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "new" / "set.extxyz.json").read_text())
    assert report["files"][0]["shear_order"] == ["xy", "yz", "xz"]
    assert report["frames"] == 40 == sum(report["folds"].values())
    assert report["stress"]["correlation"] > 0.999
    assert report["energy_residual_mae"] < 1e-3
    assert str(tmp_path) not in result.output
    written = read_structures(output)
    assert len(written) == 40
    for atoms, row in zip(written, calculator.predict_batch(written), strict=True):
        np.testing.assert_allclose(atoms.get_stress(), row["stress"], atol=1e-5)
