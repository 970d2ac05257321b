"""`qdgnn bench-solids`: lattice parameters, bulk moduli and phonons against DFT."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from ase.calculators.calculator import Calculator
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from qdgnn_ase import (
    ExtrapolationWarning,
    QDGNNCalculator,
    Split,
    load_model,
    measured,
    reduced_formula,
)
from qdgnn_bench import equation_of_state, lattice, phonons

Row = dict[str, Any]
Part = dict[str, Any]
"""rows and summary by potential, the Markdown text and how to draw it."""
Calculators = dict[str, Calculator]
_MAX_ATOMS = 40


@click.command()
@click.option("--structures", type=click.Path(exists=True), help="DFT-relaxed crystals, .jsonl.gz.")
@click.option("-n", "n", default=120, show_default=True, help="Structures to relax.")
@click.option("--elastic", type=click.Path(exists=True), help="DFT bulk moduli, .jsonl.gz.")
@click.option("--displacements", type=click.Path(exists=True), help="Folder of DFT supercells.")
@click.option("--m3gnet", type=click.Path(exists=True), help="M3GNet's folder, to run it beside.")
@click.option("--model", default="default", show_default=True)
@click.option("--json", "output", type=Path, help="Write every row to this file.")
@click.option("--markdown", type=Path, help="Write the tables here, the pictures beside it.")
def solids(
    *,
    structures: str | None,
    n: int,
    elastic: str | None,
    displacements: str | None,
    m3gnet: str | None,
    model: str,
    output: Path | None,
    markdown: Path | None,
) -> None:
    """Lattices of the model's test fold, bulk moduli of 20 solids, phonons of ten crystals.

    Each part runs where its data are given.
    """
    if not (structures or elastic or displacements):
        raise click.UsageError("one of --structures, --elastic, --displacements must be given")
    calculators: Calculators = {"ours": QDGNNCalculator(model)}
    if m3gnet:
        from qdgnn_matgl import load_m3gnet

        calculators["M3GNet"] = load_m3gnet(m3gnet)
    fold = fold_of_model(model)
    parts: dict[str, Part] = {}
    with Console().status("starting") as status, warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        warnings.filterwarnings("ignore", "Converting 3x3 stress tensor")  # matgl's
        warnings.filterwarnings("ignore", "logm result may be inaccurate")  # ASE's cell filter
        if structures:
            chosen = lattice.select(structures, fold, n, _MAX_ATOMS)
            parts["lattice"] = _lattices(chosen, calculators, status.update)
        if elastic or displacements:  # small differences of energies and forces
            calculators["ours"] = QDGNNCalculator(model, dtype="float64")
        if elastic:
            parts["bulk modulus"] = _moduli(elastic, fold, calculators, status.update)
        if displacements:
            parts["phonons"] = _phonons(displacements, fold, calculators, status.update)
    text = "\n\n".join(f"## {name.capitalize()}\n{part['text']}" for name, part in parts.items())
    click.echo(text)
    if output:
        output.write_text(json.dumps(_document(model, parts), indent=1) + "\n")
    if markdown:
        markdown.write_text(text + "\n")
        for name, part in parts.items():
            picture = f"{markdown.stem}_{name.replace(' ', '_')}.png"
            _draw(part["draw"], markdown.with_name(picture))


def fold_of_model(model: str) -> Split:
    """Test fold of a checkpoint, out of its training configuration."""
    return Split.of_training(load_model(model)[1]["training"]["train_config"], "test")


def _lattices(chosen: list[Any], calculators: Calculators, show: Callable[[str], None]) -> Part:
    rows: dict[str, list[Row]] = {}
    for name, calculator in calculators.items():
        rows[name] = []
        for index, atoms in enumerate(chosen):
            show(f"relaxing with {name}: {index + 1} of {len(chosen)}")
            rows[name].append(lattice.lattice_error(atoms, calculator))
    summary = {name: lattice.summarise(mine) for name, mine in rows.items()}
    return _part(rows, summary, lattice.markdown(summary), lattice.draw)


def _moduli(path: str, fold: Split, calculators: Calculators, show: Callable[[str], None]) -> Part:
    crystals = equation_of_state.read_solids(path)
    rows: dict[str, list[Row]] = {}
    for name, calculator in calculators.items():
        rows[name] = []
        for solid, (atoms, wanted) in crystals.items():
            show(f"equations of state with {name}: {solid}")
            row = equation_of_state.modulus_error(atoms, wanted, calculator)
            mark = {"solid": solid, "test_fold": fold.holds(reduced_formula(atoms))}
            rows[name].append(mark | row)
    summary = {name: equation_of_state.summarise(mine) for name, mine in rows.items()}
    text = equation_of_state.markdown(rows, summary)
    return _part(rows, summary, text, equation_of_state.draw)


def _phonons(path: str, fold: Split, calculators: Calculators, show: Callable[[str], None]) -> Part:
    rows: dict[str, list[Row]] = {name: [] for name in calculators}
    for formula, frames in phonons.read_sets(path).items():
        show(f"phonons of {formula}: {len(frames)} supercells of {len(frames[0])} atoms")
        for name, row in phonons.compare(frames, calculators).items():
            rows[name].append(row | {"test_fold": fold.holds(formula)})
    summary = {name: phonons.summarise(mine) for name, mine in rows.items()}
    return _part(rows, summary, phonons.markdown(rows, summary), phonons.draw)


def _part(
    rows: dict[str, list[Row]],
    summary: dict[str, Row],
    text: str,
    draw: Callable[[Axes, dict[str, list[Row]]], None],
) -> Part:
    return {"rows": rows, "summary": summary, "text": text, "draw": lambda axes: draw(axes, rows)}


def _document(model: str, parts: dict[str, Part]) -> dict[str, Any]:
    head = measured()
    tables = {
        name: {"summary": part["summary"], "rows": _without_curves(part["rows"])}
        for name, part in parts.items()
    }
    return {"model": model, **head, **tables}


def _without_curves(rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Rows without their lists: frequencies of DFT belong to the data's owners."""
    return {
        name: [{k: v for k, v in row.items() if not isinstance(v, list)} for row in mine]
        for name, mine in rows.items()
    }


def _draw(draw: Callable[[Axes], None], path: Path) -> None:
    figure = Figure(figsize=(5, 4), layout="constrained")
    draw(figure.subplots())
    figure.savefig(path, dpi=120)
