"""`qdgnn bench-arms`: variants of a training run at equal CPU time, on the validation fold.

A specification is a JSON object: ``base`` (a `TrainConfig`), ``arms`` (name -> fields that differ,
``{"model": {...}}`` merged into the base's), ``files`` (labelled structures to score), ``minutes``
and ``seeds``; files are relative to ``--data``. Those of the repository are in
``plugins/qdgnn_bench/specifications``. The first arm is the one that the others are compared with.
Every arm is timed for two epochs and then gets as many epochs as fit into the minutes, so that each
runs its whole schedule. The test fold is never looked at.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from qdgnn_ase import QDGNNCalculator, Split, TrainConfig, evaluate, fit, measured

_METRICS = {"energy_mae": "E, eV/atom", "forces_mae": "F, eV/Å", "stress_mae": "S, GPa"}

Result = dict[str, Any]


@click.command()
@click.argument("specification", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Folder that the specification's files are relative to.",
)
@click.option("--only", multiple=True, help="Train these arms only.")
def arms(specification: Path, output: Path, data: Path, only: tuple[str, ...]) -> None:
    """Train each arm of SPECIFICATION for each seed; goes on where it was killed.

    Writes arms.json and arms.md into the folder after every run.
    """
    spec = located(json.loads(specification.read_text()), data)
    unknown = set(only) - set(spec["arms"])
    if unknown:
        raise click.UsageError(f"--only must be of {list(spec['arms'])}, got {sorted(unknown)}")
    torch.set_num_threads(1)
    for seed in spec["seeds"]:
        for name in only or spec["arms"]:
            run_arm(spec, name, seed, output)
            results = list(finished(spec, output))
            document = _document(spec, results)
            (output / "arms.json").write_text(json.dumps(document, indent=1) + "\n")
            (output / "arms.md").write_text(markdown(document))
            click.echo(markdown(document))


def located(spec: dict[str, Any], data: Path) -> dict[str, Any]:
    """The specification with its files in a folder.

    Raises:
        click.UsageError: If one of them is not there.
    """

    def place(part: dict[str, Any]) -> dict[str, Any]:
        return part | {"files": [_existing(data / name) for name in part["files"]]}

    changed = {name: place(arm) if "files" in arm else arm for name, arm in spec["arms"].items()}
    return place(spec) | {"base": place(spec["base"]), "arms": changed}


def _existing(path: Path) -> str:
    if not path.is_file():
        raise click.UsageError(
            f"files of a specification must exist, got {path}; give their folder by --data"
        )
    return str(path)


def run_arm(spec: dict[str, Any], name: str, seed: int, folder: Path) -> Result:
    """Result of one run; trained unless its file exists."""
    target = _result_file(folder, name, seed)
    if target.is_file():
        done: Result = json.loads(target.read_text())
        return done
    seconds = epoch_seconds(arm_config(spec, name, seed=0, epochs=2), folder / name / "timing")
    epochs = max(1, round(60 * spec["minutes"] / seconds))
    config = arm_config(spec, name, seed=seed, epochs=epochs)
    result = {"arm": name, "seed": seed, "epochs": epochs, "epoch_cpu_seconds": seconds}
    try:
        best = fit(config, folder / name / str(seed))
    except FloatingPointError as error:
        result["failure"] = str(error)
    else:
        result |= _scores(best, config, spec["files"])
    target.write_text(json.dumps(result, indent=1))
    return result


def _scores(best: Path, config: TrainConfig, files: list[str]) -> Result:
    calculator = QDGNNCalculator(best)
    fold = Split("val", val=config.val, test=config.test, seed=config.split_seed)
    errors = {
        Path(file).name: evaluate(calculator, file, max_atoms=config.max_atoms, split=fold)
        for file in files
    }
    return {
        "parameters": sum(p.numel() for p in calculator.model.parameters()),
        "errors": errors,
    }


def arm_config(spec: dict[str, Any], name: str, *, seed: int, epochs: int) -> TrainConfig:
    """The base's config with the arm's fields."""
    base, changes = spec["base"], spec["arms"][name]
    model = base.get("model", {}) | changes.get("model", {})
    return TrainConfig.from_dict(base | changes | {"model": model, "seed": seed, "epochs": epochs})


def epoch_seconds(config: TrainConfig, folder: Path) -> float:
    """CPU seconds of an epoch after the first, in which a compiled step is compiled."""
    fit(config, folder)
    with (folder / "history.csv").open() as rows:
        return float(list(csv.DictReader(rows))[-1]["cpu_seconds"])


def finished(spec: dict[str, Any], folder: Path) -> Iterator[Result]:
    """Results that exist, by arm and seed."""
    for name in spec["arms"]:
        for seed in spec["seeds"]:
            path = _result_file(folder, name, seed)
            if path.is_file():
                yield json.loads(path.read_text())


def _result_file(folder: Path, name: str, seed: int) -> Path:
    return folder / name / f"result-{seed}.json"


def _document(spec: dict[str, Any], results: list[Result]) -> dict[str, Any]:
    arms = {name: _named(arm) if "files" in arm else arm for name, arm in spec["arms"].items()}
    return {
        **measured(),
        "torch": torch.__version__,
        "specification": _named(spec) | {"base": _named(spec["base"]), "arms": arms},
        "results": results,
    }


def _named(part: dict[str, Any]) -> dict[str, Any]:
    """A part of the specification with the names of its files, without their folders."""
    return part | {"files": [Path(name).name for name in part["files"]]}


def markdown(document: dict[str, Any]) -> str:
    """Table: a row per arm, mean over seeds and files, and errors relative to the first arm."""
    spec, results = document["specification"], document["results"]
    first = next(iter(spec["arms"]))
    lines = [
        f"Validation fold, {spec['minutes']} CPU minutes per run, seeds {spec['seeds']}, one "
        f"thread, {document['date']}. Ratios: geometric mean over files, the same seeds of "
        f"`{first}` below; range over seeds in brackets. Runs without a finite loss are left out "
        "of the numbers and named.",
        "",
        "| arm | parameters | CPU s/epoch | epochs | "
        + " | ".join(f"{label} | ratio" for label in _METRICS.values())
        + " |",
        "|---|---|---|---|" + "---|---|" * len(_METRICS),
    ]
    for name in spec["arms"]:
        runs = {r["seed"]: r for r in results if r["arm"] == name and "failure" not in r}
        base = {r["seed"]: r for r in results if r["arm"] == first and "failure" not in r}
        if runs:
            lines.append(_row(name, runs, {seed: base[seed] for seed in runs if seed in base}))
    failed = [f"{r['arm']} (seed {r['seed']})" for r in results if "failure" in r]
    if failed:
        lines += ["", f"Diverged: {', '.join(failed)}."]
    return "\n".join(lines) + "\n"


def _row(name: str, runs: dict[int, Result], base: dict[int, Result]) -> str:
    some = next(iter(runs.values()))
    cells = [
        name,
        f"{some['parameters']:,}",
        f"{np.mean([r['epoch_cpu_seconds'] for r in runs.values()]):.1f}",
        "/".join(str(r["epochs"]) for r in runs.values()),
    ]
    for metric in _METRICS:
        cells.append(f"{np.mean([np.mean(_values(r, metric)) for r in runs.values()]):.3f}")
        ratios = [_ratio(runs[seed], base[seed], metric) for seed in base]
        spread = f" [{min(ratios):.2f}, {max(ratios):.2f}]" if len(ratios) > 1 else ""
        cells.append(f"{np.mean(ratios):.3f}{spread}" if ratios else "")
    return f"| {' | '.join(cells)} |"


def _ratio(run: Result, base: Result, metric: str) -> float:
    """Geometric mean over files of an error relative to the other run's."""
    ratios = np.array(_values(run, metric)) / np.array(_values(base, metric))
    return float(np.exp(np.log(ratios).mean()))


def _values(run: Result, metric: str) -> list[float]:
    return [errors[metric] for errors in run["errors"].values()]
