"""`qdgnn explain`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import cast

import ase.io
import click
from ase import Atoms
from matplotlib.backend_bases import FigureCanvasBase
from rich.table import Table

from qdgnn_ase.cli.common import check_output, console, progress_bar
from qdgnn_ase.data.io import read_structures
from qdgnn_ase.inference.explain import METHODS, Explainer, Explanation, agreement
from qdgnn_ase.inference.explain.explanation import Method
from qdgnn_ase.inference.explain.report import bonds_csv, plot_bonds, write_chemiscope
from qdgnn_ase.training.checkpoint import write_atomic

_SHOWN = 5


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--target",
    default="formation_energy",
    show_default=True,
    help='Property, or "energy" of the potential.',
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(METHODS),
    default=METHODS[:1],
    show_default=True,
    help="May be given several times; tables, files and colours use the first.",
)
@click.option("--model", help="Embedded model or checkpoint file.  [default: default, properties]")
@click.option("--index", default="-1", show_default=True, help="Structures, as in ASE: -1, 0:10, :")
@click.option("-o", "--output", type=Path, help="Write the structures with scores of their atoms.")
@click.option("--csv", "csv_output", type=Path, help="Write the bonds of one structure.")
@click.option("--plot", type=Path, help="Plot scores against bond lengths.")
@click.option("--html", type=Path, help="Write a chemiscope page (extra: report).")
def explain(
    file: str,
    *,
    target: str,
    methods: tuple[str, ...],
    model: str | None,
    index: str,
    output: Path | None,
    csv_output: Path | None,
    plot: Path | None,
    html: Path | None,
) -> None:
    """Which bonds and atoms of the structures in FILE carry a prediction.

    A bond is a pair of atoms within the model's cutoff. Integrated gradients add up to the
    prediction less the prediction without bonds.
    """
    _check_outputs(output, plot, html)
    structures = read_structures(file, index)
    if csv_output is not None and len(structures) > 1:
        raise click.UsageError(f"--csv takes one structure, got {len(structures)}; use --index")
    rows = _explanations(structures, Explainer(target, model), cast("list[Method]", list(methods)))
    _show(rows)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        ase.io.write(output, [_with_arrays(row) for row in rows])
    if csv_output is not None:
        write_atomic(csv_output, bonds_csv(rows[0]).encode())
    if plot is not None:
        plot_bonds([explanation for row in rows for explanation in row], plot)
    if html is not None:
        write_chemiscope(rows, html)
    for path in filter(None, (output, csv_output, plot, html)):
        console.print(f"wrote {path}")


def _check_outputs(output: Path | None, plot: Path | None, html: Path | None) -> None:
    """Refuse what could not be written, before it is computed."""
    if output is not None:
        check_output(output)
    known = FigureCanvasBase.filetypes
    if plot is not None and plot.suffix.removeprefix(".") not in known:
        raise click.UsageError(f"{plot} must have one of the suffixes {sorted(known)}")
    if html is not None and find_spec("chemiscope") is None:
        raise click.UsageError("--html needs chemiscope: pip install 'qdgnn-ase[report]'")


def _explanations(
    structures: list[Atoms], explainer: Explainer, methods: list[Method]
) -> list[list[Explanation]]:
    rows = []
    with progress_bar() as bar:
        task = bar.add_task("explaining", total=len(structures), note="")
        for k, atoms in enumerate(structures):
            try:
                rows.append([explainer(atoms, method) for method in methods])
            except ValueError as error:
                raise ValueError(f"structure {k}: {error}") from error
            bar.update(task, advance=1, note=str(atoms.symbols))
    return rows


def _with_arrays(row: list[Explanation]) -> Atoms:
    atoms = row[0].to_atoms()
    for explanation in row[1:]:
        name = f"{explanation.target}_{explanation.method}"
        atoms.set_array(name, explanation.atom_scores)
    return atoms


def _show(rows: list[list[Explanation]]) -> None:
    for row in rows[:_SHOWN]:
        _show_structure(row)
    if len(rows) > _SHOWN:
        console.print(f"{len(rows) - _SHOWN} more structures")


def _show_structure(row: list[Explanation]) -> None:
    first = row[0]
    mark = "" if first.in_domain else " (unlike the training data)"
    console.print(
        f"{first.atoms.symbols}{mark}: {first.target} = {first.value:.4g} {first.unit}, "
        f"without bonds {first.baseline:.4g}, by bonds {first.value - first.baseline:.4g}; "
        f"sum of the {len(first.bonds)} {first.method} scores {first.bond_scores.sum():.4g}"
    )
    if not len(first.bonds):
        return
    table = Table("pair", "bonds", "shortest\nÅ", f"sum\n{first.score_unit}", "share of |scores|")
    for pair in first.pair_summaries():
        cells = (f"{pair.n_bonds}", f"{pair.shortest:.3f}", f"{pair.total:.4g}")
        table.add_row(pair.pair, *cells, f"{100 * pair.share:.0f} %")
    console.print(table)
    for (a, b), rank in agreement(row).items():
        console.print(f"rank correlation of {a} and {b}: {rank:.2f}")
