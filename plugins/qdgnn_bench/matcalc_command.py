"""`qdgnn bench-matcalc`: moduli and thermal expansion through matcalc, beside DFT."""

from __future__ import annotations

import json
import platform
import warnings
from datetime import date
from importlib.metadata import version
from pathlib import Path

import click
from rich.console import Console

from qdgnn_ase import ExtrapolationWarning, QDGNNCalculator, reduced_formula
from qdgnn_bench.moduli import (
    Row,
    load_matcalc,
    markdown,
    moduli_errors,
    quasi_harmonic,
    read_labelled_solids,
    summarise,
)
from qdgnn_bench.solids import fold_of_model

_THERMAL = "MgO, rock salt"


@click.command()
@click.argument("elastic", type=click.Path(exists=True, dir_okay=False))
@click.option("--model", default="default", show_default=True)
@click.option("--all", "every", is_flag=True, help="All 20 solids, not only the test fold.")
@click.option("--json", "output", type=Path, help="Write every row to this file.")
@click.option("--markdown", "table", type=Path, help="Write the table to this file.")
def bench_matcalc(
    elastic: str, model: str, every: bool, output: Path | None, table: Path | None
) -> None:
    """Elastic moduli of the solids of bench-solids, against the DFT labels of ELASTIC.

    ELASTIC has lines of JSON with material_id, log10_K_VRH and log10_G_VRH beside the crystal.
    """
    try:
        load_matcalc()
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    fold = fold_of_model(model)
    crystals = read_labelled_solids(elastic)
    calculator = QDGNNCalculator(model, dtype="float64")  # small differences
    rows: list[Row] = []
    with Console().status("starting") as status, warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        warnings.filterwarnings("ignore", "logm result may be inaccurate")  # ASE's cell filter
        for solid, (atoms, wanted) in crystals.items():
            if not (every or fold.holds(reduced_formula(atoms))):
                continue
            status.update(f"moduli: {solid}")
            rows.append({"solid": solid} | moduli_errors(atoms, wanted, calculator))
        status.update(f"quasi-harmonic: {_THERMAL}")
        thermal = {"solid": _THERMAL} | quasi_harmonic(crystals[_THERMAL][0], calculator)
    summary = summarise(rows)
    document = {
        "model": model,
        "date": date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "matcalc": version("matcalc"),
        "summary": summary,
        "rows": rows,
        "quasi_harmonic": thermal,
    }
    head = (
        f"matcalc {document['matcalc']}, {document['date']}, {document['machine']}, "
        f"{sum(row['seconds'] for row in (*rows, thermal)):.0f} CPU seconds; "
        f"{'all solids' if every else 'compositions of the test fold'}."
    )
    text = f"{head}\n\n{markdown(rows, summary, thermal)}\n"
    click.echo(text)
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
    if table:
        table.write_text(text)
