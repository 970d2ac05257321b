"""Diffusion: random walks of known D, a line of known energy, and a short run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from click.testing import CliRunner

import qdgnn_bench.diffusion as module
from qdgnn_ase import reduced_formula
from qdgnn_bench.argyrodite import argyrodite
from qdgnn_bench.diffusion import (
    arrhenius,
    conductivity,
    diffusion,
    diffusivity,
    load_calculator,
    markdown,
    mean_square_displacement,
    trajectory,
)

FRAME_PS = 0.02
CM2_S = 1e-4  # Å^2/ps


def walk(d: float, n_frames: int, n_atoms: int, seed: int = 0) -> np.ndarray:
    """Brownian motion with self-diffusivity ``d`` in Å^2/ps, (n_frames, n_atoms, 3)."""
    steps = np.random.default_rng(seed).normal(size=(n_frames, n_atoms, 3))
    return np.cumsum(steps * (2 * d * FRAME_PS) ** 0.5, axis=0)


def test_cell_has_the_bonds_of_the_published_one() -> None:
    atoms = argyrodite()
    assert reduced_formula(atoms) == "Li6PS5Cl"
    assert len(atoms) == 52
    i, j, length = neighbor_list("ijd", atoms, 2.75)
    assert length.min() == pytest.approx(2.046, abs=1e-3)  # P-S of PS4
    assert set(zip(*(atoms.symbols[k] for k in (i, j)), strict=True)) >= {("P", "S"), ("Li", "S")}
    for k in atoms.symbols.indices()["P"]:
        assert (i == k).sum() == 4
    for k in atoms.symbols.indices()["Li"]:
        neighbors = [str(atoms.symbols[n]) for n in j[i == k]]
        assert set(neighbors) <= {"S", "Cl"}
        assert len(neighbors) >= 3


def test_mean_square_displacement_by_hand() -> None:
    straight = np.zeros((6, 2, 3))
    straight[:, 1, 0] = 2.0 * np.arange(6)
    curve = mean_square_displacement(straight)
    assert np.allclose(curve[0], 0)
    assert np.allclose(curve[1], (2.0 * np.arange(6)) ** 2)


def test_diffusivity_of_a_random_walk() -> None:
    row = diffusivity(walk(0.5, 600, 200), FRAME_PS)
    assert row["diffusivity"] == pytest.approx(0.5 * CM2_S, rel=0.08)
    assert row["msd"][-1] == pytest.approx(6 * 0.5 * row["lag_ps"][-1], rel=0.1)


def test_standard_error_is_the_spread_of_many_runs() -> None:
    rows = [diffusivity(walk(0.5, 300, 20, seed), FRAME_PS) for seed in range(40)]
    values = np.array([row["diffusivity"] for row in rows])
    errors = np.array([row["standard_error"] for row in rows])
    assert errors.mean() == pytest.approx(values.std(), rel=0.25)
    pulls = abs(values - 0.5 * CM2_S) / errors
    assert (pulls < 2).mean() > 0.8


def test_rattling_is_no_diffusion() -> None:
    """Negative control: atoms that stay in their cage."""
    cage = 0.3 * np.random.default_rng(0).normal(size=(1_000, 20, 3))
    row = diffusivity(cage, FRAME_PS)
    assert abs(row["diffusivity"]) < 3e-8
    assert row["msd"][-1] == pytest.approx(6 * 0.09, rel=0.05)


def test_too_short_a_run() -> None:
    with pytest.raises(ValueError, match="at least 30 frames, got 29"):
        diffusivity(walk(0.5, 29, 4), FRAME_PS)


class Free(Calculator):
    """No forces at all."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}


def test_drift_of_the_centre_of_mass_is_removed() -> None:
    atoms = Atoms("Li4", 2.0 * np.eye(4, 3), cell=[8, 8, 8], pbc=True, calculator=Free())
    atoms.set_velocities(np.full((4, 3), 0.1))
    positions = trajectory(atoms, 300.0, 0.5, 2.0)
    assert positions.shape == (26, 4, 3)
    assert abs(atoms.get_center_of_mass()).max() > 1
    assert abs(positions - positions[0]).max() < 1e-9


def points(ea: float, d0: float, relative: float) -> list[dict[str, float]]:
    temperatures = (600.0, 800.0, 1000.0)
    values = [d0 * np.exp(-ea / (units.kB * t)) for t in temperatures]
    return [
        {"temperature": t, "diffusivity": d, "standard_error": relative * d}
        for t, d in zip(temperatures, values, strict=True)
    ]


def test_arrhenius_line_of_known_energy() -> None:
    fit = arrhenius(points(0.25, 1e-3, 0.1))
    assert fit["activation_energy"] == pytest.approx(0.25)
    assert fit["diffusivity"] == pytest.approx(1e-3 * np.exp(-0.25 / (units.kB * 300)))
    inverse = 1 / (units.kB * np.array([600.0, 800.0, 1000.0]))
    expected = 0.1 / ((inverse - inverse.mean()) ** 2).sum() ** 0.5  # least squares, equal errors
    assert fit["activation_error"] == pytest.approx(expected, rel=0.05)
    low, high = fit["interval"]
    assert low < fit["diffusivity"] < high


def test_points_without_diffusion_are_left_out() -> None:
    rows = points(0.25, 1e-3, 0.1)
    rows[0] |= {"diffusivity": -1e-8, "standard_error": 1e-7}
    fit = arrhenius(rows)
    assert fit["points"] == 2
    assert fit["activation_energy"] == pytest.approx(0.25)
    rows[1] |= {"diffusivity": 0.0, "standard_error": 1e-7}
    assert arrhenius(rows)["activation_energy"] is None


def test_nernst_einstein() -> None:
    """1e22 carriers per cm^3 with 1e-8 cm^2/s at 300 K."""
    wanted = 1e22 * 1.602176634e-19**2 * 1e-8 / (1.380649e-23 * 300) * 1e3
    assert conductivity(1e-8, 300.0, 10, 1_000.0) == pytest.approx(wanted, rel=1e-6)


def test_fast_mode_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(module, "QDGNNCalculator", lambda *args, **options: seen.append(options))
    load_calculator("default", fast=False)
    load_calculator("default", fast=True)
    assert seen == [{}, {"fast": True}]


class Cage(Calculator):
    """Every atom on a spring."""

    implemented_properties = ("energy", "forces")

    def __init__(self) -> None:
        super().__init__()
        self.home = argyrodite().positions

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        moved = self.atoms.positions - self.home
        self.results = {"energy": float((moved**2).sum()), "forces": -2 * moved}


def test_command_writes_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_calculator", lambda model, fast: Cage())
    arguments = ["-T", "600", "-T", "900", "--time-ps", "0.8", "--equilibration-ps", "0.1"]
    outputs = ["--json", str(tmp_path / "d.json"), "--markdown", str(tmp_path / "d.md")]
    result = CliRunner().invoke(diffusion, arguments + outputs, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "d.json").read_text())
    assert [row["temperature"] for row in document["rows"]] == [600.0, 900.0]
    assert document["n_lithium"] == 24
    text = (tmp_path / "d.md").read_text()
    assert text.strip() in result.output
    assert "Kraft" in text
    assert (tmp_path / "d.png").stat().st_size > 5_000


def test_text_with_a_fit() -> None:
    rows = [
        row
        | {"time_ps": 20, "timestep_fs": 2, "framework_msd": 0.4, "seconds": 1, "lag_ps": [0, 5.2]}
        for row in points(0.25, 1e-3, 0.1)
    ]
    fit = arrhenius(rows) | {
        "nernst_einstein_mS_cm_per_cm2_s": 1e8,
        "conductivity_mS_cm": 6.0,
        "conductivity_interval": [3.0, 12.0],
    }
    text = markdown({"system": "Li6PS5Cl", "rows": rows, "arrhenius": fit})
    assert "Ea = 0.25 +- " in text
    assert "between lags of 1.3 and 5.2 ps" in text
    assert "6.0 mS/cm" in text
    assert "Haven ratio 1" in text
    assert "framework has left" not in text


def test_a_framework_that_moves_is_named() -> None:
    rest = {"time_ps": 20, "timestep_fs": 2, "seconds": 1, "lag_ps": [0, 5.2]}
    moved = {600: 0.4, 900: 5.0, 1200: 9.0}
    rows = [
        {"temperature": t, "diffusivity": 1e-5, "standard_error": 1e-6, "framework_msd": msd} | rest
        for t, msd in moved.items()
    ]
    fit = {"activation_energy": None, "points": 0}
    text = markdown({"system": "Li6PS5Cl", "rows": rows, "arrhenius": fit})
    assert "At 900 K, 1200 K the framework has left its sites" in text
