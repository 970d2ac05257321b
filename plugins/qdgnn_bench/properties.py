"""`qdgnn bench-properties`: property models on the same rows, in the same CPU time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from qdgnn_ase import claim_folder, measured
from qdgnn_bench.baselines import BASELINES
from qdgnn_bench.property_report import markdown, parity_plot, short_table, summarise
from qdgnn_bench.property_rows import TEST, Rows, compared, select
from qdgnn_bench.property_runs import OURS, Protocol, Result, result_file, run
from qdgnn_bench.property_timing import inference
from qdgnn_bench.readme import check_blocks, replace_blocks
from qdgnn_bench.trivial import trivial_predictions

Array = NDArray[np.float64]


@click.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--target", "targets", multiple=True, required=True, metavar="NAME=COLUMN")
@click.option("--rows", default=8_000, show_default=True, help="For training, at most.")
@click.option("--max-atoms", default=40, show_default=True)
@click.option("--minutes", default=30.0, show_default=True, help="CPU time of a run.")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="Cross-validation: as many runs of a model, each tested on another part of the formulas.",
)
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
    folds: int | None,
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
    protocols = []
    for k in range(folds or 1):
        test, turn = (1 / folds, k / folds) if folds else (TEST, 0.0)
        parts = select(
            file,
            columns,
            train=rows,
            max_atoms=max_atoms,
            test=test,
            turn=turn,
            whole_test=folds is not None,
        )
        folder = output / f"fold-{k}" if folds else output
        (folder / "tuning").mkdir(parents=True, exist_ok=True)
        protocols.append(Protocol(parts, tuple(columns), minutes, folder, test, turn))
    sizes = {
        name: sum(len(protocol.folds[name].structures) for protocol in protocols)
        for name in protocols[0].folds
    }
    head = {
        "file": file.name,
        "columns": columns,
        "rows": sizes,
        "max_atoms": max_atoms,
        "minutes": minutes,
    } | ({"folds": folds} if folds else {})
    claim_folder(output / "protocol.json", head)
    trivial = _trivial(protocols)
    results: dict[str, list[Result]] = {}
    for seed in map(int, seeds.split(",")):
        for name in names:
            click.echo(f"{name}, seed {seed} ...")
            runs = [run(protocol, name, seed) for protocol in protocols]
            results.setdefault(name, []).extend(runs)
            _write(output, protocols, head, results, trivial)
    timing = inference(protocols[0], names)
    document = _write(output, protocols, head, results, trivial, timing)
    click.echo(markdown(document))
    if readme:
        replace_blocks(readme, {"comparison": short_table(document)})


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--readme", type=click.Path(exists=True), help="Replace the table in it.")
def report(results: Path, readme: str | None) -> None:
    """Write the tables of RESULTS, a properties.json, beside it again; nothing is trained."""
    if readme:
        check_blocks(readme, "comparison")
    try:
        document = json.loads(results.read_text())
        table, short = markdown(document), short_table(document)
    except (ValueError, TypeError, KeyError) as error:
        raise click.UsageError(
            f"{results} must be a properties.json of `qdgnn bench-properties`, got a file that "
            f"cannot be read as one ({error!r})"
        ) from error
    results.with_suffix(".md").write_text(table)
    click.echo(table)
    if readme:
        replace_blocks(readme, {"comparison": short})


def _trivial(protocols: Sequence[Protocol]) -> dict[str, Array]:
    """Predictions of the models without a network for all test rows."""
    found = []
    for protocol in protocols:
        train, test = protocol.folds["train"], protocol.folds["test"]
        labels = compared(protocol.targets, train.labels)
        found.append(trivial_predictions(train.structures, labels, test.structures))
    return {name: np.concatenate([values[name] for values in found]) for name in found[0]}


def _names(models: str) -> list[str]:
    """Models by the part before the first blank or by their whole name with dashes."""
    known = {name.replace(", ", "-").replace(" ", "-"): name for name in [*BASELINES, *OURS]}
    if unknown := [name for name in models.split(",") if name not in known]:
        raise click.UsageError(f"--models must be of {list(known)}, got {unknown}")
    return [known[name] for name in models.split(",")]


def _write(
    output: Path,
    protocols: Sequence[Protocol],
    head: dict[str, Any],
    results: dict[str, list[Result]],
    trivial: dict[str, Array],
    timing: dict[str, dict[str, float]] | None = None,
) -> dict[str, Any]:
    targets = protocols[0].targets
    test = Rows.joined([protocol.folds["test"] for protocol in protocols])
    values = {
        name: [
            np.concatenate([_values(protocol, name, seed) for protocol in protocols])
            for seed in dict.fromkeys(run["seed"] for run in runs)
        ]
        for name, runs in results.items()
    }
    every = values | {name: [found] for name, found in trivial.items()}
    document = {
        **head,
        "targets": targets,
        "seeds": sorted({run["seed"] for runs in results.values() for run in runs}),
        **measured(),
        "torch": torch.__version__,
        "errors": summarise(targets, test, every),
        "runs": results,
        "inference": timing or {},
    }
    (output / "properties.json").write_text(json.dumps(document, indent=1) + "\n")
    (output / "properties.md").write_text(markdown(document))
    parity_plot(output / "parity.png", targets, test, values)
    return document


def _values(protocol: Protocol, name: str, seed: int) -> Array:
    """Test values of a finished run."""
    values: Array = np.load(result_file(protocol.folder, name, seed).with_suffix(".npy"))
    return values
