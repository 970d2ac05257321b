"""`qdgnn bench-phonons`: heat capacity, last peak, thermal conductivity against published ones."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from qdgnn_ase import measured
from qdgnn_phonons.cli import needs_phonopy


@click.command()
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True
)
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("-n", "n", default=120, show_default=True, help="Compounds of each set.")
@click.option("--max-atoms", default=6, show_default=True, help="Largest cell.")
@click.option("--jobs", default=1, show_default=True, help="Processes.")
@click.option("--model", default="default", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the choice of compounds.")
@click.option(
    "--only",
    type=click.Choice(["heat_capacity", "last_peak", "conductivity"]),
    multiple=True,
    help="These sets only; repeat.",
)
@needs_phonopy
def phonons(
    *,
    data: Path,
    output: Path,
    n: int,
    max_atoms: int,
    jobs: int,
    model: str,
    seed: int,
    only: tuple[str, ...],
) -> None:
    """Phonons of the potential against the published sets in the folder DATA.

    Rows of compounds are appended to files in the output folder and not computed again;
    phonons.json and phonons.md hold errors only.
    """
    from qdgnn_ase import Split, load_model, run_tasks
    from qdgnn_phonons.bench import compounds, published

    console = Console()
    fold = Split.of_training(load_model(model)[1]["training"]["train_config"], "test")
    summaries = []
    for reference in published.REFERENCES:
        if only and reference.quantity not in only:
            continue
        structures, values = published.choose(reference, data, n, max_atoms, seed)
        jobs_of = ((key, (reference.quantity, atoms)) for key, atoms in structures.items())
        with console.status(reference.quantity) as status:

            def show(
                done: int, total: int, row: dict[str, Any], name: str = reference.file
            ) -> None:
                status.update(f"{name}: {done} of {total}, {row['key']}")

            rows = run_tasks(
                partial(compounds.compute, model=model),
                jobs_of,
                output / f"{reference.quantity}.jsonl",
                jobs=jobs,
                progress=show,
            )
        unseen = published.unseen_formulas(structures, fold)
        summaries.append(published.compare(reference, rows, values, unseen))
        _write(output, summaries, {"model": model, "n": n, "max_atoms": max_atoms, "seed": seed})
    console.print(published.markdown(summaries), markup=False)


def _write(output: Path, summaries: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    from qdgnn_phonons.bench.published import markdown
    from qdgnn_phonons.files import write_atomically

    head = measured()
    document = json.dumps(head | settings | {"sets": summaries}, indent=1) + "\n"
    text = f"{head['date']}, {head['machine']}, model {settings['model']}.\n\n{markdown(summaries)}"
    write_atomically(output / "phonons.json", lambda path: path.write_text(document))
    write_atomically(output / "phonons.md", lambda path: path.write_text(text))
