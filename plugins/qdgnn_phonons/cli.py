"""`qdgnn phonons` and `qdgnn phonon-dataset`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click
from rich.console import Console

if TYPE_CHECKING:
    from ase import Atoms
    from phonopy import Phonopy

    from qdgnn_phonons.config import PhononConfig

_P = ParamSpec("_P")
_R = TypeVar("_R")
console = Console(markup=False)


def needs_phonopy(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """One clear error where the extra is missing; `qdgnn --help` works without it."""

    @wraps(command)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        missing = [name for name in ("phonopy", "seekpath", "symfc") if find_spec(name) is None]
        if missing:
            raise click.ClickException(
                f"{', '.join(missing)} must be installed: pip install 'qdgnn-ase[phonons]'"
            )
        return command(*args, **kwargs)

    return checked


def _shared(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Options of both commands: structure, calculator and force constants."""
    for option in reversed(
        [
            click.argument("structure", type=click.Path(exists=True, dir_okay=False)),
            click.option("--model", default="default", show_default=True),
            click.option(
                "--calculator",
                default="qdgnn",
                show_default=True,
                help="qdgnn, or a name that ASE knows, such as emt.",
            ),
            click.option("--supercell", nargs=3, type=int, help="Multiples; else --min-length."),
            click.option("--min-length", default=10.0, show_default=True, help="Å."),
            click.option(
                "--method",
                type=click.Choice(["finite", "symfc"]),
                default="finite",
                show_default=True,
                help="Single displacements, or a fit to random ones.",
            ),
            click.option("--keep-cell", is_flag=True, help="Relax the positions only."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@_shared
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--path", default="seekpath", show_default=True, help="seekpath, ase or GXWKGL.")
@click.option("--t-max", default=1000.0, show_default=True, help="K.")
@click.option("--mesh", default=60.0, show_default=True, help="Density of wave vectors, Å.")
@click.option(
    "--quasi-harmonic", "with_volumes", is_flag=True, help="Thermal expansion, Grüneisen."
)
@click.option("--temperature", type=float, help="Effective phonons (SSCHA) at this one, K.")
@click.option("--allow-imaginary", is_flag=True, help="Leave imaginary modes out of the sums.")
@needs_phonopy
def phonons(**options: Any) -> None:
    """Phonons of the last structure of a file: bands, density of states, thermal properties.

    Writes phonopy.yaml, force_constants.hdf5, band.yaml, total_dos.dat, thermal_properties.yaml,
    report.json and pictures into the output folder.
    """
    from qdgnn_phonons.report import thermal_report, volume_report
    from qdgnn_phonons.stability import ImaginaryModesError, stability_of

    crystal, phonon, config = _phonons(options)
    output, mesh = options["output"], options["mesh"]
    report: dict[str, Any] = {"structure": options["structure"], "atoms": len(crystal)}
    if options["temperature"] is not None:
        phonon, report["sscha"] = _effective(phonon, crystal, options["temperature"])
    stable = stability_of(phonon)
    report["stability"] = asdict(stable)
    console.print(str(stable))
    refused: ImaginaryModesError | None = None
    try:
        report |= thermal_report(
            phonon,
            output,
            path=options["path"],
            t_max=options["t_max"],
            mesh=mesh,
            allow_imaginary=options["allow_imaginary"],
            title=str(crystal.symbols),
        )
        if options["with_volumes"]:
            report |= volume_report(crystal, phonon, config, options["t_max"], mesh)
    except ImaginaryModesError as error:
        refused = error  # bands and force constants are kept: they show what is wrong
        report["refused"] = str(error)
    _write_json(output / "report.json", report)
    for line in report.get("summary", []):
        console.print(line)
    console.print(f"wrote {output}")
    if refused is not None:
        raise click.ClickException(f"{refused} (here: --allow-imaginary)")


@click.command()
@_shared
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Data set.")
@click.option(
    "--arm",
    type=click.Choice(["phonon", "gaussian", "uniform", "md"]),
    default="phonon",
    show_default=True,
)
@click.option("--temperature", "-T", multiple=True, type=float, default=(300.0,), help="K; repeat.")
@click.option("-n", "n", default=100, show_default=True, help="Frames per temperature.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--statistics",
    type=click.Choice(["quantum", "classical"]),
    default="quantum",
    show_default=True,
)
@click.option(
    "--imaginary",
    type=click.Choice(["refuse", "drop", "absolute"]),
    default="refuse",
    show_default=True,
    help="Modes without a restoring force: an error, at rest, or as |omega|.",
)
@click.option("--change", multiple=True, help="strain, vacancy, antisite, solid_solution; repeat.")
@click.option("--label/--no-label", default=False, help="Energy, forces and stress of each frame.")
@click.option("--jobs", default=1, show_default=True, help="Processes that label.")
@needs_phonopy
def dataset(**options: Any) -> None:
    """Displaced supercells of the last structure of a file: .extxyz, .db or .json.

    Frames that are the same as an earlier one or have atoms too close are left out.
    """
    from qdgnn_phonons.dataset import check_name, write_dataset
    from qdgnn_phonons.diversity import deduplicate, measure_diversity
    from qdgnn_phonons.stability import check_temperatures
    from qdgnn_phonons.variants import check_changes, plausible, vary

    output = options["output"]
    check_name(output)
    check_temperatures(options["temperature"])
    check_changes(options["change"])
    frames = _frames(options)
    if options["change"]:
        frames = vary(frames, options["change"], options["seed"])
    good = plausible(frames)
    kept = [good[index] for index in deduplicate(good)]
    report = measure_diversity(kept).to_dict() | {
        "implausible": len(frames) - len(good),
        "duplicates": len(good) - len(kept),
    }
    for frame in kept:
        frame.info["calculator"] = _calculator_name(options)
    if options["label"]:
        _label(kept, options)
    else:
        write_dataset(kept, output)
    _write_json(output.with_suffix(".report.json"), report)
    console.print(f"{report}\nwrote {output}")


def make_calculator(name: str, model: str) -> Any:
    """QDGNNCalculator in double precision, or a calculator that ASE knows by name.

    Raises:
        ValueError: If ASE does not know it.
    """
    from ase.calculators.calculator import get_calculator_class

    from qdgnn_ase import QDGNNCalculator

    if name == "qdgnn":
        return QDGNNCalculator(model, dtype="float64")
    try:
        return get_calculator_class(name)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"calculator must be qdgnn or one of ASE's, got {name!r}") from error


def _calculator_name(options: dict[str, Any]) -> str:
    name: str = options["calculator"]
    return f"qdgnn:{Path(options['model']).name}" if name == "qdgnn" else name


def _relaxed(options: dict[str, Any]) -> tuple[Atoms, PhononConfig]:
    """Last structure of the file, relaxed, and the settings."""
    from qdgnn_ase import read_structures
    from qdgnn_phonons.config import PhononConfig
    from qdgnn_phonons.crystal import relax_crystal

    config = PhononConfig(
        supercell=options["supercell"] or None,
        min_length=options["min_length"],
        method=options["method"],
    )
    atoms = read_structures(options["structure"], "-1")[0]
    atoms.calc = make_calculator(options["calculator"], options["model"])
    with console.status("relaxing"):
        crystal = relax_crystal(atoms, config, cell=not options["keep_cell"])
    return crystal, config


def _phonons(options: dict[str, Any]) -> tuple[Atoms, Phonopy, PhononConfig]:
    from qdgnn_phonons.harmonic import harmonic_phonons

    crystal, config = _relaxed(options)
    with console.status("forces") as status:
        phonon = harmonic_phonons(
            crystal, config, lambda done, total: status.update(f"forces: {done} of {total}")
        )
    return crystal, phonon, config


def _effective(
    phonon: Phonopy, crystal: Atoms, temperature: float
) -> tuple[Phonopy, dict[str, Any]]:
    from qdgnn_phonons.anharmonic import self_consistent_phonons

    with console.status(f"effective phonons at {temperature:g} K"):
        result = self_consistent_phonons(phonon, crystal.calc, temperature)
    return result.phonon, {"temperature_kelvin": temperature, "changes": result.changes}


def _frames(options: dict[str, Any]) -> list[Atoms]:
    """Frames of the arm."""
    from qdgnn_phonons.arms import md_frames, sample_frames
    from qdgnn_phonons.crystal import supercell_multiples
    from qdgnn_phonons.modes import normal_modes

    wanted = options["temperature"], options["n"], options["seed"]
    if options["arm"] == "md":
        crystal, config = _relaxed(options)
        multiples = config.supercell or supercell_multiples(crystal, config.min_length)
        supercell = crystal.repeat(multiples)
        supercell.calc = crystal.calc
        with console.status("molecular dynamics"):
            return md_frames(supercell, *wanted)
    modes = normal_modes(_phonons(options)[1], options["imaginary"])
    return sample_frames(modes, options["arm"], *wanted, statistics=options["statistics"])


def _label(frames: list[Atoms], options: dict[str, Any]) -> None:
    from functools import partial

    from qdgnn_ase import label

    if options["output"].suffix not in (".extxyz", ".xyz"):
        raise click.UsageError(f"--label writes extended XYZ, got {options['output']}")
    factory = partial(make_calculator, options["calculator"], options["model"])
    with console.status("labelling") as status:
        counts = label(
            frames,
            factory,
            options["output"],
            jobs=options["jobs"],
            progress=lambda done: status.update(f"labelled {done.written} of {len(frames)}"),
        )
    console.print(f"{counts}")


def _write_json(path: Path, document: dict[str, Any]) -> None:
    from qdgnn_phonons.files import write_atomically

    text = json.dumps(document, indent=1, default=str) + "\n"
    write_atomically(path, lambda target: target.write_text(text))
