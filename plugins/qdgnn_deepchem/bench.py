"""`qdgnn bench-deepchem`: QDGNNModel beside DeepChem's crystal models, same folds, same epochs.

Each fold of formulas is the test once; of the rest a tenth, by formula, is for validation: there
the learning rate is chosen (on the first fold, for all) and the uncertainty calibrated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

import click
import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_ase import (
    Property,
    calibration,
    claim_folder,
    composition_matrix,
    fold_of,
    measured,
    reduced_formula,
)

Array = NDArray[np.float64]
Result = dict[str, Any]
Indices = dict[str, NDArray[np.int64]]
BATCH = 32
LAST_RATE = 0.01
"""Of the first, at the end of the exponential decay."""
SPLIT_SEED = 1
"""Of the validation formulas; the folds have 0, and shares of one seed would follow them."""
VALIDATION = 0.1
"""Share of the formulas outside the test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every model is given."""

    folds: int
    """Cross-validation folds by formula."""
    epochs: int
    """Passes over the training data."""
    rates: tuple[float, ...]
    """First learning rates to choose from."""


@click.command()
@click.argument("file", type=click.Path(exists=True))
@click.option("--column", default="heat_ref", show_default=True, help="Label, per atom.")
@click.option("--unit", default="eV/atom", show_default=True)
@click.option("--structures", default=3000, show_default=True, help="Drawn from FILE, seed 0.")
@click.option("--max-atoms", default=40, show_default=True, help="Larger ones are left out.")
@click.option("--folds", default=3, show_default=True)
@click.option("--epochs", default=15, show_default=True)
@click.option("--rate", multiple=True, default=(1e-3, 4e-3), show_default=True)
@click.option("--only", multiple=True, help="These models only.")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder.")
def bench(
    file: str,
    column: str,
    unit: str,
    structures: int,
    max_atoms: int,
    folds: int,
    epochs: int,
    rate: tuple[float, ...],
    only: tuple[str, ...],
    output: Path,
) -> None:
    """Errors and calibration on the labelled structures of FILE; goes on where it was killed.

    Writes a JSON file of each model and fold into the folder, and bench.json and bench.md.
    """
    from qdgnn_deepchem.datasets import read_rows  # DeepChem's import takes seconds
    from qdgnn_deepchem.peers import subjects

    torch.set_num_threads(1)
    plan = Plan(folds=folds, epochs=epochs, rates=rate)
    rows = [
        row
        for row in read_rows(Path(file), {column: column})
        if np.isfinite(row[1][0]) and len(row[0]) <= max_atoms
    ]
    chosen = np.random.default_rng(0).permutation(len(rows))[:structures]
    atoms = [rows[k][0] for k in chosen]
    labels = np.array([rows[k][1] for k in chosen])
    task = Property(name=column, unit=unit, description=f"column {column}", pooling="atoms")
    known = subjects(task)
    if unknown := sorted(set(only) - set(known)):
        raise click.UsageError(f"--only must be of {list(known)}, got {unknown}")
    asked = {"file": Path(file).name, "column": column, "structures": structures}
    asked |= {"max_atoms": max_atoms, **asdict(plan)}
    claim_folder(output / "plan.json", asked)
    results = linear_results(atoms, labels, plan)
    for name in only or known:
        results += model_results(name, known[name], atoms, labels, plan, output)
    document = {
        "command": f"qdgnn bench-deepchem {Path(file).name} --column {column} --structures "
        f"{structures} --max-atoms {max_atoms} --folds {folds} --epochs {epochs} "
        + " ".join(f"--rate {first:g}" for first in rate),
        "unit": unit,
        "structures": len(atoms),
        "formulas": len({reduced_formula(a) for a in atoms}),
        **measured(),
        "versions": {name: version(name) for name in ("deepchem", "torch", "qdgnn-ase")},
        "runs": results,
    }
    (output / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    (output / "bench.md").write_text(markdown(document))
    click.echo(markdown(document))


def parts_of(atoms: Sequence[Atoms], n_folds: int, fold: int) -> Indices:
    """Indices of training, validation and test; no formula is in two of them."""
    from qdgnn_deepchem.splitter import k_fold_of

    names = [reduced_formula(a) for a in atoms]
    places = [
        "test"
        if k_fold_of(name, n_folds, 0) == fold
        else fold_of(name, val=VALIDATION, test=0.0, seed=SPLIT_SEED)
        for name in names
    ]
    parts = {
        part: np.flatnonzero([place == part for place in places])
        for part in ("train", "val", "test")
    }
    if empty := [part for part, indices in parts.items() if not len(indices)]:
        raise click.UsageError(f"--structures must fill every part, got none for {empty}")
    return parts


def model_results(
    name: str, subject: Any, atoms: Sequence[Atoms], labels: Array, plan: Plan, folder: Path
) -> list[Result]:
    """Results of a model on every fold, each kept in a file of its own."""
    from deepchem.data import NumpyDataset

    targets = [folder / f"{name}_{fold}.json" for fold in range(plan.folds)]
    if not all(target.is_file() for target in targets):
        features = np.empty(len(atoms), dtype=object)
        features[:] = [subject.features(a) for a in atoms]
        dataset = NumpyDataset(features, labels)
    results: list[Result] = []
    for fold, target in enumerate(targets):
        if not target.is_file():
            parts = parts_of(atoms, plan.folds, fold)
            rates = plan.rates if not results else (results[0]["rate"],)
            runs = []
            for rate in rates:
                with suppress(FloatingPointError):  # too high a rate
                    runs.append(trained(subject, dataset, parts, rate, plan.epochs))
            runs = [run for run in runs if np.isfinite(run["validation_mae"])]
            if not runs:
                raise click.ClickException(f"{name} needs a lower --rate, got NaN with {rates}")
            best = min(runs, key=lambda run: run["validation_mae"])
            tried = {str(run["rate"]): run["validation_mae"] for run in runs}
            result = {"model": name, "fold": fold, **best, "rates_tried": tried}
            target.write_text(json.dumps(result, indent=1) + "\n")
        results.append(json.loads(target.read_text()))
    return results


def trained(subject: Any, dataset: Any, parts: Indices, rate: float, epochs: int) -> Result:
    """Errors of one training, in the labels' unit, and what it took."""
    from deepchem.models.optimizers import ExponentialDecay
    from deepchem.trans import NormalizationTransformer

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  # DeepChem shuffles with it
    folds = {name: dataset.select(indices) for name, indices in parts.items()}
    scale = NormalizationTransformer(transform_y=True, dataset=folds["train"])
    train, val = scale.transform(folds["train"]), scale.transform(folds["val"])
    steps = epochs * -(-len(train) // BATCH)
    model = subject.create(
        batch_size=BATCH,
        learning_rate=ExponentialDecay(rate, LAST_RATE, steps),
        device=torch.device("cpu"),
    )
    started = process_time()
    model.fit(train, nb_epoch=epochs, checkpoint_interval=0)
    seconds = process_time() - started
    errors = {
        name: (model.predict(folds[name], [scale]) - folds[name].y)[:, 0]
        for name in ("val", "test")
    }
    result = {
        "rate": rate,
        "structures": {name: len(fold) for name, fold in folds.items()},
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "train_cpu_seconds": seconds,
        "validation_mae": float(np.abs(errors["val"]).mean()),
        "mae": float(np.abs(errors["test"]).mean()),
        "rmse": float(np.sqrt(np.square(errors["test"]).mean())),
    }
    if hasattr(model, "calibrate"):
        model.calibrate(val)
        _, std = model.predict_uncertainty(folds["test"], transformers=[scale])
        result |= calibration(errors["test"], std[:, 0])
    return result


def linear_results(atoms: Sequence[Atoms], labels: Array, plan: Plan) -> list[Result]:
    """Least squares on the atomic fractions: what any model of structures must beat."""
    counts = composition_matrix([a.numbers for a in atoms])
    shares = counts / counts.sum(axis=1, keepdims=True)
    results = []
    for fold in range(plan.folds):
        parts = parts_of(atoms, plan.folds, fold)
        solution = np.linalg.lstsq(shares[parts["train"]], labels[parts["train"], 0], rcond=None)
        error = shares[parts["test"]] @ solution[0] - labels[parts["test"], 0]
        results.append(
            {
                "model": "linear in composition",
                "fold": fold,
                "parameters": int(solution[2]),
                "mae": float(np.abs(error).mean()),
                "rmse": float(np.sqrt(np.square(error).mean())),
            }
        )
    return results


def markdown(document: dict[str, Any]) -> str:
    """Table of means over the folds with their range."""
    unit = document["unit"]
    lines = [
        f"`{document['command']}`: {document['structures']} structures of {document['formulas']} "
        f"formulas, {document['date']}, {document['machine']}, one thread. Mean over the folds "
        "(least-most). Calibration error: mean difference between the share of test errors within "
        "the central 10-90 % intervals of the predicted normal distributions and those shares.",
        "",
        f"| model | parameters | rate | training, CPU s | MAE, {unit} | RMSE, {unit} | "
        "calibration error | within one sigma |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(run["model"] for run in document["runs"]):
        runs = [run for run in document["runs"] if run["model"] == name]
        cells = [name, f"{runs[0]['parameters']:,}", f"{runs[0].get('rate', '-')}"]
        cells.append(_cell(runs, "train_cpu_seconds", ".0f"))
        cells += [_cell(runs, key, ".3f") for key in ("mae", "rmse")]
        cells += [_cell(runs, key, ".3f") for key in ("calibration_error", "within_sigma")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(runs: Sequence[Result], key: str, form: str) -> str:
    values = [run[key] for run in runs if key in run]
    if not values:
        return "-"
    return f"{np.mean(values):{form}} ({min(values):{form}}-{max(values):{form}})"
