"""`qdgnn bench-conditions`: heat capacities at ten temperatures, of formulas that were not trained.

Labels are harmonic heat capacities at constant volume from phonopy with the embedded potential's
forces. A property model that takes the temperature as a condition learns those of two thirds of the
formulas and predicts the others, so that every solid is predicted once. Ablation: each term of the
fusion left out, each alone, and no temperature at all. Beside them stands the mean over the
training solids at each temperature. Every arm takes the same number of steps on the same batches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from qdgnn_ase import (
    AtomGraph,
    PropertyConfig,
    PropertyModel,
    QDGNNCalculator,
    QDGNNConfig,
    Scaler,
    collate,
    composition_matrix,
    from_atoms,
    mean_interval,
    measured,
    property_loss,
    resampled_weights,
)
from qdgnn_bench.condition_labels import TEMPERATURES, Solid, make_solids

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
_NAME = "heat_capacity"
_TERMS = ("concatenation", "gate", "bilinear")
ARMS: dict[str, tuple[str, ...]] = {
    "all three terms": _TERMS,
    **{f"without {term}": tuple(t for t in _TERMS if t != term) for term in _TERMS},
    **{f"{term} alone": (term,) for term in _TERMS},
    "no temperature": (),
}
"""Name -> terms of the fusion; none of them: the temperature is not shown."""
_MEAN = "mean of the training solids"
_TRUNK = QDGNNConfig(cutoff=4.0, hidden=32, n_layers=2, n_vectors=8, n_pair=16, n_heads=4)
_BATCH = 32
_RATE = 5e-3


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Every solid at every temperature; all have one entry a row."""

    graphs: list[AtomGraph]
    """With the temperature as condition."""
    formulas: list[str]
    temperatures: Array
    """K."""
    labels: Array
    """J/(mol K) per mole of atoms."""


@click.command()
@click.option("--folds", default=3, show_default=True, help="Of formulas; each is tested once.")
@click.option("--steps", default=200, show_default=True, help="Of each training.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also writes a .md beside.")
def conditions(folds: int, steps: int, output: Path | None) -> None:
    """Ablation of the terms that fuse a temperature with a structure."""
    started = process_time()
    console = Console()
    with console.status("phonons") as status:
        solids, left_out = make_solids(QDGNNCalculator(), status.update)
        rows = make_rows(solids)
        results = compare(rows, folds, steps, status.update)
    document = {
        "solids": len(solids),
        "formulas": [solid.formula for solid in solids],
        "left out": left_out,
        "temperatures": list(TEMPERATURES),
        "folds": folds,
        "steps": steps,
        **measured(),
        "cpu_minutes": (process_time() - started) / 60,
        "errors": results,
    }
    console.print(markdown(document))
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
        output.with_suffix(".md").write_text(markdown(document))


def make_rows(solids: Sequence[Solid]) -> Rows:
    """Graphs of every solid at every temperature with its label."""
    graphs = [from_atoms(solid.atoms, _TRUNK.cutoff) for solid in solids]
    pairs = [(k, t) for k in range(len(solids)) for t in range(len(TEMPERATURES))]
    return Rows(
        graphs=[replace(graphs[k], conditions=torch.tensor([[TEMPERATURES[t]]])) for k, t in pairs],
        formulas=[solids[k].formula for k, _ in pairs],
        temperatures=np.array([TEMPERATURES[t] for _, t in pairs]),
        labels=np.array([solids[k].heat_capacity[t] for k, t in pairs]),
    )


def compare(
    rows: Rows, folds: int, steps: int, progress: Any = lambda text: None
) -> dict[str, dict[str, Any]]:
    """Errors of every arm on the same folds of formulas, J/(mol K).

    Returns:
        Name -> ``mae``, ``interval``, ``difference`` = all three terms - this (positive: better
        than all three), ``difference_interval``; intervals of 95 % over formulas.
    """
    values = {name: np.zeros(len(rows.labels)) for name in (*ARMS, _MEAN)}
    for fold, (known, wanted) in enumerate(split(rows.formulas, folds)):
        values[_MEAN][wanted] = _mean_curve(rows, known, wanted)
        for name, terms in ARMS.items():
            progress(f"fold {fold + 1} of {folds}: {name}")
            values[name][wanted] = predictions(rows, known, wanted, terms, steps)
    errors = {name: np.abs(found - rows.labels) for name, found in values.items()}
    weights = resampled_weights(rows.formulas)
    reference = errors["all three terms"]
    return {
        name: {
            "mae": float(error.mean()),
            "interval": mean_interval(error, weights),
            "difference": float((reference - error).mean()),
            "difference_interval": mean_interval(reference - error, weights),
        }
        for name, error in errors.items()
    }


def split(formulas: Sequence[str], folds: int) -> list[tuple[Integers, Integers]]:
    """Indices to train on and to test on; no formula is in two tests."""
    names = np.random.default_rng(0).permutation(sorted(set(formulas)))
    place = {name: k % folds for k, name in enumerate(names)}
    fold = np.array([place[name] for name in formulas])
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]


def _mean_curve(rows: Rows, known: Integers, wanted: Integers) -> Array:
    at = rows.temperatures[known]
    return np.array([rows.labels[known][at == t].mean() for t in rows.temperatures[wanted]])


def predictions(
    rows: Rows, known: Integers, wanted: Integers, terms: tuple[Any, ...], steps: int
) -> Array:
    """Heat capacities of the wanted rows by a model of the known ones, J/(mol K)."""
    model, scaler = train(rows, known, terms, steps)
    graph = collate([_shown(rows.graphs[k], terms) for k in wanted])
    with torch.no_grad():
        value, _ = scaler.predictions(model(graph)["values"], graph)
    found: Array = value[:, 0].numpy()
    return found


def train(
    rows: Rows, known: Integers, terms: tuple[Any, ...], steps: int
) -> tuple[PropertyModel, Scaler]:
    """Model and scaler of some rows."""
    graphs = [_shown(rows.graphs[k], terms) for k in known]
    labels = rows.labels[known][:, None]
    scaler = Scaler((_NAME,))
    scaler.fit(composition_matrix([graph.numbers.numpy() for graph in graphs]), labels)
    model = _untrained(graphs, terms)
    targets = [
        scaler.scaled(torch.tensor(label[None], dtype=torch.float32), graph)
        for label, graph in zip(labels, graphs, strict=True)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), _RATE, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    rng = np.random.default_rng(0)
    bag = torch.ones(_BATCH, model.config.n_members)
    for _ in range(steps):
        batch = rng.choice(len(graphs), _BATCH)
        values = model(collate([graphs[k] for k in batch]))["values"]
        wanted = torch.cat([targets[k] for k in batch])
        loss, _ = property_loss(values, wanted, bag, scaler, {_NAME: 1.0 / float(scaler.width[0])})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        schedule.step()
    return model.eval(), scaler


def _untrained(graphs: Sequence[AtomGraph], terms: tuple[Any, ...]) -> PropertyModel:
    names = {"conditions": ("temperature",), "condition_terms": terms} if terms else {}
    config = PropertyConfig(targets=(_NAME,), trunk=_TRUNK, n_members=4, **names)
    neighbors = sum(graph.n_edges for graph in graphs) / sum(len(g.numbers) for g in graphs)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PropertyModel(config, neighbors=neighbors)
    if model.conditions is not None:
        model.conditions.set_range(torch.cat([model.conditions_of(graph) for graph in graphs]))
    return model


def _shown(graph: AtomGraph, terms: tuple[Any, ...]) -> AtomGraph:
    return graph if terms else replace(graph, conditions=None)


def markdown(document: dict[str, Any]) -> str:
    """Table of the arms."""
    left_out, kelvin = ", ".join(document["left out"]) or "none", document["temperatures"]
    lines = [
        "Harmonic heat capacity at constant volume in J/(mol K) per mole of atoms, from phonopy "
        f"with the default potential, of {document['solids']} solids at {len(kelvin)} temperatures "
        f"from {kelvin[0]:g} to {kelvin[-1]:g} K (left out, with imaginary modes or not relaxed: "
        f"{left_out}). {document['folds']} folds of formulas, {document['steps']} steps per "
        f"training, {document['cpu_minutes']:.1f} CPU minutes in all, {document['date']}, "
        f"{document['machine']}. Mean absolute errors on formulas that were not trained with 95 % "
        "intervals over formulas; negative differences are worse than all three terms.",
        "",
        "| conditions | error | difference |",
        "|---|---|---|",
    ]
    for name, row in document["errors"].items():
        low, high = row["interval"]
        error = f"{row['mae']:.3f} ({low:.3f}-{high:.3f})"
        low, high = row["difference_interval"]
        lines.append(f"| {name} | {error} | {row['difference']:+.3f} ({low:+.3f} to {high:+.3f}) |")
    return "\n".join(lines) + "\n"
