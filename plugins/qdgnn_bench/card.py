"""`qdgnn bench-card`: evaluate a model and write its card and the README's tables.

The README's block "errors" is made here; other tables of the potential are files of a folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from qdgnn_ase import Evaluation, QDGNNCalculator, Split, frame_errors, load_model, measured
from qdgnn_bench.peers import METRICS, ZERO, ZeroForces, compare, peer_errors, peer_section, peers
from qdgnn_bench.readme import check_blocks, last_notes, replace_blocks, versions

_OF_POTENTIALS = ("arms_quantum", "diffusion", "matcalc", "solids", "speed")
"""Tables that belong on the card of a potential; the README takes those that it has a block for."""


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--model", required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--max-atoms", default=120, show_default=True)
@click.option("--dynamics", type=click.Path(exists=True), help="JSON of `qdgnn bench-md`.")
@click.option("--readme", type=click.Path(exists=True), help="Replace the tables in it.")
@click.option(
    "--tables",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of Markdown tables of other benchmarks, for card and README.",
)
@click.option("--note", multiple=True, help="Line for the card; without any, the last card's.")
@click.option(
    "--m3gnet", type=click.Path(exists=True, file_okay=False), help="Model folder of the peer."
)
@click.option("--chgnet", is_flag=True, help="CHGNet beside ours too.")
@click.option(
    "--peers-cache",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file of the peers' errors, read and extended.",
)
def card(
    files: tuple[str, ...],
    model: str,
    max_atoms: int,
    dynamics: str | None,
    readme: str | None,
    tables: Path | None,
    note: tuple[str, ...],
    m3gnet: str | None,
    chgnet: bool,
    peers_cache: Path | None,
) -> None:
    """Errors of MODEL on its own test fold of FILES; writes MODEL.json and MODEL.md beside it."""
    others = _tables(tables) if tables else {}
    if readme:
        check_blocks(readme, "errors", {"properties", "comparison", *others})
    document = load_model(model)[1]
    config = document["training"]["train_config"]
    fold = Split.of_training(config, "test")
    calculator = QDGNNCalculator(model)
    ours = {
        Path(name).name: frame_errors(calculator, name, max_atoms=max_atoms, split=fold)
        for name in files
    }
    errors = {name: evaluation.report() for name, evaluation in ours.items()}
    loaders = peers(m3gnet, chgnet)
    theirs = peer_errors(loaders, files, max_atoms=max_atoms, split=fold, cache=peers_cache)
    result = {
        "model": document,
        "errors": errors,
        "peers": compare(ours, theirs | _zero(files, max_atoms, fold)) if theirs else {},
        "max_atoms": max_atoms,
        "dynamics": json.loads(Path(dynamics).read_text())["rows"] if dynamics else [],
        "notes": list(note) or last_notes(model),
        **measured(),
    }
    target = Path(model)
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    target.with_suffix(".md").write_text(_markdown(target.stem, result, others))
    if readme:
        replace_blocks(readme, others | {"errors": error_table(errors)})
    click.echo(error_table(errors))


def _zero(files: Sequence[str], max_atoms: int, fold: Split) -> dict[str, dict[str, Evaluation]]:
    return peer_errors({ZERO: ZeroForces}, files, max_atoms=max_atoms, split=fold)


def error_table(errors: dict[str, Any]) -> str:
    """Markdown table: one row per file, mean absolute errors with 95 % intervals."""
    lines = [
        "| file | frames | formulas | " + " | ".join(METRICS.values()) + " |",
        "|---|---|---|" + "---|" * len(METRICS),
    ]
    for name, row in errors.items():
        cells = [f"{row[m]:.3f} ({_interval(row, m)})" for m in METRICS]
        lines.append(f"| {name} | {row['frames']} | {row['formulas']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(row: dict[str, Any], metric: str) -> str:
    return "-".join(f"{bound:.3f}" for bound in row[f"{metric}_interval"])


def _tables(folder: Path) -> dict[str, str]:
    """Name -> Markdown of the benchmarks of potentials."""
    files = [folder / f"{name}.md" for name in _OF_POTENTIALS]
    return {path.stem: path.read_text() for path in files if path.is_file()}


def _markdown(name: str, result: dict[str, Any], others: dict[str, str]) -> str:
    stages = _stages(result["model"]["training"])
    dynamics = [f"- {_dynamics(row)}" for row in result["dynamics"]]
    return "\n".join(
        [
            f"# Model card: {name}",
            "",
            f"Made on {result['date']} ({result['machine']}), {versions(result['model'])}.",
            "",
            "## Training",
            "Split by reduced formula: no composition of the test fold is in a training file.",
            *[f"- {line}" for line in result["notes"]],
            "",
            *[line for k, stage in enumerate(stages) for line in _stage(k + 1, stage)],
            "## Errors on the test fold (mean absolute, 95 % intervals over formulas)",
            error_table(result["errors"]),
            "",
            *(peer_section(result["peers"]) if result["peers"] else []),
            "## Dynamics",
            *(dynamics or ["Not measured for these weights."]),
            "",
            *[f"## {title.capitalize()}\n{_lower(text)}" for title, text in others.items()],
        ]
    )


def _stages(training: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs behind a model, first one first."""
    return [*(_stages(training["init"]) if "init" in training else []), training]


def _stage(number: int, training: dict[str, Any]) -> list[str]:
    return [
        f"### Stage {number}",
        "| file | train | validation | test | left out | sha256 |",
        "|---|---|---|---|---|---|",
        *[
            f"| {row['name']} | {row['train']} | {row['val']} | {row['test']} | "
            f"{row['too_large'] + row['too_wild']} | {row['sha256'][:12]} |"
            for row in training["files"]
        ],
        "",
        "`qdgnn train CONFIG.json -o RUN` with",
        "```json",
        json.dumps(training["train_config"], indent=1),
        "```",
        "",
    ]


def _dynamics(row: dict[str, Any]) -> str:
    head = f"{row['system']}, {row['ensemble']}, {row['time_ps']:g} ps, {row['temperature']:.0f} K"
    if "drift_mev_atom_ps" in row:
        return f"{head}: drift {row['drift_mev_atom_ps']:+.1e} meV/atom/ps"
    return f"{head}: {'survived' if row['survived'] else 'FAILED: ' + row['failure']}"


def _lower(text: str) -> str:
    """Headings one level down."""
    return re.sub(r"^#", "##", text, flags=re.MULTILINE)
