"""A run that is killed and goes on is the run that was never stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from numpy.testing import assert_allclose

from qdgnn_ase import QDGNN, CheckpointError, QDGNNCalculator, molecular_dynamics, save_model

KILLED = """
import os, signal
from ase.build import bulk
from qdgnn_ase import QDGNNCalculator, molecular_dynamics

def stop(row):
    if row["step"] == 10:
        os.kill(os.getpid(), signal.SIGKILL)

atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
atoms.calc = QDGNNCalculator("model.safetensors", device="cpu")
molecular_dynamics(atoms, temperature=300, steps=20, interval=5, seed=3, trajectory="md.extxyz",
                   ensemble="{ensemble}", observer=stop)
"""
OPTIONS: dict[str, Any] = {"temperature": 300, "interval": 5, "seed": 3}

pytestmark = pytest.mark.filterwarnings("ignore::qdgnn_ase.ExtrapolationWarning")


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    return atoms


def salt(model: QDGNN) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.calc = QDGNNCalculator(model, device="cpu")
    return atoms


def run(folder: Path, steps: int = 40, **changes: Any) -> tuple[Atoms, list[dict[str, float]]]:
    atoms = changes.pop("atoms", None) or copper()
    trajectory = folder / "md.extxyz"
    rows = molecular_dynamics(
        atoms, **OPTIONS | {"steps": steps, "trajectory": trajectory} | changes
    )
    return atoms, rows


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "langevin"])
def test_killed_run_goes_on_bit_by_bit(model: QDGNN, ensemble: Any, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    part.mkdir()
    save_model(part / "model.safetensors", model)
    expected, rows = run(whole, 20, ensemble=ensemble, atoms=salt(model))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED.format(ensemble=ensemble)],
        cwd=part,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(ase.io.read(part / "md.extxyz", ":")) == 3
    with (part / "md.extxyz").open("a") as file:  # killed while a frame was being written
        file.write('8\nLattice="5.6 0 0')
    atoms, resumed = run(part, 20, ensemble=ensemble, atoms=salt(model), resume=True)
    assert np.array_equal(atoms.positions, expected.positions)
    assert np.array_equal(atoms.get_momenta(), expected.get_momenta())
    assert resumed == rows
    assert (part / "md.extxyz").read_bytes() == (whole / "md.extxyz").read_bytes()


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "langevin"])
def test_other_calculators_go_on(ensemble: Any, tmp_path: Path) -> None:
    """EMT sums over a neighbour list whose order depends on the past: equal but for rounding."""
    expected, _ = run(tmp_path / "whole", 100, ensemble=ensemble)
    run(tmp_path / "part", 50, ensemble=ensemble)
    atoms, rows = run(tmp_path / "part", 100, ensemble=ensemble, resume=True)
    assert_allclose(atoms.positions, expected.positions, atol=1e-10)
    assert len(rows) == 21


def test_without_the_generator_it_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: a seed alone does not continue a thermostat."""
    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "part", steps=20)
    from qdgnn_ase.inference import restart

    load = restart.load_tensors

    def forgetful(path: Path) -> Any:
        tensors, document = load(path)
        return tensors, document | {"random": np.random.default_rng(3).bit_generator.state}

    monkeypatch.setattr(restart, "load_tensors", forgetful)
    atoms, _ = run(tmp_path / "part", resume=True)
    assert not np.allclose(atoms.positions, whole.positions, atol=1e-6)


def test_constraints_go_on(model: QDGNN, tmp_path: Path) -> None:
    def fixed() -> Atoms:
        atoms = salt(model)
        atoms.set_constraint(FixAtoms([0]))
        return atoms

    expected, _ = run(tmp_path / "whole", 10, atoms=fixed(), ensemble="langevin")
    run(tmp_path / "part", 5, atoms=fixed(), ensemble="langevin")
    atoms, _ = run(tmp_path / "part", 10, atoms=fixed(), ensemble="langevin", resume=True)
    assert np.array_equal(atoms.positions, expected.positions)
    assert np.array_equal(atoms.positions[0], fixed().positions[0])
    assert not np.array_equal(atoms.positions[1], fixed().positions[1])


def test_nothing_saved_starts_and_a_finished_run_is_kept(tmp_path: Path) -> None:
    _, rows = run(tmp_path, resume=True)
    before = (tmp_path / "md.extxyz").read_bytes()
    atoms, again = run(tmp_path, resume=True)
    assert again == rows
    assert (tmp_path / "md.extxyz").read_bytes() == before
    assert atoms.get_temperature() == rows[-1]["temperature"]


def test_stopped_after_the_first_frame(tmp_path: Path) -> None:
    def stop(row: dict[str, float]) -> None:
        raise KeyboardInterrupt

    _, rows = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", observer=stop)
    assert run(tmp_path / "part", resume=True)[1] == rows


def test_without_resume_the_run_starts_anew(tmp_path: Path) -> None:
    _, first = run(tmp_path)
    _, second = run(tmp_path, steps=20, seed=4)
    assert len(ase.io.read(tmp_path / "md.extxyz", ":")) == len(second) == 5
    assert second[0] != first[0]
    assert run(tmp_path, seed=4, resume=True)[1][:5] == second


def other_start() -> Atoms:
    atoms = copper()
    atoms.rattle(0.01, seed=1)
    return atoms


def other_potential() -> Atoms:
    atoms = copper()
    atoms.calc = LennardJones(sigma=2.2, epsilon=0.1)
    return atoms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 310}, "temperature must be that of .*state, 300, got 310"),
        ({"ensemble": "nve"}, "ensemble must be that of .*state, nvt, got nve"),
        ({"seed": 4}, "seed must be that of"),
        ({"timestep_fs": 2.0}, "timestep_fs must be that of"),
        ({"steps": 10}, "steps must be at least those done, 20, got 10"),
        ({"ensemble": "npt"}, "ensemble must be 'nve', 'nvt' or 'langevin' to go on"),
        ({"trajectory": None}, "resume must come with the trajectory"),
    ],
)
def test_another_run_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    run(tmp_path, steps=20)
    before = (tmp_path / "md.extxyz").read_bytes()
    with pytest.raises(ValueError, match=message):
        run(tmp_path, resume=True, **change)
    assert (tmp_path / "md.extxyz").read_bytes() == before


def test_another_structure_or_potential_is_refused(tmp_path: Path) -> None:
    run(tmp_path, steps=20)
    with pytest.raises(ValueError, match="start must be that of"):
        run(tmp_path, resume=True, atoms=other_start())
    with pytest.raises(
        ValueError, match=r"calculator must be that of .*state, where the energy is"
    ):
        run(tmp_path, resume=True, atoms=other_potential())
    run(tmp_path, resume=True)  # and nothing was lost


@pytest.mark.parametrize("position", [0, 40, -3])
def test_damaged_state_is_refused(position: int, tmp_path: Path) -> None:
    run(tmp_path, steps=20)
    state = tmp_path / "md.extxyz.state"
    content = bytearray(state.read_bytes())
    content[position] ^= 1
    state.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"must (be a safetensors|match its sha256|be written)"
    ):
        run(tmp_path, resume=True)
    state.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="must be a safetensors checkpoint"):
        run(tmp_path, resume=True)


def test_foreign_state_is_refused(model: QDGNN, tmp_path: Path) -> None:
    run(tmp_path, steps=20)
    save_model(tmp_path / "md.extxyz.state", model)
    with pytest.raises(CheckpointError, match="must be the state of molecular dynamics"):
        run(tmp_path, resume=True)
    (tmp_path / "md.extxyz.state").unlink()
    with pytest.raises(FileNotFoundError, match=r"md.extxyz.state must exist to go on with"):
        run(tmp_path, resume=True)


def changed(text: str) -> str:
    return text.replace("Cu ", "Ag ", 1)


def shortened(text: str) -> str:
    return text[: len(text) // 2]


@pytest.mark.parametrize("change", [changed, shortened])
def test_another_trajectory_is_refused(change: Any, tmp_path: Path) -> None:
    run(tmp_path, steps=20)
    path = tmp_path / "md.extxyz"
    other = change(path.read_text())
    path.write_text(other)
    with pytest.raises(ValueError, match="must begin with the frames that"):
        run(tmp_path, resume=True)
    assert path.read_text() == other


def test_two_writers_are_refused(tmp_path: Path) -> None:
    def second(row: dict[str, float]) -> None:
        run(tmp_path, steps=5)

    with pytest.raises(BlockingIOError, match="must have one writer"):
        run(tmp_path, observer=second)
