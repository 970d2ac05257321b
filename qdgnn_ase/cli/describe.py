"""`qdgnn describe`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import click
import numpy as np
from ase import Atoms

from qdgnn_ase.cli.common import console, existing_file, parse_targets, progress_bar
from qdgnn_ase.data.io import read_structures
from qdgnn_ase.quantum.protocol import Described, descriptor_provider

_SHOWN = 5
"""Reasons that are printed, the most frequent ones."""


@click.command()
@click.argument("files", nargs=-1, required=True, callback=existing_file)
@click.option(
    "--provider",
    required=True,
    help="qdgnn (the property model), dft, xtb, or another entry point qdgnn_ase.descriptors.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of the provider, such as store=results.db or compute=true.",
)
@click.option("--output", "-o", type=Path, required=True, help="New extxyz file.")
def describe(files: tuple[str, ...], provider: str, options: tuple[str, ...], output: Path) -> None:
    """Quantum descriptors of every structure in FILES as columns, inputs of `qdgnn train`.

    A value of the structure becomes the column PROVIDER_NAME, one of the atoms an array of that
    name and the column PROVIDER_NAME_std, its spread. What the provider does not have is left out,
    and so is all of a structure that it refuses: `train --condition NAME=COLUMN` masks it. Columns
    of the files stay.
    """
    if output.suffix not in (".xyz", ".extxyz"):
        raise click.UsageError(f"--output must be an extxyz file, got {output}")
    if output.exists():
        raise click.UsageError(f"{output} exists already; choose another file, or delete this one")
    try:
        source = descriptor_provider(provider, **_values(options))
        structures = [atoms for name in files for atoms in read_structures(name)]
    except (TypeError, ValueError, ImportError, FileNotFoundError) as error:
        raise click.UsageError(str(error)) from error
    described: list[Atoms] = []
    reasons: Counter[str] = Counter()
    with progress_bar() as bar:
        task = bar.add_task("describing", total=len(structures), note="")
        for atoms in structures:
            try:
                found = source(atoms)
            except ValueError as error:
                described.append(atoms)
                reasons[str(error)] += 1
            else:
                described.append(with_columns(atoms, found, provider))
                reasons.update(set(found.provenance.get("missing", {}).values()))
            bar.update(task, advance=1)
    output.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(output, described, format="extxyz")
    for reason, count in reasons.most_common(_SHOWN):
        console.print(f"values missing in {count} structures: {reason}", soft_wrap=True)
    console.print(f"{len(described)} structures with {_columns(described, provider)}")
    level = f"{source.level.backend}/{source.level.functional}"
    console.print(f"for `qdgnn train`: --level COLUMN={level}")


def with_columns(atoms: Atoms, found: Described, prefix: str) -> Atoms:
    """A copy with what is known: scalars in ``info``, values of the atoms as arrays and spread."""
    result = atoms.copy()
    result.calc = atoms.calc
    for name in (name for name, known in found.mask.items() if known):
        values = np.asarray(found.values[name], dtype=np.float64)
        if values.ndim == 0:
            result.info[f"{prefix}_{name}"] = float(values)
        else:
            result.set_array(f"{prefix}_{name}", values)
            result.info[f"{prefix}_{name}_std"] = float(values.std())
    return result


def _columns(structures: Sequence[Atoms], prefix: str) -> str:
    """Columns and in how many structures they are."""
    names = (name for atoms in structures for name in atoms.info)
    counts = Counter(name for name in names if name.startswith(f"{prefix}_"))
    return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "no column"


def _values(options: tuple[str, ...]) -> dict[str, Any]:
    truth = {"true": True, "false": False}
    return {
        name: truth.get(text.lower(), text)
        for name, text in parse_targets(options, "--option").items()
    }
