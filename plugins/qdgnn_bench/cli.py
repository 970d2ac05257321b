"""`qdgnn bench-faults`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from qdgnn_bench.faults import Case, Result, Subject
from qdgnn_bench.run import run_faults, summarise
from qdgnn_bench.subjects import emt, m3gnet, ours

_STYLES = {"ok": "green", "loud": "yellow", "silent": "bold red", "-": "dim"}
_LEGEND = (
    "ok: as the table asks; loud: an error where a value was due, or not the promised error; "
    "silent: a wrong answer and no error or due warning; -: does not apply"
)


@click.command()
@click.option(
    "--model", default="default", show_default=True, help="Embedded model or checkpoint file."
)
@click.option("--json", "output", type=Path, help="Write every answer to this file.")
@click.option("--ours-only", is_flag=True, help="Leave EMT and matgl out.")
def faults(model: str, output: Path | None, ours_only: bool) -> None:
    """Give broken input to our calculator, EMT and matgl; exit code 1 if ours fails a case."""
    console = Console()
    subjects = [ours(model)] if ours_only else [ours(model), emt(), *_matgl(console)]
    rows: list[list[Result]] = []
    with console.status("starting") as status:

        def show(case: Case) -> None:
            status.update(f"{case.fault}: {case.name}")

        rows += run_faults(subjects, progress=show)
    results = [result for row in rows for result in row]
    console.print(_table(rows, subjects))
    console.print(_LEGEND)
    summary = summarise(results)
    for name, row in summary.items():
        console.print(
            f"{name}: {row['fault_classes']} fault classes, {row['cases']} cases, "
            f"{row['silent']} silent wrong answers ({row['ok']} ok, {row['loud']} loud)"
        )
    failed = [r for r in results if r.subject == "ours" and r.outcome in ("loud", "silent")]
    for result in failed:
        console.print(f"ours failed {result.fault}, {result.case}: {result.detail}", markup=False)
    if output is not None:
        document = {"model": model, "summary": summary, "results": [asdict(r) for r in results]}
        output.write_text(json.dumps(document, indent=2, ensure_ascii=False))
        console.print(f"wrote {output}")
    if failed:
        raise click.exceptions.Exit(1)


def _matgl(console: Console) -> list[Subject]:
    try:
        return [m3gnet()]
    except ImportError as error:
        console.print(f"M3GNet: not installed ({error}); pip install 'qdgnn-ase\\[matgl]'")
        return []


def _table(rows: list[list[Result]], subjects: list[Subject]) -> Table:
    table = Table("fault", "case", "expected", *(subject.name for subject in subjects))
    fault = ""
    for row in rows:
        first = row[0]
        if first.fault != fault:
            table.add_section()
        cells = [f"[{_STYLES[r.outcome]}]{r.outcome}[/]" for r in row]
        table.add_row(
            "" if first.fault == fault else first.fault, first.case, first.expected, *cells
        )
        fault = first.fault
    return table
