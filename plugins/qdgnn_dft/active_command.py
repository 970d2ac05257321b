"""`qdgnn active-learn`."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from qdgnn_ase import label, read_structures
from qdgnn_dft.active import ActiveConfig, Arm, run_arm
from qdgnn_dft.active_report import compared, markdown
from qdgnn_dft.backend import backend_of
from qdgnn_dft.calculator import stored_calculator

console = Console(markup=False)


@click.command("active-learn")
@click.argument("pool", type=click.Path(exists=True, dir_okay=False))
@click.option("--backend", required=True, help="Labeller: gpaw, emt, qdgnn or MODULE:FUNCTION.")
@click.option("--output", "-o", type=Path, required=True, help="Folder of the run.")
@click.option("--test", type=click.Path(exists=True), help="Test structures; a fifth of POOL else.")
@click.option("--model", default="default", show_default=True)
@click.option("--start", default=8, show_default=True, help="Random structures at the start.")
@click.option("--batch", default=8, show_default=True, help="Structures per round.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--epochs", default=30, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=1, show_default=True, help="Processes that label.")
@click.option("--beside-random", is_flag=True, help="The same with a random selection, to compare.")
def active_learn(
    *,
    pool: str,
    backend: str,
    output: Path,
    test: str | None,
    jobs: int,
    beside_random: bool,
    **sizes: object,
) -> None:
    """Choose from POOL what the model knows least, label it, fine-tune, repeat.

    Goes on where it was killed. The folder holds the labels, the models and report.json.
    """
    try:
        backend_of(backend)
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    config = ActiveConfig(**sizes)  # type: ignore[arg-type]  # the options are its fields
    candidates = read_structures(pool)
    held_out = read_structures(test) if test else []
    if not test:
        order = np.random.default_rng(config.seed).permutation(len(candidates))
        n_test = max(1, len(candidates) // 5)
        held_out = [candidates[index] for index in order[:n_test]]
        candidates = [candidates[index] for index in order[n_test:]]
    if len(candidates) < config.start:
        raise click.UsageError(f"POOL must hold at least {config.start} structures to start with")
    factory = partial(stored_calculator, backend, str(output / "results.db"), str(output / "logs"))
    test_file = output / "test.extxyz"
    arms: list[Arm] = ["active", "random"] if beside_random else ["active"]
    with console.status("labelling the test structures") as status:
        label(held_out, factory, test_file, jobs=jobs)
        runs = {
            arm: [
                run_arm(
                    arm,
                    candidates,
                    test_file,
                    factory,
                    config,
                    output / arm,
                    jobs=jobs,
                    show=status.update,
                )
            ]
            for arm in arms
        }
    text = markdown(compared(runs), arms, 1)
    console.print(text)
    document = {"pool": pool, "backend": backend, "config": asdict(config), "rows": runs}
    (output / "report.json").write_text(json.dumps(document, indent=1) + "\n")
    (output / "report.md").write_text(text + "\n")
