"""Relaxation and molecular dynamics with any ASE calculator, as scripts usually write them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.filters import FrechetCellFilter
from ase.io.trajectory import Trajectory
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from qdgnn_ase.inference.restart import MDTrajectory, Row, start_digest

Ensemble = Literal["nve", "nvt", "langevin", "npt"]
"""Constant energy (Verlet), temperature (Bussi, or Langevin with friction), temperature and
pressure (isotropic MTK)."""


def relax(
    atoms: Atoms,
    *,
    fmax: float = 0.05,
    steps: int = 500,
    cell: bool = True,
    pressure_gpa: float = 0.0,
    trajectory: str | Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> bool:
    """Relax positions, and the cell unless told otherwise, in place.

    Args:
        atoms: Structure with a calculator.
        fmax: Largest force in eV/Å (for the cell: the filter's generalised force) to stop at.
        steps: Most steps.
        cell: Relax the cell too; needs a volume.
        pressure_gpa: Target pressure in GPa, compression positive.
        trajectory: ASE trajectory file of every step.
        progress: Called with step and largest force on an atom.

    Returns:
        True if ``fmax`` was reached.

    Raises:
        ValueError: If the cell shall relax and there is none.
    """
    if cell and atoms.cell.rank < 3:
        raise ValueError(
            f"a cell to relax must have three lattice vectors, got {atoms.cell.rank}; "
            "pass cell=False"
        )
    target = FrechetCellFilter(atoms, scalar_pressure=pressure_gpa * units.GPa) if cell else atoms
    optimizer = FIRE(target, logfile=None, trajectory=None)
    if progress is not None:
        optimizer.attach(lambda: progress(optimizer.nsteps, _largest(atoms)))
    with nullcontext() if trajectory is None else Trajectory(str(trajectory), "w", atoms) as file:
        if file is not None:
            optimizer.attach(file)
        return bool(optimizer.run(fmax=fmax, steps=steps))


def molecular_dynamics(
    atoms: Atoms,
    *,
    temperature: float,
    steps: int,
    timestep_fs: float = 1.0,
    ensemble: Ensemble = "nvt",
    pressure_gpa: float = 0.0,
    interval: int = 10,
    seed: int = 0,
    trajectory: str | Path | None = None,
    resume: bool = False,
    observer: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Run molecular dynamics in place.

    Momenta are drawn at ``temperature`` unless the atoms carry some.

    Args:
        atoms: Structure with a calculator.
        temperature: K.
        steps: Time steps of the whole run.
        timestep_fs: fs.
        ensemble: "nve", "nvt", "langevin" or "npt".
        pressure_gpa: Target pressure of "npt" in GPa.
        interval: Steps between observations; the last step is always one.
        seed: Seed of the momenta and of the thermostat.
        trajectory: Extended XYZ file of the observations; an older one is replaced. But for "npt"
            the state of the run stands beside it, in ``TRAJECTORY.state``.
        resume: Go on from that state, where there is one, as if the run had not been stopped.
            Give the same structure, calculator and arguments; ``steps`` may be larger.
        observer: Called at each observation, after ``atoms`` moved and the frame was written.

    Returns:
        One row per observation: step, time_ps, potential, kinetic, total (eV), temperature (K);
        those before a restart too.

    Raises:
        ValueError: If an argument is out of range, or the state is damaged or of another run.
        FloatingPointError: If the run explodes; it names the step.
    """
    _check_positive(
        temperature=temperature, steps=steps, timestep_fs=timestep_fs, interval=interval
    )
    if resume and trajectory is None:
        raise ValueError("resume must come with the trajectory to go on with, got none")
    rng = np.random.default_rng(seed)
    settings = {
        "ensemble": ensemble,
        "temperature": temperature,
        "timestep_fs": timestep_fs,
        "pressure_gpa": pressure_gpa,
        "seed": seed,
        "start": start_digest(atoms),
    }
    file = trajectory and MDTrajectory(trajectory, settings, keeps_state=ensemble != "npt")
    with file or nullcontext():
        rows = file.resume(atoms, rng) if file and resume else []
        if not rows and not atoms.get_momenta().any():
            _draw_momenta(atoms, temperature, rng)
        dynamics = _dynamics(atoms, ensemble, temperature, timestep_fs, pressure_gpa, rng)
        dynamics.nsteps = int(rows[-1]["step"]) if rows else 0

        def record(step: int) -> None:
            row = _observation(atoms, step, timestep_fs)
            if not row["temperature"] < 100 * temperature + 1000:
                raise FloatingPointError(f"the run exploded at step {step}: {row}")
            rows.append(row)
            if file:
                file.write(atoms, rng, row)
            if observer is not None:
                observer(row)

        _run(dynamics, steps, interval, record, resumed=bool(rows))
    return rows


def _run(
    dynamics: MolecularDynamics,
    steps: int,
    interval: int,
    record: Callable[[int], None],
    *,
    resumed: bool,
) -> None:
    """Run to step ``steps``; a resumed run has recorded its first step before."""
    start = dynamics.nsteps
    if start > steps:
        raise ValueError(f"steps must be at least those done, {start}, got {steps}")

    def observe() -> None:
        step = dynamics.nsteps
        if (step % interval == 0 or step == steps) and not (resumed and step == start):
            record(step)

    dynamics.attach(observe)
    dynamics.run(steps - start)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be larger than 0, got {value}")


def _draw_momenta(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    thermalize_momenta(atoms, temperature, rng=rng)
    if len(atoms) > 1:  # a lone atom without total momentum would stand still
        Stationary(atoms)


def _dynamics(
    atoms: Atoms,
    ensemble: Ensemble,
    temperature: float,
    timestep_fs: float,
    pressure_gpa: float,
    rng: np.random.Generator,
) -> MolecularDynamics:
    step = timestep_fs * units.fs
    if ensemble == "nve":
        return VelocityVerlet(atoms, step)
    if ensemble == "nvt":
        return Bussi(atoms, step, temperature_K=temperature, taut=100 * step, rng=rng)
    if ensemble == "langevin":
        friction = 1 / (100 * step)
        return Langevin(
            atoms, step, temperature_K=temperature, friction=friction, fixcm=False, rng=rng
        )
    if ensemble == "npt":
        return IsotropicMTKNPT(
            atoms,
            step,
            temperature_K=temperature,
            pressure_au=pressure_gpa * units.GPa,
            tdamp=100 * step,
            pdamp=1000 * step,
        )
    raise ValueError(f"ensemble must be 'nve', 'nvt', 'langevin' or 'npt', got {ensemble!r}")


def _observation(atoms: Atoms, step: int, timestep_fs: float) -> Row:
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    return {
        "step": step,
        "time_ps": step * timestep_fs * 1e-3,
        "potential": potential,
        "kinetic": kinetic,
        "total": potential + kinetic,
        "temperature": atoms.get_temperature(),
    }


def _largest(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())
