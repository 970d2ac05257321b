"""`qdgnn generate`: from a family of crystals and wanted properties to new members."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import click
import numpy as np
import torch
from ase import Atoms
from rich.console import Console
from rich.table import Table

from qdgnn_ase import Predictor, read_structures
from qdgnn_design.evaluate import Values, surrogate
from qdgnn_design.generator import Generator, GeneratorConfig, sample, train_generator
from qdgnn_design.judge import Judge, fine_tune
from qdgnn_design.options import target_option
from qdgnn_design.protocol import SHARES, markdown, protocol, random_members, unlike
from qdgnn_design.prototype import Prototype, find_prototype
from qdgnn_design.targets import parse_target

console = Console(markup=False)


@click.command("generate")
@click.argument("structures", type=click.Path(exists=True, dir_okay=False))
@target_option("A value or a range, as in qdgnn design.")
@click.option("--samples", "-n", "n", default=200, show_default=True)
@click.option("--rounds", default=0, show_default=True, help="Of fine-tuning by policy gradient.")
@click.option("--batch", default=64, show_default=True, help="Structures of a round.")
@click.option("--epochs", default=GeneratorConfig.epochs, show_default=True)
@click.option("--model", default="properties", show_default=True, help="Property model, the judge.")
@click.option("--seed", default=0, show_default=True)
@click.option("--output", "-o", type=Path, required=True, help="Folder.")
def generate_command(
    structures: str, targets: tuple[str, ...], output: Path, **options: Any
) -> None:
    """Learn a family of crystals from STRUCTURES and generate members with wanted properties.

    The property model gives the values that are learned and judges the samples: hits are hits by
    its lights. Writes generated.extxyz (valid and unique, best first), protocol.json
    and protocol.md.
    """  # fmt: skip
    wanted = [parse_target(text) for text in targets]
    if bad := [target.name for target in wanted if target.goal != "range"]:
        raise click.UsageError(f"a generator needs values or ranges, got max or min of {bad}")
    try:
        prototype, members = find_prototype(every := read_structures(structures))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    training = [every[k] for k in members]
    console.print(f"{len(training)} of {len(every)} structures are of one family")
    judge = Judge(surrogate(Predictor(options["model"]), wanted), wanted)
    rows, best = _run(prototype, training, judge, options)
    output.mkdir(parents=True, exist_ok=True)
    ase.io.write(output / "generated.extxyz", best)
    document = {
        "structures": Path(structures).name,
        "members": len(training),
        "targets": [target.describe() for target in wanted],
        "tolerances": [target.tolerance for target in wanted],
        "judge": Path(options["model"]).name,
        "matcher": "pymatgen StructureMatcher, default tolerances, within a reduced formula",
        "relaxation": "none",
        "seed": options["seed"],
        "rows": rows,
    }
    (output / "protocol.json").write_text(json.dumps(document, indent=1) + "\n")
    (output / "protocol.md").write_text(markdown(document))
    _show(rows)
    console.print(f"wrote {len(best)} structures and the protocol to {output}")


def _run(
    prototype: Prototype, training: list[Atoms], judge: Judge, options: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[Atoms]]:
    """Rows of the protocol, and the last method's valid, unique structures, best first."""
    n, seed = options["n"], options["seed"]
    rng = np.random.default_rng(seed)
    values = judge.evaluator(training)
    known = [k for k, value in enumerate(values) if isinstance(value, Values)]
    labels = np.array(
        [[v.values[t.name] for t in judge.targets] for v in values if isinstance(v, Values)]
    )
    species, geometry = prototype.encode([training[k] for k in known])
    config = GeneratorConfig(seed=seed, epochs=options["epochs"])
    model = train_generator(prototype, species, geometry, labels, config)
    drawn = [training[k] for k in rng.integers(len(training), size=n)]
    sets = {
        "drawn from the training set": (drawn, 0),
        "random elements": (random_members(prototype, n, rng), 0),
        "generator": (_samples(model, prototype, judge, n, seed), 0),
    }
    if options["rounds"]:
        before = judge.calls
        fine_tune(
            model, prototype, judge, rounds=options["rounds"], batch=options["batch"], seed=seed + 1
        )
        spent = judge.calls - before
        name = "generator, fine-tuned"
        sets[name] = (_samples(model, prototype, judge, n, seed + 2), spent)
    rows = [
        {"method": name, "training_calls": spent} | protocol(found, training, judge)
        for name, (found, spent) in sets.items()
    ]
    return rows, _ranked(list(sets.values())[-1][0], judge)


def _samples(
    model: Generator, prototype: Prototype, judge: Judge, n: int, seed: int
) -> list[Atoms]:
    wanted = np.array([target.center for target in judge.targets])
    with torch.no_grad():
        species, geometry, _ = sample(model, wanted, n, torch.Generator().manual_seed(seed))
    return prototype.decode(species, geometry)


def _ranked(samples: Sequence[Atoms], judge: Judge) -> list[Atoms]:
    values = judge(samples)
    valid = [k for k, value in enumerate(values) if isinstance(value, Values)]
    unique = [valid[k] for k in unlike([samples[k] for k in valid], [])]
    for k in unique:
        value = values[k]
        if isinstance(value, Values):  # all are; tells the type checker
            samples[k].info = {t.name: value.values[t.name] for t in judge.targets}
    return [samples[k] for k in sorted(unique, key=lambda k: -judge.reward(values[k]))]


def _show(rows: Sequence[dict[str, Any]]) -> None:
    heads = [name.replace("_", "\n") for name in SHARES]
    table = Table("% of the samples", *heads, "training\ncalls")
    for row in rows:
        shares = [f"{100 * row[name]:.1f}" for name in SHARES]
        table.add_row(row["method"], *shares, str(row["training_calls"]))
    console.print(table)
