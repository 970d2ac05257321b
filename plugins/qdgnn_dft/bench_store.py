"""`qdgnn bench-store`: is anything lost, doubled or changed when writers die and files rot?"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import click

from qdgnn_ase import measured
from qdgnn_dft.store_trial import damage_files, kill_writers


@click.command("bench-store")
@click.option("--rows", default=1_000, show_default=True)
@click.option("--writers", default=4, show_default=True)
@click.option("--kills", default=20, show_default=True)
@click.option("--damages", default=60, show_default=True)
@click.option("--json", "output", type=Path, help="Write the result to this file.")
def bench_store(rows: int, writers: int, kills: int, damages: int, output: Path | None) -> None:
    """Kill the writers of a result store and damage its file; exit code 1 if it fails."""
    started = perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        killed = kill_writers(folder / "killed.db", rows=rows, writers=writers, kills=kills)
        damaged = damage_files(folder, damages=damages)
    click.echo(
        f"{writers} writers, {killed.rows} rows, {killed.kills} kills: {killed.lost} lost, "
        f"{killed.duplicated} duplicated, {killed.corrupt} corrupt\n"
        f"{damaged.damages} damages, {damaged.noticed} noticed: {damaged.values_changed} returned "
        f"values changed, {damaged.rows_missing} rows to compute again, {damaged.unusable} files "
        "unusable afterwards"
    )
    if output:
        document = {
            **measured(),
            "seconds": round(perf_counter() - started, 1),
            "writers": writers,
            "killed": asdict(killed),
            "damaged": asdict(damaged),
        }
        output.write_text(json.dumps(document, indent=1) + "\n")
    failed = killed.lost + killed.duplicated + killed.corrupt + damaged.values_changed
    if failed or damaged.unusable:
        raise click.exceptions.Exit(1)
