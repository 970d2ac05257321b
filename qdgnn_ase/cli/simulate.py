"""`qdgnn relax` and `qdgnn md`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click
from ase import Atoms

from qdgnn_ase.cli.common import (
    beside,
    check_output,
    console,
    describe,
    dtype_option,
    load,
    model_option,
    progress_bar,
    structure_argument,
    write,
)
from qdgnn_ase.cli.relax_rows import relax_rows
from qdgnn_ase.data.database import split_selection
from qdgnn_ase.inference.figures import plot_dynamics
from qdgnn_ase.inference.simulate import Ensemble, molecular_dynamics
from qdgnn_ase.inference.simulate import relax as run_relax


@click.command()
@structure_argument
@model_option
@dtype_option
@click.option("--output", "-o", type=Path, help="Relaxed structure; STRUCTURE_relaxed.extxyz.")
@click.option("--fmax", default=0.05, show_default=True, help="Largest force, eV/Å.")
@click.option("--steps", default=500, show_default=True, help="Most steps.")
@click.option("--fixed-cell", is_flag=True, help="Relax positions only.")
@click.option("--pressure-gpa", default=0.0, show_default=True, help="Target pressure, GPa.")
@click.option(
    "--trajectory", type=Path, help="ASE trajectory: energy, forces, stress of every step."
)
def relax(
    structure: str,
    model: str,
    dtype: str,
    output: Path | None,
    fmax: float,
    steps: int,
    fixed_cell: bool,
    pressure_gpa: float,
    trajectory: Path | None,
) -> None:
    """Relax the last structure of a file, cell included where it is periodic in all directions.

    Of an ASE database with a selection, 'set.db@natoms<20', every row is relaxed into another
    database, which a second run with the same options continues.
    """
    if split_selection(structure)[1]:
        if trajectory:
            raise click.UsageError("--trajectory is of one structure, not of a selection")
        options = {"fmax": fmax, "steps": steps, "pressure_gpa": pressure_gpa}
        relax_rows(structure, output, model=model, dtype=dtype, fixed_cell=fixed_cell, **options)
        return
    output = output or beside(structure, "relaxed")
    check_output(output)
    atoms = load(structure, model, dtype)
    console.print(describe(atoms))
    with console.status("relaxing") as status:
        converged = run_relax(
            atoms,
            fmax=fmax,
            steps=steps,
            cell=not fixed_cell and bool(atoms.pbc.all()),
            pressure_gpa=pressure_gpa,
            trajectory=trajectory,
            progress=lambda step, force: status.update(f"step {step}: {force:.4f} eV/Å"),
        )
    console.print(describe(atoms))
    write(output, atoms)
    console.print(f"{'converged' if converged else 'NOT converged'}; wrote {output}")
    if not converged:
        raise click.exceptions.Exit(1)


@click.command()
@structure_argument
@model_option
@dtype_option
@click.option("--output", "-o", type=Path, help="Trajectory; STRUCTURE_md.extxyz, picture beside.")
@click.option("--temperature", "-T", default=300.0, show_default=True, help="K.")
@click.option("--time-ps", default=1.0, show_default=True, help="Simulated time, ps.")
@click.option("--timestep-fs", default=1.0, show_default=True, help="fs.")
@click.option(
    "--ensemble",
    type=click.Choice(get_args(Ensemble)),
    default="nvt",
    show_default=True,
    help="nvt is Bussi's thermostat.",
)
@click.option("--pressure-gpa", default=0.0, show_default=True, help="Pressure of npt, GPa.")
@click.option("--supercell", nargs=3, type=int, default=(1, 1, 1), show_default=True)
@click.option("--interval", default=10, show_default=True, help="Steps between frames.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from OUTPUT.state, if it is there, as if the run had not been stopped.",
)
def md(
    structure: str,
    model: str,
    dtype: str,
    output: Path | None,
    temperature: float,
    time_ps: float,
    timestep_fs: float,
    ensemble: Ensemble,
    pressure_gpa: float,
    supercell: tuple[int, int, int],
    interval: int,
    seed: int,
    resume: bool,
) -> None:
    """Molecular dynamics of the last structure of a file.

    A run that was killed goes on with the same command and --resume.
    """
    output = output or beside(structure, "md")
    if output.suffix not in (".xyz", ".extxyz"):
        raise click.UsageError(f"{output} must end in .extxyz or .xyz, the format that is written")
    if min(supercell) < 1:
        raise click.UsageError(f"--supercell must be three numbers from 1 up, got {supercell}")
    start = load(structure, model, dtype)
    atoms = start.repeat(supercell)
    atoms.calc = start.calc
    run_md(
        atoms,
        output,
        temperature=temperature,
        steps=round(1e3 * time_ps / timestep_fs),
        timestep_fs=timestep_fs,
        ensemble=ensemble,
        pressure_gpa=pressure_gpa,
        interval=interval,
        seed=seed,
        resume=resume,
    )


def run_md(atoms: Atoms, output: Path, *, steps: int, **options: Any) -> list[dict[str, float]]:
    """Molecular dynamics with a progress bar; writes ``output`` and a picture beside it."""
    with progress_bar() as bar:
        task = bar.add_task(f"MD of {len(atoms)} atoms", total=steps, note="")

        def observer(row: dict[str, float]) -> None:
            note = f"{row['temperature']:.0f} K, {row['potential'] / len(atoms):.4f} eV/atom"
            bar.update(task, completed=row["step"], note=note)

        rows = molecular_dynamics(
            atoms, steps=steps, trajectory=output, observer=observer, **options
        )
        bar.update(task, completed=steps)
    picture = output.with_suffix(".png")
    plot_dynamics(rows, len(atoms), picture)
    console.print(f"wrote {output} and {picture}")
    return rows
