"""`qdgnn bench-transfer`: a property on structures of another origin, in and out of the domain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_ase import (
    PROPERTIES,
    Predictor,
    composition_matrix,
    fit_element_energies,
    fold_of,
    mean_interval,
    measured,
    read_labelled,
    reduced_formula,
    resampled_weights,
)

Array = NDArray[np.float64]


@click.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--target", required=True, metavar="NAME=COLUMN")
@click.option("--model", default="properties", show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also writes a .md beside.")
def transfer(file: Path, target: str, model: str, output: Path | None) -> None:
    """Errors of MODEL for one property of FILE, whose structures come from elsewhere.

    Data sets differ by their corrections too: the errors are given as they are and after a constant
    for each element, fitted to the residuals of one half of the formulas, on the other half.
    """
    name, column = target.split("=", 1)
    if PROPERTIES[name].scale != "linear":
        raise click.UsageError(f"--target must be learned on a linear scale, got {name}")
    rows = [row for row in read_labelled(file, {name: column}) if np.isfinite(row.labels[name])]
    structures = [row.atoms for row in rows]
    found = [row[name] for row in Predictor(model)(structures)]
    residuals = np.array([row.value for row in found]) - np.array([r.labels[name] for r in rows])
    inside = np.array([row.in_domain for row in found])
    document = {
        "file": file.name,
        "property": name,
        "unit": PROPERTIES[name].unit,
        "column": column,
        "model": Path(model).name,
        **measured(),
        "errors": domain_errors(structures, residuals, inside),
    }
    click.echo(markdown(document))
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
        output.with_suffix(".md").write_text(markdown(document))


def domain_errors(
    structures: Sequence[Atoms], residuals: Array, inside: NDArray[np.bool_]
) -> dict[str, dict[str, Any]]:
    """Mean absolute errors with 95 % intervals over formulas, by part of the structures.

    Args:
        structures: Structures.
        residuals: (n_structures,), prediction - label per atom or of the whole structure.
        inside: (n_structures,), whether the model calls a structure in its domain.

    Returns:
        For "all", "in domain" and "out of domain" ``structures``, ``mae`` and ``mae_interval``, and
        ``mae_offset``, ``mae_offset_interval`` after an offset for each element (its half alone).
    """
    formulas = np.array([reduced_formula(atoms) for atoms in structures])
    held_out = np.array([fold_of(name, val=0.0, test=0.5) == "test" for name in formulas])
    shifted = residuals - _element_offsets(structures, residuals, ~held_out)
    parts = {"all": np.ones_like(inside), "in domain": inside, "out of domain": ~inside}
    return {
        name: _errors(residuals, formulas, part, "mae")
        | _errors(shifted, formulas, part & held_out, "mae_offset")
        | {"structures": int(part.sum())}
        for name, part in parts.items()
    }


def _element_offsets(
    structures: Sequence[Atoms], residuals: Array, fitted: NDArray[np.bool_]
) -> Array:
    """Part of the residuals that is linear in the atomic fractions, (n_structures,)."""
    composition = composition_matrix([atoms.numbers for atoms in structures])
    n_atoms = composition.sum(axis=1)
    offsets = fit_element_energies(composition[fitted], (residuals * n_atoms)[fitted])
    explained: Array = composition @ offsets / n_atoms
    return explained


def _errors(
    residuals: Array, formulas: NDArray[np.str_], part: NDArray[np.bool_], key: str
) -> dict[str, Any]:
    if not part.any():
        return {}
    errors = np.abs(residuals[part])
    weights = resampled_weights(formulas[part].tolist())
    return {key: float(errors.mean()), f"{key}_interval": mean_interval(errors, weights)}


def markdown(document: dict[str, Any]) -> str:
    """Table: a row for all structures, those in and those out of the domain."""
    errors = document["errors"]
    share = errors["out of domain"]["structures"] / errors["all"]["structures"]
    lines = [
        f"{document['property']} of {document['file']} by the model `{document['model']}`, "
        f"{document['date']}, {document['machine']}; mean absolute errors in {document['unit']} "
        f"with 95 % intervals over formulas; {100 * share:.0f} % are called out of domain. The "
        "second error is after an offset for each element, fitted to the other half of the "
        "formulas.",
        "",
        "| part | structures | error | error less offsets |",
        "|---|---|---|---|",
    ]
    for name, row in errors.items():
        lines.append(
            f"| {name} | {row['structures']} | {_cell(row, 'mae')} | {_cell(row, 'mae_offset')} |"
        )
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any], key: str) -> str:
    if key not in row:
        return "-"
    low, high = row[f"{key}_interval"]
    return f"{row[key]:.3f} ({low:.3f}-{high:.3f})"
