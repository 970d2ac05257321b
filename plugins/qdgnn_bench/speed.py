"""`qdgnn bench-speed`: energy, forces and stress per call, beside CHGNet and M3GNet, one thread.

Up to 216 atoms all subjects run at the same time, each in a process of its own, and take turns call
by call: a busy machine slows all of them alike. In larger cells those of one mode take turns, the
default ones first: all would need too much memory. A call moves the atoms and asks the ASE
calculator for energy, forces and stress. Memory is the peak of the process minus what it held after
loading (Linux).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from qdgnn_ase import measured
from qdgnn_bench.speed_report import plot, tables
from qdgnn_bench.speed_worker import Contender, Row, Worker

SIZES = (8, 64, 192, 216, 512, 1728, 4096, 30000)
_LARGEST_TOGETHER = 216
"""Atoms, both modes. Of 512 two CHGNets take 20 GB."""

_LARGEST = {"chgnet": 512, "m3gnet": 1728}
"""Atoms. Larger cells are for ours alone: of 1,728 atoms CHGNet takes more than 20 GB."""


def run_size(contenders: Sequence[Contender], n_atoms: int, repeats: int) -> list[Row]:
    """Rows of all contenders at one size, measured in turns.

    Args:
        contenders: Who computes.
        n_atoms: Size, see ``speed_cell``.
        repeats: Turns after a first call that does not count.
    """
    workers = [Worker(contender, n_atoms) for contender in contenders]
    try:
        first = [worker.ask("call") for worker in workers]
        calls: list[list[Row]] = [[] for _ in workers]
        for _ in range(repeats):
            for worker, done in zip(workers, calls, strict=True):
                done.append(worker.ask("call"))
        rows = [
            {"subject": contender.name, "mode": contender.mode, "atoms": n_atoms}
            | {"first_s": start["wall"], "calls": repeats}
            | _statistics(done)
            | worker.ask("memory")
            for contender, worker, start, done in zip(
                contenders, workers, first, calls, strict=True
            )
        ]
        for contender, worker, row in zip(contenders, workers, rows, strict=True):
            if contender.name == "qdgnn" and not contender.tuned:
                row |= worker.ask("shares")
    finally:
        for worker in workers:
            worker.close()
    return rows


def _statistics(calls: Sequence[Row]) -> Row:
    return {
        f"{kind}_ms_{name}": 1e3 * float(function([call[kind] for call in calls]))
        for kind in ("cpu", "wall")
        for name, function in (("min", np.min), ("median", np.median))
    }


def repeats_of(n_atoms: int, repeats: int) -> int:
    """Turns at one size: all up to 64 atoms, half to 512, one sixth beyond; at least one."""
    return max(1, repeats // (1 if n_atoms <= 64 else 2 if n_atoms <= 512 else 6))


def run(
    contenders: Sequence[Contender],
    sizes: Sequence[int],
    repeats: int,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Rows of all sizes, of each peer up to its largest."""
    rows: list[Row] = []
    for n_atoms in sizes:
        taking = [c for c in contenders if n_atoms <= _LARGEST.get(c.name, n_atoms)]
        modes = [[c for c in taking if c.tuned is tuned] for tuned in (False, True)]
        for group in [taking] if n_atoms <= _LARGEST_TOGETHER else filter(None, modes):
            progress(f"{n_atoms} atoms: {', '.join(c.name for c in group)}")
            rows += run_size(group, n_atoms, repeats_of(n_atoms, repeats))
    return rows


@click.command()
@click.option("--model", default="default", show_default=True)
@click.option("--m3gnet", type=Path, help="Model folder of M3GNet; random weights if not given.")
@click.option("--sizes", default=",".join(map(str, SIZES)), show_default=True, help="Atoms.")
@click.option("--repeats", default=18, show_default=True, help="Turns of the small sizes.")
@click.option("--ours-only", is_flag=True, help="Leave CHGNet and M3GNet out.")
@click.option("--default-only", is_flag=True, help="Leave the tuned modes out (no compilation).")
@click.option("--json", "output", type=Path, help="Write all numbers to this file.")
@click.option("--markdown", type=Path, help="Write the tables to this file.")
@click.option("--plot", "picture", type=Path, help="Write a plot of time against atoms.")
def speed(
    model: str,
    m3gnet: Path | None,
    sizes: str,
    repeats: int,
    ours_only: bool,
    default_only: bool,
    output: Path | None,
    markdown: Path | None,
    picture: Path | None,
) -> None:
    """Time and memory of energy, forces and stress, one thread, beside CHGNet and M3GNet."""
    console = Console()
    paths = {"qdgnn": model}
    if not ours_only:
        paths |= {"chgnet": "", "m3gnet": "" if m3gnet is None else str(m3gnet)}
    modes = (False,) if default_only else (False, True)
    contenders = [Contender(name, tuned, path) for name, path in paths.items() for tuned in modes]
    document = {**measured(), "threads": 1, "model": model}
    rows: list[Row] = []
    with console.status("starting") as status:
        for n_atoms in map(int, sizes.split(",")):
            rows += run(contenders, [n_atoms], repeats, status.update)
            if output is not None:  # after each size: the large ones take long
                output.write_text(json.dumps(document | {"rows": rows}, indent=2))
    text = tables(rows)
    console.print(text, markup=False, soft_wrap=True)
    if markdown is not None:
        markdown.write_text(text)
    if picture is not None:
        plot(rows, picture)
