"""`qdgnn bench-t1`: do full tight-binding features know what a property model gets wrong?

The structures are of the validation and test folds of the model, so that its errors are those on
compositions it was not trained on. A gradient-boosting regressor learns the signed error of the
predicted band gap, in cross-validation grouped by formula, from composition and the model's own
output (T0), from these and tight binding (T0 + T1), and from these and tight binding of another
structure (negative control). The same regressors on the gap itself, without the model's output,
show that the features are worth something at all (positive control).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from time import process_time

import click
import numpy as np
import torch
from ase import Atoms

from qdgnn_ase import Predictor, Split, measured, read_labelled, reduced_formula
from qdgnn_bench.readme import versions
from qdgnn_bench.t1_experiment import FOLDS, Table, experiment
from qdgnn_bench.t1_features import composition_features, electronic_features
from qdgnn_bench.t1_report import markdown

_BATCH = 64

HeldOut = tuple[Atoms, float, str]
"""Structure, gap in eV, fold."""


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--column", default="band_gap_megnet2018", show_default=True, help="Gap in eV.")
@click.option("--model", default="properties", show_default=True, help="Property model.")
@click.option("--max-atoms", default=20, show_default=True, help="Leave larger ones out.")
@click.option("--max-structures", default=3_000, show_default=True, help="Draw no more.")
@click.option("--seeds", default=1, show_default=True, help="Cross-validations that are averaged.")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="JSON file.")
def t1(
    file: str,
    column: str,
    model: str,
    max_atoms: int,
    max_structures: int,
    seeds: int,
    output: Path,
) -> None:
    """Whether tight binding predicts the errors of MODEL on the band gaps of FILE.

    FILE holds the structures that the model was trained on, of which its validation and test folds
    are used. Writes the JSON file and a table in Markdown beside it.
    """
    torch.set_num_threads(1)
    _check_scikit_learn()
    if output.suffix != ".json":
        raise click.UsageError(f"--output must end in .json, got {output}")
    output.parent.mkdir(parents=True, exist_ok=True)
    predictor = Predictor(model)
    if missing := {"band_gap", "metal_probability"} - set(predictor.targets):
        raise click.UsageError(f"--model must predict {sorted(missing)}, got {predictor.targets}")
    rows = held_out(predictor, file, column, max_atoms, max_structures)
    click.echo(f"{len(rows)} structures")
    table = tabulate(predictor, rows)
    result = {
        **measured(),
        "model_quantum": predictor.document["properties"]["trunk"]["quantum"],
        "versions": versions(predictor.document),
        "file": Path(file).name,
        "column": column,
        "max_atoms": max_atoms,
        **experiment(table, seeds),
    }
    output.write_text(json.dumps(result, indent=1) + "\n")
    output.with_suffix(".md").write_text(markdown(result))
    click.echo(markdown(result))


def _check_scikit_learn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise click.ClickException(
            "bench-t1 needs scikit-learn; pip install 'qdgnn-ase[bench]'"
        ) from error


def held_out(
    predictor: Predictor, file: str, column: str, max_atoms: int, max_structures: int
) -> list[HeldOut]:
    """Structures with a label that the model was not trained on, in random order.

    Raises:
        click.UsageError: If the column is missing or there are too few to learn from.
    """
    config = predictor.document["training"]["train_config"]
    splits = [Split.of_training(config, fold) for fold in ("val", "test")]
    try:
        rows = read_labelled(file, {"band_gap": column})
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    found = [
        (row.atoms, row.labels["band_gap"], split.fold)
        for row in rows
        if len(row.atoms) <= max_atoms and np.isfinite(row.labels["band_gap"])
        for split in splits
        if split.holds(reduced_formula(row.atoms))
    ]
    if len(found) < 10 * FOLDS:
        raise click.UsageError(
            f"{file} must hold at least {10 * FOLDS} structures of up to {max_atoms} atoms with "
            f"{column!r} in the model's validation and test folds, got {len(found)}"
        )
    chosen = np.random.default_rng(0).permutation(len(found))[:max_structures]
    return [found[k] for k in chosen]


def tabulate(predictor: Predictor, rows: Sequence[HeldOut]) -> Table:
    """Labels, predictions and features."""
    structures = [atoms for atoms, _, _ in rows]
    started, predictions = process_time(), []
    for start in range(0, len(structures), _BATCH):
        predictions += predictor(structures[start : start + _BATCH])
    predict_seconds = (process_time() - started) / len(structures)
    features, seconds = [], []
    for atoms in structures:
        started = process_time()
        features.append(electronic_features(atoms))
        seconds.append(process_time() - started)
    gaps = [row["band_gap"] for row in predictions]
    metal = [row["metal_probability"].value for row in predictions]
    predicted = np.array([gap.value for gap in gaps])
    return Table(
        formulas=[reduced_formula(atoms) for atoms in structures],
        gap=np.array([gap for _, gap, _ in rows]),
        predicted=predicted,
        fold=np.array([fold for _, _, fold in rows]),
        output=np.stack([predicted, [gap.std for gap in gaps], metal], axis=1),
        t0=np.array([composition_features(atoms) for atoms in structures]),
        t1=np.array([list(row.values()) for row in features]),
        t1_names=list(features[0]),
        n_atoms=np.array([len(atoms) for atoms in structures]),
        t1_seconds=np.array(seconds),
        predict_seconds=predict_seconds,
    )
