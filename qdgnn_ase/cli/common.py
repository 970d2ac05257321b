"""What the commands share: options, loading a structure, progress bars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import click
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qdgnn_ase.data.database import append_rows, check_new, split_selection
from qdgnn_ase.data.io import read_structures
from qdgnn_ase.inference.calculator import QDGNNCalculator

console = Console(markup=False)  # names of files may hold brackets

model_option = click.option(
    "--model", default="default", show_default=True, help="Embedded model or checkpoint file."
)
dtype_option = click.option(
    "--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True
)


def _existing(dir_okay: bool) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Check of paths, of which that of a database may come with a selection."""

    def check(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        kind = click.Path(exists=True, dir_okay=dir_okay)
        for name in value if isinstance(value, tuple) else (value,):
            kind.convert(str(split_selection(name)[0]), parameter, context)
        return value

    return check


existing_file = _existing(dir_okay=False)
existing_path = _existing(dir_okay=True)
structure_argument = click.argument("structure", callback=existing_file)


def new_database(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    """Refuse a database that cannot be written, before hours are spent on what goes into it."""
    if value is not None:
        try:
            check_new(value)
        except (FileExistsError, ValueError) as error:
            raise click.BadParameter(str(error), context, parameter) from error
    return value


def load(structure: str, model: str, dtype: str) -> Atoms:
    """Last structure of a file, with the calculator attached."""
    atoms = read_structures(structure, "-1")[0]
    atoms.calc = QDGNNCalculator(model, dtype=dtype)
    return atoms


condition_columns_option = click.option(
    "--condition",
    "conditions",
    multiple=True,
    metavar="NAME=COLUMN",
    help="With --target: a condition of each structure, such as temperature=T.",
)


def parse_targets(targets: tuple[str, ...], option: str = "--target") -> dict[str, str]:
    """("bulk_modulus=K",) -> {"bulk_modulus": "K"}."""
    pairs = [target.partition("=") for target in targets]
    if wrong := [target for target, pair in zip(targets, pairs, strict=True) if not pair[2]]:
        raise click.UsageError(f"{option} must be NAME=COLUMN, got {', '.join(wrong)}")
    return {name: column for name, _, column in pairs}


def parse_conditions(conditions: tuple[str, ...]) -> dict[str, float]:
    """("temperature=300",) -> {"temperature": 300.0}."""
    texts = parse_targets(conditions, "--condition")
    try:
        return {name: float(value) for name, value in texts.items()}
    except ValueError as error:
        raise click.UsageError(f"--condition must be NAME=NUMBER, got {error}") from error


def check_output(path: Path) -> None:
    """Refuse a file that ASE could not write, before hours are spent on what goes into it."""
    try:
        good = get_ioformat(filetype(str(path), read=False)).can_write
    except UnknownFileTypeError:
        good = False
    if not good:
        raise click.UsageError(f"{path} must have a suffix that ASE writes, such as .extxyz")


def beside(structure: str, what: str) -> Path:
    """LiFePO4.cif -> LiFePO4_relaxed.extxyz in the same folder."""
    path, _ = split_selection(structure)
    name = f"{Path(path.name.removesuffix('.gz')).stem}_{what}.extxyz"
    if filetype(name, read=False) != "extxyz":  # ASE takes every *POSCAR* for a VASP file
        name = name.lower()
    return path.with_name(name)


def write(path: Path, atoms: Atoms) -> None:
    """Write a structure with its results in the format of the name; a database gets a row more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".db":
        append_rows(path, [(atoms, {})])
        return
    is_xyz = path.suffix in (".xyz", ".extxyz")
    ase.io.write(path, atoms, format="extxyz" if is_xyz else None)


def progress_bar() -> Progress:
    """Bar with a changing note, time spent and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def describe(atoms: Atoms) -> str:
    """Energy, cell, largest force and stress in one line."""
    force = float((atoms.get_forces() ** 2).sum(axis=1).max() ** 0.5)
    line = f"{atoms.symbols}: E = {atoms.get_potential_energy():.4f} eV, max |F| = {force:.4f} eV/Å"
    if atoms.cell.rank < 3:
        return line
    a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
    stress = atoms.get_stress()
    return (
        f"{line}, max |stress| = {abs(stress).max() * 160.2177:.3f} GPa\n"
        f"  a, b, c = {a:.4f}, {b:.4f}, {c:.4f} Å; angles {alpha:.2f}, {beta:.2f}, {gamma:.2f}°; "
        f"V = {atoms.get_volume():.2f} Å³"
    )
