"""Relaxation and dynamics, with EMT as the physics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.io.trajectory import Trajectory
from numpy.testing import assert_allclose

from qdgnn_ase import QDGNN, QDGNNCalculator
from qdgnn_ase.inference.figures import plot_dynamics
from qdgnn_ase.inference.simulate import molecular_dynamics, relax


def copper(repeat: int = 1, rattle: float = 0.0) -> Atoms:
    atoms = bulk("Cu", cubic=True).repeat(repeat)
    atoms.rattle(rattle, seed=0)
    atoms.calc = EMT()
    return atoms


def largest_force(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


def test_relaxation_reaches_fmax() -> None:
    atoms = copper(rattle=0.1)
    atoms.set_cell(atoms.cell.array * 1.03, scale_atoms=True)
    assert relax(atoms, fmax=0.01) is True
    assert largest_force(atoms) < 0.01
    force_of_the_cell = atoms.get_stress() * atoms.get_volume() / len(atoms)
    assert abs(force_of_the_cell).max() < 0.01
    assert_allclose(atoms.cell.lengths(), 3.59, atol=0.01)  # EMT's copper


def test_relaxation_of_positions_only() -> None:
    atoms = copper(rattle=0.1)
    cell = atoms.cell.array.copy()
    assert relax(atoms, fmax=0.01, cell=False)
    assert_allclose(atoms.cell.array, cell)
    assert largest_force(atoms) < 0.01


@pytest.mark.parametrize("pressure", [5.0, -3.0])
def test_pressure_is_positive_in_compression(pressure: float) -> None:
    atoms = copper()
    assert relax(atoms, fmax=1e-3, pressure_gpa=pressure)
    assert_allclose(atoms.get_stress()[:3] / units.GPa, -pressure, atol=0.05)
    free = copper()
    relax(free, fmax=1e-3)
    assert (atoms.get_volume() < free.get_volume()) == (pressure > 0)


def test_relaxation_that_runs_out_of_steps() -> None:
    atoms = copper(rattle=0.1)
    assert relax(atoms, fmax=1e-6, steps=3) is False


def test_relaxed_structure_takes_no_step() -> None:
    atoms = copper()
    relax(atoms, fmax=0.01)
    before = atoms.positions.copy()
    assert relax(atoms, fmax=0.02)
    assert_allclose(atoms.positions, before)


def test_progress_and_trajectory(tmp_path: Path) -> None:
    atoms, seen = copper(rattle=0.1), []
    start = largest_force(atoms)
    relax(
        atoms,
        fmax=1e-9,
        steps=4,
        trajectory=tmp_path / "a.traj",
        progress=lambda step, force: seen.append((step, force)),
    )
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4]
    assert seen[0][1] == pytest.approx(start)
    assert seen[-1][1] == pytest.approx(largest_force(atoms))
    with Trajectory(str(tmp_path / "a.traj")) as frames:
        assert len(frames) == 5
        assert_allclose(frames[-1].positions, atoms.positions)
        assert_allclose(frames[-1].get_forces(), atoms.get_forces())


def test_molecule_relaxes_without_cell() -> None:
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.6]], calculator=EMT())
    with pytest.raises(ValueError, match="must have three lattice vectors, got 0; pass cell=False"):
        relax(atoms)
    assert relax(atoms, cell=False, fmax=0.01)
    assert largest_force(atoms) < 0.01


def test_constant_energy() -> None:
    atoms = copper(repeat=2)
    rows = molecular_dynamics(atoms, temperature=300, steps=150, timestep_fs=2.0, ensemble="nve")
    totals = np.array([row["total"] for row in rows])
    kinetic = np.array([row["kinetic"] for row in rows])
    assert np.ptp(totals) < 0.02 * np.ptp(kinetic)
    assert np.ptp(totals) / len(atoms) < 1e-4


def test_longer_steps_conserve_less() -> None:
    """Negative control: Verlet's error grows as the square of the step."""
    spread = {}
    for timestep, steps in ((2.0, 100), (8.0, 25)):
        rows = molecular_dynamics(
            copper(),
            temperature=600,
            steps=steps,
            timestep_fs=timestep,
            ensemble="nve",
            interval=1,
        )
        spread[timestep] = np.ptp([row["total"] for row in rows])
    assert spread[8.0] > 5 * spread[2.0]


def test_thermostat() -> None:
    atoms = copper(repeat=2)
    rows = molecular_dynamics(atoms, temperature=400, steps=800, timestep_fs=4.0, seed=1)
    mean = np.mean([row["temperature"] for row in rows[len(rows) // 2 :]])
    assert 320 < mean < 480


def test_barostat() -> None:
    atoms = copper(repeat=2)
    volume = atoms.get_volume()
    molecular_dynamics(
        atoms, temperature=300, steps=120, timestep_fs=4.0, ensemble="npt", pressure_gpa=20.0
    )
    assert atoms.get_volume() < 0.97 * volume
    assert_allclose(atoms.cell.angles(), 90)


def test_observations() -> None:
    atoms, seen = copper(), []
    rows = molecular_dynamics(
        atoms, temperature=300, steps=25, timestep_fs=2.0, interval=10, observer=seen.append
    )
    assert [row["step"] for row in rows] == [0, 10, 20, 25]
    assert_allclose([row["time_ps"] for row in rows], [0, 0.02, 0.04, 0.05])
    assert seen == rows
    for row in rows:
        assert row["total"] == pytest.approx(row["potential"] + row["kinetic"])
    assert rows[-1]["potential"] == pytest.approx(atoms.get_potential_energy())
    assert rows[-1]["temperature"] == pytest.approx(atoms.get_temperature())


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_seed_determines_the_run(ensemble: Any) -> None:
    runs = []
    for seed in (0, 0, 1):
        state = np.random.get_state()[1].copy()  # noqa: NPY002  ASE's fallback generator
        rows = molecular_dynamics(copper(), temperature=300, steps=5, ensemble=ensemble, seed=seed)
        assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
        runs.append(rows)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_momenta_that_are_there_are_kept() -> None:
    atoms = copper()
    atoms.set_momenta(np.full((4, 3), [0.1, 0.0, 0.0]))
    rows = molecular_dynamics(atoms, temperature=300, steps=1, ensemble="nve")
    assert rows[0]["kinetic"] == pytest.approx(4 * 0.1**2 / (2 * atoms.get_masses()[0]))


def test_drawn_momenta_have_no_drift() -> None:
    atoms = copper()
    molecular_dynamics(atoms, temperature=300, steps=1, ensemble="nve")
    assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-8)


def test_lone_atom_flies() -> None:
    atoms = Atoms("Cu", calculator=EMT())
    rows = molecular_dynamics(atoms, temperature=300, steps=5, ensemble="nve")
    assert rows[-1]["kinetic"] == pytest.approx(rows[0]["kinetic"])
    assert rows[0]["kinetic"] > 0


@pytest.mark.parametrize("timestep", [100.0, 1000.0])
def test_explosion(timestep: float) -> None:
    with pytest.raises(FloatingPointError, match="the run exploded at step 10"):
        molecular_dynamics(
            copper(), temperature=300, steps=100, timestep_fs=timestep, ensemble="nve"
        )


class NaNForces(Calculator):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012  as ASE has it

    def calculate(self, atoms: Any = None, *args: Any) -> None:
        self.results = {"energy": 0.0, "forces": np.full((len(atoms), 3), np.nan)}


def test_forces_that_are_not_a_number() -> None:
    atoms = copper()
    atoms.calc = NaNForces()
    with pytest.raises(FloatingPointError, match="the run exploded at step 1"):
        molecular_dynamics(atoms, temperature=300, steps=20, interval=1, ensemble="nve")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature must be larger than 0, got 0"),
        ({"steps": 0}, "steps must be larger than 0, got 0"),
        ({"timestep_fs": -1.0}, "timestep_fs must be larger than 0, got -1"),
        ({"timestep_fs": np.nan}, "timestep_fs must be larger than 0, got nan"),
        ({"interval": 0}, "interval must be larger than 0, got 0"),
        ({"ensemble": "nph"}, "ensemble must be 'nve', 'nvt', 'langevin' or 'npt', got 'nph'"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        molecular_dynamics(copper(), **({"temperature": 300, "steps": 5} | change))


def test_constant_energy_with_the_network(model: QDGNN) -> None:
    """Forces are exact derivatives: the drift of a float64 run falls with the step."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.calc = QDGNNCalculator(model, device="cpu", dtype="float64")
    rows = molecular_dynamics(
        atoms, temperature=300, steps=40, timestep_fs=0.5, ensemble="nve", interval=1
    )
    totals, kinetic = (np.array([row[name] for row in rows]) for name in ("total", "kinetic"))
    assert np.ptp(totals) < 0.02 * np.ptp(kinetic)


def test_picture(tmp_path: Path) -> None:
    rows = molecular_dynamics(copper(), temperature=300, steps=3, interval=1)
    plot_dynamics(rows, 4, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
