"""`qdgnn bench-phonon-arms`: what a model learns from phonon, Gaussian and uniform frames."""

from __future__ import annotations

import json
import platform
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from qdgnn_phonons.cli import make_calculator, needs_phonopy


@click.command()
@click.argument("structures", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--calculator", default="qdgnn", show_default=True, help="Labels: qdgnn or ASE's.")
@click.option("--model", default="default", show_default=True)
@click.option("--supercell", nargs=3, type=int, help="Multiples; else 10 Å.")
@click.option("--size", "sizes", multiple=True, type=int, default=(20, 80), show_default=True)
@click.option("--seeds", default=5, show_default=True, help="How many.")
@click.option("--epochs", default=60, show_default=True)
@click.option("--n-test", default=20, show_default=True, help="MD frames per temperature.")
@needs_phonopy
def phonon_arms(*, structures: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Train on each arm of displacements of STRUCTURES, test on molecular dynamics.

    Goes on where it was killed. Writes arms.json and arms.md into the folder.
    """
    from qdgnn_ase import read_structures
    from qdgnn_phonons.bench.arms import Study, document, markdown, run_study

    default = Study()
    study = Study(
        supercell=options["supercell"] or None,
        sizes=options["sizes"],
        seeds=tuple(range(options["seeds"])),
        n_test=options["n_test"],
        train=default.train | {"epochs": options["epochs"]},
    )
    factory = partial(make_calculator, options["calculator"], options["model"])
    console = Console()
    documents = []
    for path in structures:
        with console.status(path.stem) as status:
            rows = run_study(
                read_structures(path, "-1")[0],
                factory,
                output / path.stem,
                study,
                progress=lambda done, total, row: status.update(f"{done} of {total}: {row['key']}"),
            )
        documents.append(document(path.stem, study, rows))
        console.print(f"{path.stem}\n{markdown(documents[-1]['summary'])}", markup=False)
    head = {
        "date": date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "calculator": options["calculator"],
    }
    _write(output, head | {"crystals": documents})


def _write(output: Path, result: dict[str, Any]) -> None:
    from qdgnn_phonons.bench.arms import markdown
    from qdgnn_phonons.files import write_atomically

    text = json.dumps(result, indent=1) + "\n"
    parts = [f"{result['date']}, {result['machine']}, labels: {result['calculator']}.\n"]
    parts += [f"## {part['crystal']}\n\n{markdown(part['summary'])}" for part in result["crystals"]]
    write_atomically(output / "arms.json", lambda path: path.write_text(text))
    write_atomically(output / "arms.md", lambda path: path.write_text("\n".join(parts)))
