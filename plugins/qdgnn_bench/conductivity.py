"""`qdgnn bench-conductivity`: does the property model's embedding help to predict conductivities?

Boosted trees learn log10 of the measured ionic conductivity at room temperature from features of
the composition; others see the embedding of the property model too, which never saw a conductivity.
Most crystals are disordered and are taken as they are, each site as the mean of its elements; a row
without a structure has the embedding of its composition. For comparison each site takes its most
likely element, and a site that is less than half full is empty. Control: embeddings of other rows.

A hybrid is the mean of the boosted trees of the composition and of extra trees that see the
embedding too; which one is chosen for each fold by as many folds within its training rows. A mean
is better than its parts whatever they see, so that without any embedding is a control as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from numpy.typing import NDArray

from qdgnn_ase import Predictor, mean_interval, measured, resampled_weights
from qdgnn_bench.conductivity_rows import Conductors, read_conductors, training_rows

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Part = tuple[Literal["boosted", "extra"], str]
"""A regression and what it sees, one of `_tables`."""

_FOLDS = 5
_BOOSTED: Part = ("boosted", "composition")
_BOOSTED_WAYS: dict[str, tuple[Part, ...]] = {
    f"boosted trees: {name}": (("boosted", name),)
    for name in (
        "composition",
        "composition and structure",
        "composition and most likely elements",
        "composition and another's structure",
    )
}
_MEANS: dict[str, tuple[Part, ...]] = {
    f"mean with extra trees: {name}": (_BOOSTED, ("extra", name))
    for name in (
        "composition",
        "composition and its embedding",
        "composition and structure",
        "composition and another's embedding",
    )
}
_WAYS = _BOOSTED_WAYS | _MEANS
_REFERENCE = "boosted trees: composition"
_CONTROL = "mean with extra trees: composition"
_HYBRIDS = tuple(_MEANS)[1:3]
_CHOSEN = "hybrid chosen in the training rows"


@click.command()
@click.argument("table", type=click.Path(exists=True, path_type=Path))
@click.option("--cifs", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", default=10, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also writes a .md beside.")
@click.option(
    "--rows",
    "folder",
    type=click.Path(path_type=Path),
    help="Only write the rows for `qdgnn train` to this folder, as two files of JSON lines.",
)
def conductivity(
    table: Path, cifs: Path, seeds: int, output: Path | None, folder: Path | None
) -> None:
    """Errors on TABLE (OBELiX's CSV) by folds of formulas and of publications.

    CIFS are JSON lines with "ID" and "cif".
    """
    if folder:
        _write_training_rows(table, cifs, folder)
        return
    rows = read_conductors(table, cifs, Predictor())
    document = {
        "file": table.name,
        "rows": len(rows.formulas),
        "with structure": int(rows.has_structure.sum()),
        "censored": int(rows.censored.sum()),
        "seeds": seeds,
        **measured(),
        "errors": {
            "formula": compare(rows, rows.formulas, seeds),
            "publication": compare(rows, rows.publications, seeds),
        },
    }
    click.echo(markdown(document))
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
        output.with_suffix(".md").write_text(markdown(document))


def _write_training_rows(table: Path, cifs: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = (table.stem, f"{table.stem}_compositions")
    for name, rows in zip(names, training_rows(table, cifs), strict=True):
        file = folder / f"{name}.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
        click.echo(f"wrote {len(rows)} rows to {file}")


def compare(rows: Conductors, groups: Sequence[str], seeds: int) -> dict[str, dict[str, Any]]:
    """Errors of each way on the same folds.

    Args:
        rows: Data.
        groups: No group is in two folds.
        seeds: Repetitions with other folds.

    Returns:
        Name -> ``mae`` (log10 S/cm), ``interval``; ``difference`` and ``difference_interval``:
        error of the boosted trees of the composition less this one; ``gain`` and
        ``gain_interval``: error of the mean without an embedding less this one. Intervals of 95 %
        over groups. The hybrid also has ``chosen``: in how many folds each was.
    """
    runs = [_out_of_fold(rows, groups, seed) for seed in range(seeds)]
    errors = {
        name: np.mean([_errors(rows, values[name]) for values, _ in runs], axis=0)
        for name in runs[0][0]
    }
    weights = resampled_weights(groups)
    found = {name: _summary(errors, name, weights) for name in errors}
    found[_CHOSEN]["chosen"] = dict(Counter(name for _, names in runs for name in names))
    return found


def _out_of_fold(
    rows: Conductors, groups: Sequence[str], seed: int
) -> tuple[dict[str, Array], list[str]]:
    """Values of every way, and the hybrid that was chosen for each fold."""
    tables = _tables(rows)
    values = {name: np.empty(len(groups)) for name in (*_WAYS, _CHOSEN)}
    chosen = []
    for known, wanted in _split(groups, _FOLDS, seed):
        found = _values(rows, tables, _WAYS, known, wanted, seed=seed)
        chosen.append(_choice(rows, tables, groups, known, seed=seed))
        for name, column in (found | {_CHOSEN: found[chosen[-1]]}).items():
            values[name][wanted] = column
    return values, chosen


def _choice(
    rows: Conductors, tables: dict[str, Array], groups: Sequence[str], known: Indices, *, seed: int
) -> str:
    """The hybrid with the smallest error on folds within the training rows."""
    total = dict.fromkeys(_HYBRIDS, 0.0)
    for inner, left in _split([groups[k] for k in known], _FOLDS, seed):
        found = _values(rows, tables, _HYBRIDS, known[inner], known[left], seed=seed)
        for name, column in found.items():
            total[name] += float(_errors(rows, column, known[left]).sum())
    return min(total, key=lambda name: total[name])


def _split(groups: Sequence[str], n: int, seed: int) -> Any:
    from sklearn.model_selection import GroupKFold

    return GroupKFold(n, shuffle=True, random_state=seed).split(groups, groups=groups)


def _tables(rows: Conductors) -> dict[str, Array]:
    """What the regressions see."""
    rng = np.random.default_rng(0)
    present = np.flatnonzero(rows.has_structure)
    another = rows.structure.copy()
    another[present] = rows.structure[rng.permutation(present)]
    added = {
        "its embedding": rows.formula,
        "another's embedding": rng.permutation(rows.formula),
        "structure": rows.structure,
        "most likely elements": rows.most_likely,
        "another's structure": another,
    }
    return {"composition": rows.composition} | {
        f"composition and {name}": np.hstack([rows.composition, table])
        for name, table in added.items()
    }


def _values(
    rows: Conductors,
    tables: dict[str, Array],
    ways: Iterable[str],
    known: Indices,
    wanted: Indices,
    *,
    seed: int,
) -> dict[str, Array]:
    """What each way says of the rows ``wanted`` after it learned ``known``."""
    parts = {part for name in ways for part in _WAYS[name]}
    label = rows.log_conductivity[known]
    fitted = {
        part: _regression(part, seed)
        .fit(tables[part[1]][known], label)
        .predict(tables[part[1]][wanted])
        for part in parts
    }
    return {name: np.mean([fitted[part] for part in _WAYS[name]], axis=0) for name in ways}


def _regression(part: Part, seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

    if part[0] == "extra":
        return ExtraTreesRegressor(100, max_features=0.3, random_state=seed)
    return HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=200, min_samples_leaf=5, random_state=seed
    )


def _errors(rows: Conductors, values: Array, where: Indices | slice = slice(None)) -> Array:
    """Absolute errors of some rows; a censored row errs above its bound only."""
    error = values - rows.log_conductivity[where]
    return np.where(rows.censored[where], np.maximum(error, 0), np.abs(error))


def _summary(errors: dict[str, Array], name: str, weights: Array) -> dict[str, Any]:
    found = {"mae": float(errors[name].mean()), "interval": mean_interval(errors[name], weights)}
    for key, reference in {"difference": _REFERENCE, "gain": _CONTROL}.items():
        better = errors[reference] - errors[name]
        found[key] = float(better.mean())
        found[f"{key}_interval"] = mean_interval(better, weights)
    return found


def markdown(document: dict[str, Any]) -> str:
    """Tables by the kind of folds."""
    lines = [
        f"log10 of the ionic conductivity in S/cm, {document['file']}: {document['rows']} rows, "
        f"{document['with structure']} with a structure, {document['censored']} censored. "
        f"{_FOLDS} folds, {document['seeds']} repetitions, {document['date']}, "
        f"{document['machine']}. Mean absolute errors with 95 % intervals over groups; positive "
        "differences are better than the boosted trees of the composition, and better than the "
        "mean with extra trees that sees no embedding.",
    ]
    for kind, rows in document["errors"].items():
        lines += [
            "",
            f"| folds by {kind} | error | than boosted trees | than the mean without embedding |",
            "|---|---|---|---|",
            *[f"| {name} | {_cells(row)} |" for name, row in rows.items()],
            "",
            _verdict(kind, rows),
        ]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    cells = [f"{row['mae']:.3f} ({low:.3f}-{high:.3f})"]
    for key in ("difference", "gain"):
        low, high = row[f"{key}_interval"]
        cells.append(f"{row[key]:+.3f} ({low:+.3f} to {high:+.3f})")
    return " | ".join(cells)


def _verdict(kind: str, rows: dict[str, dict[str, Any]]) -> str:
    """Of the hybrid that sees the embedding of the composition in all folds, and of the chosen."""
    chosen = rows[_CHOSEN]["chosen"]
    counts = ", ".join(f"{name} in {n} folds" for name, n in chosen.items())
    return (
        f"By {kind} the {_HYBRIDS[0]} is {_against(rows[_HYBRIDS[0]])}. The chosen hybrid "
        f"({counts}) is {_against(rows[_CHOSEN])}."
    )


def _against(row: dict[str, Any]) -> str:
    reached = {
        key: "better" if row[f"{key}_interval"][0] > 0 else "not clearly better"
        for key in ("difference", "gain")
    }
    return (
        f"{reached['difference']} than boosted trees of the composition, and {reached['gain']} "
        "than the mean of the same two kinds of trees without an embedding"
    )
