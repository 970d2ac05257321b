"""`qdgnn bench-matcalc`: moduli and thermal expansion through matcalc, beside DFT."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import click
from ase import Atoms
from ase.calculators.calculator import Calculator
from rich.console import Console

from qdgnn_ase import ExtrapolationWarning, QDGNNCalculator, measured, reduced_formula
from qdgnn_bench.moduli import (
    Row,
    load_matcalc,
    markdown,
    moduli_errors,
    quasi_harmonic,
    read_labelled_solids,
    summarise,
)
from qdgnn_bench.peers import peers
from qdgnn_bench.solids import fold_of_model

_THERMAL = "MgO, rock salt"


@click.command()
@click.argument("elastic", type=click.Path(exists=True, dir_okay=False))
@click.option("--model", default="default", show_default=True)
@click.option(
    "--m3gnet", type=click.Path(exists=True, file_okay=False), help="Model folder of the peer."
)
@click.option("--all", "every", is_flag=True, help="All 20 solids, not only the test fold.")
@click.option("--json", "output", type=Path, help="Write every row to this file.")
@click.option("--markdown", "table", type=Path, help="Write the table to this file.")
def bench_matcalc(
    elastic: str,
    model: str,
    m3gnet: str | None,
    every: bool,
    output: Path | None,
    table: Path | None,
) -> None:
    """Elastic moduli of the solids of bench-solids, against the DFT labels of ELASTIC.

    ELASTIC has lines of JSON with material_id, log10_K_VRH and log10_G_VRH beside the crystal.
    """
    # matgl takes the backend of whoever imports it first, and matcalc imports it
    others = {name: load() for name, load in peers(m3gnet, chgnet=False).items()}
    try:
        load_matcalc()
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    fold = fold_of_model(model)
    crystals = read_labelled_solids(elastic)
    tested = {
        solid: found
        for solid, found in crystals.items()
        if every or fold.holds(reduced_formula(found[0]))
    }
    calculator = QDGNNCalculator(model, dtype="float64")  # small differences
    with _quiet_status() as progress:
        rows = _moduli(tested, calculator, progress)
        theirs = {name: _moduli(tested, other, progress) for name, other in others.items()}
        progress(f"quasi-harmonic: {_THERMAL}")
        thermal = {"solid": _THERMAL} | quasi_harmonic(crystals[_THERMAL][0], calculator)
    summary = summarise(rows)
    peer_summaries = {name: summarise(found) for name, found in theirs.items()}
    document = {
        "model": model,
        **measured(),
        "matcalc": version("matcalc"),
        "summary": summary,
        "rows": rows,
        "peers": {name: {"summary": peer_summaries[name], "rows": theirs[name]} for name in theirs},
        "quasi_harmonic": thermal,
    }
    head = (
        f"matcalc {document['matcalc']}, {document['date']}, {document['machine']}, "
        f"{sum(row['seconds'] for row in (*rows, thermal)):.0f} CPU seconds; "
        f"{'all solids' if every else 'compositions of the test fold'}."
    )
    text = f"{head}\n\n{markdown(rows, summary, thermal, peer_summaries)}\n"
    click.echo(text)
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
    if table:
        table.write_text(text)


@contextmanager
def _quiet_status() -> Iterator[Callable[[str], None]]:
    with Console().status("starting") as status, warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        warnings.filterwarnings("ignore", "logm result may be inaccurate")  # ASE's cell filter
        yield status.update


def _moduli(
    solids: dict[str, tuple[Atoms, dict[str, float]]],
    calculator: Calculator,
    progress: Callable[[str], None],
) -> list[Row]:
    """A row for each solid: its crystal and its moduli of DFT are given."""
    rows: list[Row] = []
    for solid, (atoms, wanted) in solids.items():
        progress(f"moduli: {solid}")
        rows.append({"solid": solid} | moduli_errors(atoms, wanted, calculator))
    return rows
