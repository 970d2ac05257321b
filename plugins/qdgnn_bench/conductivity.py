"""`qdgnn bench-conductivity`: does the property model's embedding help to predict conductivities?

Boosted trees learn log10 of the measured ionic conductivity at room temperature from features of
the composition, and from those with the embedding and the predictions of the property model, which
never saw a conductivity. Most crystals are disordered and are taken as they are, each site as the
mean of its elements. For comparison each site takes its most likely element, and a site that is
less than half full is empty. The trees are told which crystals are disordered. Rows without a
structure have no structural features. Control: the structural features of other rows.
"""

from __future__ import annotations

import csv
import gzip
import json
import platform
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from pymatgen.core import Composition, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifParser

from qdgnn_ase import Predictor, as_atoms, mean_interval, resampled_weights
from qdgnn_bench.trivial import composition_features

Array = NDArray[np.float64]
_LABEL = "Ionic conductivity (S cm-1)"
_PREDICTED = ("formation_energy", "energy_above_hull", "band_gap", "bulk_modulus", "shear_modulus")
_FOLDS = 5
_LARGEST_FORMULA = 100


@dataclass(frozen=True, slots=True, eq=False)
class Conductors:
    """Measured conductors; all sequences have one entry a row."""

    formulas: list[str]
    """Reduced formula."""
    publications: list[str]
    """DOI."""
    composition: Array
    """Features of the composition."""
    structure: Array
    """Features of the structure with its occupancies, NaN where there is none."""
    most_likely: Array
    """Features of the structure with the most likely elements, NaN where there is none."""
    log_conductivity: Array
    """log10 of S/cm; of a censored row its upper bound."""
    censored: NDArray[np.bool_]
    """Whether the measurement says "less than" only."""


@click.command()
@click.argument("table", type=click.Path(exists=True, path_type=Path))
@click.option("--cifs", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", default=3, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also writes a .md beside.")
def conductivity(table: Path, cifs: Path, seeds: int, output: Path | None) -> None:
    """Errors on TABLE (OBELiX's CSV) by folds of formulas and of publications.

    CIFS are JSON lines with "ID" and "cif".
    """
    rows = read_conductors(table, cifs, Predictor())
    document = {
        "file": table.name,
        "rows": len(rows.formulas),
        "with structure": int(np.isfinite(rows.structure[:, 0]).sum()),
        "censored": int(rows.censored.sum()),
        "seeds": seeds,
        "date": date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "errors": {
            "formula": compare(rows, rows.formulas, seeds),
            "publication": compare(rows, rows.publications, seeds),
        },
    }
    click.echo(markdown(document))
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
        output.with_suffix(".md").write_text(markdown(document))


def read_conductors(table: Path, cifs: Path, predictor: Predictor) -> Conductors:
    """Features and labels of the rows."""
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    with gzip.open(cifs, "rt", encoding="utf-8") as texts:
        by_id = {row["ID"]: row["cif"] for row in map(json.loads, texts)}
    structures = [_structure(by_id.get(row["ID"])) for row in rows]
    values = [row[_LABEL].strip() for row in rows]
    return Conductors(
        formulas=[row["reduced_formula"] for row in rows],
        publications=[row["DOI"] for row in rows],
        composition=composition_features([_formula_unit(row) for row in rows]),
        structure=structure_features(structures, predictor, as_atoms),
        most_likely=structure_features(structures, predictor, most_likely),
        log_conductivity=np.log10([float(value.removeprefix("<")) for value in values]),
        censored=np.array([value.startswith("<") for value in values]),
    )


def _formula_unit(row: dict[str, Any]) -> Atoms:
    """Atoms in the proportions of the composition."""
    composition = Composition(row["True Composition"])
    counts, _ = composition.get_integer_formula_and_factor(max_denominator=_LARGEST_FORMULA)
    return Atoms(counts)


def _structure(cif: str | None) -> Structure | None:
    """Structure of a CIF; None where there is none or it cannot be read."""
    if cif is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rounding and occupancies, which are expected here
        try:
            return CifParser.from_str(cif, check_cif=False).parse_structures(primitive=True)[0]
        except (ValueError, KeyError, IndexError):
            return None


def most_likely(structure: Structure) -> Atoms:
    """Each site with its most likely element; sites that are less than half full are empty."""
    sites = [site for site in structure if sum(site.species.values()) >= 0.5]
    species = [max(site.species.items(), key=lambda item: item[1])[0].symbol for site in sites]
    coordinates = [site.frac_coords for site in sites]
    return AseAtomsAdaptor.get_atoms(
        Structure(structure.lattice, species, coordinates), msonable=False
    )


def structure_features(
    structures: Sequence[Structure | None],
    predictor: Predictor,
    convert: Callable[[Structure], Atoms],
) -> Array:
    """Embedding, predictions, atoms per volume (1/Å^3) and order, (n, hidden + 7); NaN = none.

    Args:
        structures: None where there is none.
        predictor: Property model.
        convert: What it is shown of a structure.
    """
    rows = [None if s is None else _features(s, convert(s), predictor) for s in structures]
    width = max(len(row) for row in rows if row is not None)
    return np.array([np.full(width, np.nan) if row is None else row for row in rows])


def _features(structure: Structure, atoms: Atoms, predictor: Predictor) -> Array | None:
    try:
        embedding = predictor.embedding([atoms])[0]
        found = predictor([atoms])[0]
    except ValueError:  # most likely elements can be closer than any atoms
        return None
    predicted = [found[name].value for name in _PREDICTED]
    density = structure.composition.num_atoms / structure.volume
    return np.array([*embedding, *predicted, density, float(structure.is_ordered)])


def compare(rows: Conductors, groups: Sequence[str], seeds: int) -> dict[str, dict[str, Any]]:
    """Errors of each set of features on the same folds; paired differences from composition alone.

    Args:
        rows: Data.
        groups: No group is in two folds.
        seeds: Repetitions with other folds.

    Returns:
        Name -> ``mae`` (log10 S/cm), ``interval``, ``difference`` = composition alone - this, and
        ``difference_interval``; intervals of 95 % over groups.
    """
    rng = np.random.default_rng(0)
    present = np.flatnonzero(np.isfinite(rows.structure[:, 0]))
    others = rows.structure.copy()
    others[present] = rows.structure[rng.permutation(present)]
    features = {
        "composition": rows.composition,
        "composition and structure": np.hstack([rows.composition, rows.structure]),
        "composition and most likely elements": np.hstack([rows.composition, rows.most_likely]),
        "composition and another's structure": np.hstack([rows.composition, others]),
    }
    errors = {
        name: np.mean([_errors(rows, table, groups, seed) for seed in range(seeds)], axis=0)
        for name, table in features.items()
    }
    return {name: _summary(errors["composition"], row, groups) for name, row in errors.items()}


def _errors(rows: Conductors, features: Array, groups: Sequence[str], seed: int) -> Array:
    """Out-of-fold absolute errors; a censored row errs above its bound only."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import GroupKFold

    values = np.empty(len(features))
    folds = GroupKFold(_FOLDS, shuffle=True, random_state=seed)
    for known, wanted in folds.split(features, groups=groups):
        trees = HistGradientBoostingRegressor(
            learning_rate=0.05, max_iter=200, min_samples_leaf=5, random_state=seed
        )
        values[wanted] = trees.fit(features[known], rows.log_conductivity[known]).predict(
            features[wanted]
        )
    error = values - rows.log_conductivity
    return np.where(rows.censored, np.maximum(error, 0), np.abs(error))


def _summary(reference: Array, errors: Array, groups: Sequence[str]) -> dict[str, Any]:
    weights = resampled_weights(groups)
    return {
        "mae": float(errors.mean()),
        "interval": mean_interval(errors, weights),
        "difference": float((reference - errors).mean()),
        "difference_interval": mean_interval(reference - errors, weights),
    }


def markdown(document: dict[str, Any]) -> str:
    """Tables by the kind of folds."""
    lines = [
        f"log10 of the ionic conductivity in S/cm, {document['file']}: {document['rows']} rows, "
        f"{document['with structure']} with a structure, {document['censored']} censored. "
        f"{_FOLDS} folds, {document['seeds']} repetitions, {document['date']}, "
        f"{document['machine']}. Mean absolute errors with 95 % intervals over groups; positive "
        "differences are better than the composition alone.",
    ]
    for kind, rows in document["errors"].items():
        lines += ["", f"| folds by {kind} | error | difference |", "|---|---|---|"]
        for name, row in rows.items():
            low, high = row["interval"]
            error = f"{row['mae']:.3f} ({low:.3f}-{high:.3f})"
            low, high = row["difference_interval"]
            lines.append(
                f"| {name} | {error} | {row['difference']:+.3f} ({low:+.3f} to {high:+.3f}) |"
            )
    return "\n".join(lines) + "\n"
