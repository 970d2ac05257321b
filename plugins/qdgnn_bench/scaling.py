"""`qdgnn bench-scaling`: time and memory of training against the number of structures."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch

from qdgnn_ase import PropertyTrainConfig, fit, measured
from qdgnn_bench.property_rows import VAL, select, write_rows
from qdgnn_bench.speed_worker import one_thread, status_mb

_EPOCHS = 3
"""The first one compiles and is left out."""


@click.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--target", "targets", multiple=True, required=True, metavar="NAME=COLUMN")
@click.option("--sizes", default="1000,5000,25000", show_default=True, help="Training structures.")
@click.option("--max-atoms", default=60, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also writes a .md beside.")
def scaling(
    file: Path, *, targets: tuple[str, ...], sizes: str, max_atoms: int, output: Path | None
) -> None:
    """Train on so many structures of FILE, each size in a process of its own, on one thread."""
    columns = dict(target.split("=", 1) for target in targets)
    rows = [measure(file, columns, int(size), max_atoms) for size in sizes.split(",")]
    document = {
        "file": file.name,
        "columns": columns,
        "max_atoms": max_atoms,
        **measured(),
        "torch": torch.__version__,
        "rows": rows,
        "exponent": exponent(rows),
    }
    click.echo(markdown(document))
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
        output.with_suffix(".md").write_text(markdown(document))


def measure(file: Path, columns: Mapping[str, str], size: int, max_atoms: int) -> dict[str, Any]:
    """CPU seconds of an epoch, validation included, and peak memory of the whole run.

    Returns:
        ``structures``, ``atoms`` of the training fold, ``epoch_s``, ``structures_per_s`` and
        ``peak_mb``.
    """
    folds = select(file, columns, train=size, max_atoms=max_atoms)
    structures = folds["train"].structures
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        write_rows(rows, list(folds.values()), tuple(columns))
        with one_thread(), ProcessPoolExecutor(1, get_context("spawn")) as process:
            seconds, peak = process.submit(_train, rows, tuple(columns), max_atoms).result()
    return {
        "structures": len(structures),
        "atoms": sum(map(len, structures)),
        "epoch_s": seconds,
        "structures_per_s": len(structures) / seconds,
        "peak_mb": peak,
    }


def _train(rows: Path, targets: tuple[str, ...], max_atoms: int) -> tuple[float, float]:
    """CPU seconds of the fastest epoch but the first, and peak memory of this process in MB."""
    torch.set_num_threads(1)
    config = PropertyTrainConfig.from_dict(
        {
            "sources": [{"file": str(rows), "columns": {name: name for name in targets}}],
            "trunk": {"hidden": 96, "quantum": "t0_moments"},
            "epochs": _EPOCHS,
            "max_atoms": max_atoms,
            "max_edges": 30_000,
            "compiled": True,
            "val": VAL,
        }
    )
    run = fit(config, rows.parent / "run").parent
    with (run / "history.csv").open() as lines:
        seconds = [float(row["cpu_seconds"]) for row in csv.DictReader(lines)]
    return min(seconds[1:]), status_mb("VmHWM")


def exponent(rows: Sequence[Mapping[str, Any]]) -> float:
    """B of epoch_s ~ structures^b by least squares of the logarithms; NaN for a single size."""
    if len(rows) < 2:
        return float("nan")
    sizes, seconds = (np.log([row[key] for row in rows]) for key in ("structures", "epoch_s"))
    return float(np.polyfit(sizes, seconds, 1)[0])


def markdown(document: Mapping[str, Any]) -> str:
    """Table of a document of `qdgnn bench-scaling`."""
    lines = [
        f"{document['file']}, structures of at most {document['max_atoms']} atoms, "
        f"{', '.join(document['columns'])}; compiled step on one thread of {document['machine']}, "
        f"torch {document['torch']}, {document['date']}. Time ~ structures^"
        f"{document['exponent']:.2f}.",
        "",
        "| structures | atoms | CPU s per epoch | structures per CPU s | peak memory, MB |",
        "|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        lines.append(
            f"| {row['structures']:,} | {row['atoms']:,} | {row['epoch_s']:.1f} | "
            f"{row['structures_per_s']:.0f} | {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"
