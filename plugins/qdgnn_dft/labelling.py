"""`qdgnn label`: structures in, labelled frames and stored records out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from qdgnn_ase import Labelled, label, read_structures
from qdgnn_dft.backend import backend_of
from qdgnn_dft.calculator import record_info, stored_calculator
from qdgnn_dft.store import ResultStore

console = Console(markup=False)


@click.command("label")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--backend", required=True, help="gpaw, xtb, qdgnn, emt or MODULE:FUNCTION.")
@click.option("--output", "-o", type=Path, required=True, help="Labelled frames, *.extxyz.")
@click.option("--store", help="Result store, *.db or postgresql://...; beside the output if unset.")
@click.option("--logs", type=Path, help="Folder of the code's output; beside the output if unset.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True)
def label_command(
    *,
    files: tuple[str, ...],
    backend: str,
    output: Path,
    store: str | None,
    logs: Path | None,
    jobs: int,
) -> None:
    """Energy, forces and stress of every structure in FILES, by DFT or any other backend.

    Goes on where it was killed. Results in the store are not computed again, whichever file they
    come from. Structures that fail stand with the reason in OUTPUT.failures.jsonl; delete that file
    to have them tried again.
    """
    if output.suffix not in (".xyz", ".extxyz"):
        raise click.UsageError(f"--output must end in .extxyz, got {output}")
    store = store or str(output.with_suffix(".db"))
    try:
        backend_of(backend)
        ResultStore(store)
    except ImportError as error:  # before workers start, and as one line
        raise click.UsageError(str(error)) from error
    structures = [atoms for name in files for atoms in read_structures(name)]
    factory = partial(stored_calculator, backend, store, str(logs or output.with_suffix(".logs")))
    with Progress(console=console) as progress:
        task = progress.add_task(f"labelling with {backend}", total=len(structures))

        def show(counts: Labelled) -> None:
            done = counts.written + counts.failed + counts.skipped
            progress.update(task, completed=done, description=f"{backend}: {counts.failed} failed")

        counts = label(structures, factory, output, jobs=jobs, annotate=record_info, progress=show)
    console.print(
        f"{counts.written} labelled, {counts.failed} failed, {counts.skipped} were done before: "
        f"{output}, store {store}"
    )
    if counts.failed:
        console.print(f"reasons: {output}.failures.jsonl")
