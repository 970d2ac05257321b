"""`qdgnn bench-active-learning`: active against random selection, EMT as the labeller.

The pool is lopsided, as pools are: most of its fcc alloys of Cu, Ag, Au, Ni, Pd and Pt are nearly
undistorted copper, the test set is spread evenly over compositions, strains and displacements.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import process_time

import click
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from rich.console import Console

from qdgnn_ase import label, measured
from qdgnn_dft.active import ActiveConfig, Arm, run_arm
from qdgnn_dft.active_report import compared, markdown

METALS = {"Cu": 3.61, "Ag": 4.09, "Au": 4.08, "Ni": 3.52, "Pd": 3.89, "Pt": 3.92}
ARMS: tuple[Arm, ...] = ("active", "random")


def alloy(rng: np.random.Generator, *, plain: bool) -> Atoms:
    """A cubic fcc cell: nearly undistorted copper, or any alloy, strained and rattled."""
    symbols = ["Cu"] * 4 if plain else [str(s) for s in rng.choice(list(METALS), size=4)]
    lattice = float(np.mean([METALS[symbol] for symbol in symbols]))
    strain = 0.01 if plain else 0.05
    atoms = bulk("Cu", cubic=True, a=lattice * (1 + rng.uniform(-strain, strain)))
    atoms.symbols[:] = symbols
    atoms.rattle(0.02 if plain else 0.15, rng=np.random.RandomState(rng.integers(2**31)))
    return atoms


def alloys(n: int, seed: int, share_plain: float) -> list[Atoms]:
    """A set of alloys, a share of which is nearly undistorted copper."""
    rng = np.random.default_rng(seed)
    return [alloy(rng, plain=bool(rng.random() < share_plain)) for _ in range(n)]


@click.command("bench-active-learning")
@click.option("--seeds", default=3, show_default=True)
@click.option("--pool", "n_pool", default=150, show_default=True, help="Structures of the pool.")
@click.option("--rounds", default=2, show_default=True)
@click.option("--epochs", default=20, show_default=True)
@click.option("--json", "output", type=Path, help="Write the result to this file.")
@click.option("--markdown", "table_file", type=Path, help="Write the table to this file.")
def bench_active_learning(
    *,
    seeds: int,
    n_pool: int,
    rounds: int,
    epochs: int,
    output: Path | None,
    table_file: Path | None,
) -> None:
    """Errors of the fine-tuned default potential at equal numbers of labels."""
    started = process_time()
    config = ActiveConfig(rounds=rounds, epochs=epochs)
    runs: dict[str, list[list[dict[str, float]]]] = {arm: [] for arm in ARMS}
    with Console().status("starting") as status, tempfile.TemporaryDirectory() as name:
        for seed in range(seeds):
            folder, own = Path(name) / str(seed), ActiveConfig(**asdict(config) | {"seed": seed})
            test_file = folder / "test.extxyz"
            label(alloys(40, 1_000 + seed, 0.0), EMT, test_file)
            for arm in ARMS:
                pool = alloys(n_pool, seed, 0.8)
                runs[arm].append(
                    run_arm(arm, pool, test_file, EMT, own, folder / arm, show=status.update)
                )
    table = compared(runs)
    text = markdown(table, ARMS, seeds)
    click.echo(text)
    if output:
        document = {
            **measured(),
            "cpu_seconds": round(process_time() - started, 1),
            "config": asdict(config),
            "seeds": seeds,
            "pool": n_pool,
            "rows": table,
            "runs": runs,
        }
        output.write_text(json.dumps(document, indent=1) + "\n")
    if table_file:
        table_file.write_text(text + "\n")
