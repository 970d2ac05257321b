"""`qdgnn relax FILE.db@SELECTION`: every selected row, into another database."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from ase import Atoms
from ase.calculators.calculator import CalculatorError

from qdgnn_ase.cli.common import console, progress_bar
from qdgnn_ase.data.database import append_rows, split_selection, stored_values
from qdgnn_ase.data.io import read_structures
from qdgnn_ase.inference.calculator import QDGNNCalculator
from qdgnn_ase.inference.restart import start_digest
from qdgnn_ase.inference.simulate import relax
from qdgnn_ase.training.checkpoint import find_model

_TASK = "task"
"""Key of a row: hash of structure, potential and options, by which a second run skips it."""


@dataclass
class _Counts:
    relaxed: int = 0
    not_converged: int = 0
    done_before: int = 0
    failures: list[str] = field(default_factory=list)


def relax_rows(
    structures: str,
    output: Path | None,
    *,
    model: str,
    dtype: str,
    fixed_cell: bool,
    **options: Any,
) -> None:
    """Append each relaxed structure with results and ``converged``; goes on after a kill.

    Args:
        structures: Database with a selection.
        output: Database; beside the source if not given.
        model: Embedded model or checkpoint.
        dtype: Of the calculator.
        fixed_cell: Relax positions only.
        options: Further ones of `relax`.
    """
    source, _ = split_selection(structures)
    output = output or source.with_name(f"{source.stem}_relaxed.db")
    if output.suffix != ".db" or output.resolve() == source.resolve():
        raise click.UsageError(f"a selection is relaxed into another .db file, got {output}")
    frames = read_structures(structures)
    calculator = QDGNNCalculator(model, dtype=dtype)
    weights = hashlib.sha256(find_model(model).read_bytes()).hexdigest()
    settings = {"weights": weights, "dtype": dtype, "fixed_cell": fixed_cell, **options}
    done = stored_values(output, _TASK)
    counts = _Counts()
    with progress_bar() as bar:
        progress = bar.add_task("relaxing", total=len(frames), note="")
        for atoms in frames:
            task = _task(atoms, settings)
            bar.update(progress, advance=1, note=str(atoms.symbols))
            if task in done:
                counts.done_before += 1
                continue
            atoms.calc = calculator
            is_free = not fixed_cell and bool(atoms.pbc.all())
            try:
                converged = relax(atoms, cell=is_free, **options)
            except (CalculatorError, FloatingPointError, ValueError) as error:
                counts.failures.append(f"id {atoms.info['id']}: {error}")
                continue
            append_rows(output, [(atoms, {_TASK: task, "converged": converged})])
            counts.relaxed += 1
            counts.not_converged += not converged
    _report(counts, output)


def _task(atoms: Atoms, settings: dict[str, Any]) -> str:
    content = {"id": atoms.info["id"], "start": start_digest(atoms), **settings}
    return "h" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def _report(counts: _Counts, output: Path) -> None:
    for failure in counts.failures:
        console.print(f"left out: {failure}", soft_wrap=True)
    console.print(
        f"{counts.relaxed} relaxed, {counts.not_converged} of them NOT converged, "
        f"{len(counts.failures)} left out, {counts.done_before} done before; wrote {output}"
    )
    if counts.not_converged or counts.failures:
        raise click.exceptions.Exit(1)
