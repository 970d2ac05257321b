"""`qdgnn bench-phonon-arms`: what a model learns from phonon, Gaussian and uniform frames."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from qdgnn_ase import measured
from qdgnn_phonons.cli import make_calculator, needs_phonopy

if TYPE_CHECKING:
    from qdgnn_phonons.bench.families import Family

_LABELS = ("tight_binding", "calculator")


@click.command()
@click.argument("structures", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option(
    "--family", "names", multiple=True, help="Si, NaCl, Ag3SBr, CsPbI3; all without STRUCTURES."
)
@click.option(
    "--labels",
    "kinds",
    multiple=True,
    type=click.Choice(_LABELS),
    default=_LABELS[:1],
    show_default=True,
    help="Energy, forces, stress of the calculator; with tight_binding its gap too.",
)
@click.option("--calculator", default="qdgnn", show_default=True, help="qdgnn or ASE's.")
@click.option("--model", default="default", show_default=True)
@click.option("--supercell", nargs=3, type=int, help="Of STRUCTURES; else 10 Å.")
@click.option(
    "--imaginary",
    type=click.Choice(["refuse", "drop", "absolute"]),
    default="refuse",
    show_default=True,
    help="Modes of STRUCTURES without a restoring force: an error, at rest, or as |omega|.",
)
@click.option("--size", "sizes", multiple=True, type=int, default=(20, 80), show_default=True)
@click.option("--seeds", type=click.IntRange(min=2), default=5, show_default=True, help="How many.")
@click.option("--epochs", type=int, help="Passes over the training frames.")
@click.option("--n-test", default=20, show_default=True, help="MD frames per temperature.")
@needs_phonopy
def phonon_arms(
    *,
    structures: tuple[Path, ...],
    output: Path,
    names: tuple[str, ...],
    kinds: tuple[str, ...],
    **options: Any,
) -> None:
    """Train on each arm of displacements of crystals, test on molecular dynamics.

    Goes on where it was killed. Writes arms.json, arms.md and arms.png (learning curves) into the
    folder, with the crystals of earlier calls.
    """
    from qdgnn_phonons.bench.arms_page import page

    crystals = _crystals(structures, names, options)
    console = Console()
    head = {
        **measured(),
        "calculator": options["calculator"],
    }
    for kind in kinds:
        for name, family in crystals.items():
            with console.status(name) as status:
                folder = output / f"{name}_{kind}"
                part = head | _study(name, family, folder, kind, options, status.update)
            console.print(page([part]), markup=False, soft_wrap=True)
            _write(output, part)


def _crystals(
    structures: tuple[Path, ...], names: tuple[str, ...], options: dict[str, Any]
) -> dict[str, Family]:
    """Crystals of the files, and the families that are named; all of them if nothing is.

    Raises:
        UsageError: If there is no such family.
    """
    from qdgnn_ase import read_structures
    from qdgnn_phonons.bench.families import Family, families

    known = families()
    if unknown := sorted(set(names) - set(known)):
        raise click.UsageError(f"--family must be of {list(known)}, got {unknown}")
    supercell, policy = options["supercell"] or None, options["imaginary"]
    given = {
        path.stem: Family(read_structures(path, "-1")[0], supercell, policy) for path in structures
    }
    return given | {name: known[name] for name in names or (() if given else known)}


def _study(
    name: str, family: Family, folder: Path, kind: Any, options: dict[str, Any], show: Any
) -> dict[str, Any]:
    from qdgnn_phonons.bench.arms import Study, run_study
    from qdgnn_phonons.bench.arms_models import LEARNERS
    from qdgnn_phonons.bench.arms_page import document

    train = {"model": LEARNERS[kind].train["model"] | {"cutoff": family.cutoff}}
    study = Study(
        supercell=family.supercell,
        policy=family.policy,
        labels=kind,
        sizes=options["sizes"],
        seeds=tuple(range(options["seeds"])),
        n_test=options["n_test"],
        train=train if options["epochs"] is None else train | {"epochs": options["epochs"]},
    )
    rows = run_study(
        family.atoms,
        partial(make_calculator, options["calculator"], options["model"]),
        folder,
        study,
        progress=lambda done, total, row: show(f"{name}: {done} of {total}, {row['key']}"),
    )
    show(f"{name}: explanations")
    return document(name, folder, study, family.atoms, rows)


def _write(output: Path, part: dict[str, Any]) -> None:
    """Add a crystal to the documents, or put it in the place of its earlier self."""
    from qdgnn_phonons.bench.arms_page import learning_curves, page
    from qdgnn_phonons.figures import plot_learning_curves
    from qdgnn_phonons.files import write_atomically

    path = output / "arms.json"
    earlier = json.loads(path.read_text())["crystals"] if path.is_file() else []
    parts = {(row["crystal"], row["study"]["labels"]): row for row in [*earlier, part]}
    crystals = list(parts.values())
    text = json.dumps({"crystals": crystals}, indent=1) + "\n"
    write_atomically(path, lambda target: target.write_text(text))
    write_atomically(output / "arms.md", lambda target: target.write_text(page(crystals)))
    plot_learning_curves(learning_curves(crystals), output / "arms.png")
