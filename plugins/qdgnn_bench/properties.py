"""`qdgnn bench-properties`: property models on the same rows, in the same CPU time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from qdgnn_ase import claim_folder, measured
from qdgnn_bench.baselines import BASELINES
from qdgnn_bench.property_report import markdown, parity_plot, short_table, summarise
from qdgnn_bench.property_rows import compared, select
from qdgnn_bench.property_runs import OURS, Protocol, Result, result_file, run
from qdgnn_bench.property_timing import inference
from qdgnn_bench.readme import check_blocks, replace_blocks
from qdgnn_bench.trivial import trivial_predictions


@click.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--target", "targets", multiple=True, required=True, metavar="NAME=COLUMN")
@click.option("--rows", default=8_000, show_default=True, help="For training, at most.")
@click.option("--max-atoms", default=40, show_default=True)
@click.option("--minutes", default=30.0, show_default=True, help="CPU time of a run.")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option(
    "--models",
    default="CGCNN,MEGNet,SchNet,MPNN,qdgnn",
    show_default=True,
    help=f"Of {', '.join([*BASELINES, *OURS])}; separated by commas without blanks.",
)
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--readme", type=click.Path(exists=True), help="Replace the table in it.")
def properties(
    file: Path,
    *,
    targets: tuple[str, ...],
    rows: int,
    max_atoms: int,
    minutes: float,
    seeds: str,
    models: str,
    output: Path,
    readme: str | None,
) -> None:
    """Train models for the targets of FILE and compare them on its test fold.

    Goes on where it was killed: finished runs are kept. Writes properties.json, properties.md and
    parity.png into the folder after every run.
    """
    torch.set_num_threads(1)
    if readme:
        check_blocks(readme, "comparison")
    columns = dict(target.split("=", 1) for target in targets)
    names = _names(models)
    folds = select(file, columns, train=rows, max_atoms=max_atoms)
    output.mkdir(parents=True, exist_ok=True)
    (output / "tuning").mkdir(exist_ok=True)
    protocol = Protocol(folds, tuple(columns), minutes, output)
    head = {
        "file": file.name,
        "columns": columns,
        "rows": {name: len(fold.structures) for name, fold in folds.items()},
        "max_atoms": max_atoms,
        "minutes": minutes,
    }
    claim_folder(output / "protocol.json", head)
    train, test = folds["train"], folds["test"]
    labels = compared(protocol.targets, train.labels)
    trivial = trivial_predictions(train.structures, labels, test.structures)
    results: dict[str, list[Result]] = {}
    for seed in map(int, seeds.split(",")):
        for name in names:
            click.echo(f"{name}, seed {seed} ...")
            results.setdefault(name, []).append(run(protocol, name, seed))
            _write(protocol, head, results, trivial)
    document = _write(protocol, head, results, trivial, inference(protocol, names))
    click.echo(markdown(document))
    if readme:
        replace_blocks(readme, {"comparison": short_table(document)})


def _names(models: str) -> list[str]:
    """Models by the part before the first blank or by their whole name with dashes."""
    known = {name.replace(", ", "-").replace(" ", "-"): name for name in [*BASELINES, *OURS]}
    if unknown := [name for name in models.split(",") if name not in known]:
        raise click.UsageError(f"--models must be of {list(known)}, got {unknown}")
    return [known[name] for name in models.split(",")]


def _write(
    protocol: Protocol,
    head: dict[str, Any],
    results: dict[str, list[Result]],
    trivial: dict[str, Any],
    timing: dict[str, dict[str, float]] | None = None,
) -> dict[str, Any]:
    test = protocol.folds["test"]
    values = {
        name: [
            np.load(result_file(protocol.folder, name, run["seed"]).with_suffix(".npy"))
            for run in runs
        ]
        for name, runs in results.items()
    }
    every = values | {name: [found] for name, found in trivial.items()}
    document = {
        **head,
        "targets": protocol.targets,
        "seeds": sorted({run["seed"] for runs in results.values() for run in runs}),
        **measured(),
        "torch": torch.__version__,
        "errors": summarise(protocol.targets, test, every),
        "runs": results,
        "inference": timing or {},
    }
    (protocol.folder / "properties.json").write_text(json.dumps(document, indent=1) + "\n")
    (protocol.folder / "properties.md").write_text(markdown(document))
    parity_plot(protocol.folder / "parity.png", protocol.targets, test, values)
    return document
