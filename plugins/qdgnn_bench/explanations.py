"""`qdgnn bench-explain`: do the bonds that a method names matter to the prediction?

Of each structure the bonds that a method ranks highest are removed, and the change of the
prediction is compared with that for randomly chosen bonds, for the shortest bonds (what a method
is worth beyond knowing that near neighbours matter), and for the bonds that the same method names
when it explains an untrained model; all changes are those of the trained model. The converse, only
the highest kept, tells whether they suffice. Bonds of equal score are taken in random order.

The models have never seen a crystal with bonds missing: this measures the model, not the material.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from qdgnn_ase import (
    Explainer,
    Explanation,
    Predictor,
    Split,
    agreement,
    measured,
    read_structures,
    reduced_formula,
)
from qdgnn_bench.explanations_report import tables

Array = NDArray[np.float64]
METHODS: tuple[Literal["integrated", "gradient", "mask", "attention"], ...] = (
    "integrated",
    "gradient",
    "mask",
    "attention",
)
SHARES = (0.05, 0.1, 0.2)
"""Parts of a structure's bonds that are removed or kept."""
_RANDOM = 10
"""Random choices per structure; their mean change counts."""


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """One structure: changes of the prediction, and how the methods agree."""

    removed: dict[str, Array]
    """Choice -> |f - f without the bonds chosen|, for each of `SHARES`, (n_shares,)."""
    kept: dict[str, Array]
    """Choice -> |f - f with the bonds chosen alone|, (n_shares,)."""
    agreement: dict[tuple[str, str], float]


def choose_structures(path: str, split: Split, n: int, max_atoms: int, seed: int) -> list[Atoms]:
    """Random structures of a fold, one per formula, of 2 to ``max_atoms`` atoms."""
    by_formula: dict[str, Atoms] = {}
    for atoms in read_structures(path):
        if 2 <= len(atoms) <= max_atoms:
            by_formula.setdefault(reduced_formula(atoms), atoms)
    formulas = sorted(formula for formula in by_formula if split.holds(formula))
    chosen = np.random.default_rng(seed).permutation(len(formulas))[:n]
    return [by_formula[formulas[k]] for k in chosen]


def measure(
    atoms: Atoms, trained: Explainer, untrained: Explainer, rng: np.random.Generator
) -> Faithfulness:
    """Remove and keep the bonds that each choice ranks highest."""
    explanations = [trained(atoms, method) for method in METHODS]
    controls = [untrained(atoms, method) for method in METHODS]
    bonds = explanations[0].bonds
    scores: dict[str, Array] = {row.method: np.abs(row.bond_scores) for row in explanations}
    scores |= {f"{row.method}, untrained": np.abs(row.bond_scores) for row in controls}
    scores["shortest"] = -bonds.lengths
    orders = {name: [_order(values, rng)] for name, values in scores.items()}
    orders["random"] = [rng.permutation(len(bonds)) for _ in range(_RANDOM)]
    removed, kept = (_changes(atoms, trained, explanations[0], orders, keep) for keep in (0, 1))
    return Faithfulness(removed, kept, agreement(explanations))


def _order(scores: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Bonds by falling score, equal ones (to rounding) in random order."""
    rounded = np.round(scores / (1e-8 * (np.abs(scores).max() or 1.0)))
    order: NDArray[np.int64] = np.lexsort((rng.random(len(scores)), -rounded))
    return order


def _changes(
    atoms: Atoms,
    explainer: Explainer,
    whole: Explanation,
    orders: dict[str, list[NDArray[np.int64]]],
    keep: int,
) -> dict[str, Array]:
    """|f - f(s)| with s = ``keep`` for the highest bonds and 1 - ``keep`` for the others."""
    n = len(whole.bonds)
    rows = []
    for order in (order for several in orders.values() for order in several):
        for share in SHARES:
            strengths = np.full(n, 1.0 - keep)
            strengths[order[: max(1, round(share * n))]] = keep
            rows.append(strengths)
    changes = np.abs(explainer.values(atoms, np.stack(rows)) - whole.value)
    blocks = iter(changes.reshape(-1, len(SHARES)))
    return {
        name: np.mean([next(blocks) for _ in several], axis=0) for name, several in orders.items()
    }


def summarise(results: Sequence[Faithfulness]) -> dict[str, Any]:
    """Mean changes of each choice with 95 % intervals, and each method against its rivals."""
    removed = {name: np.array([r.removed[name] for r in results]) for name in results[0].removed}
    kept = {name: np.array([r.kept[name] for r in results]) for name in results[0].kept}
    return {
        "removed": {name: _columns(values) for name, values in removed.items()},
        "kept": {name: _columns(values) for name, values in kept.items()},
        "comparisons": [
            _comparison(method, rival, share, removed)
            for method in METHODS
            for rival in ("random", f"{method}, untrained", "shortest")
            for share in range(len(SHARES))
        ],
        "agreement": [
            {"methods": pair, **_mean([r.agreement[pair] for r in results])}
            for pair in combinations(METHODS, 2)
        ],
    }


def _columns(values: Array) -> list[dict[str, Any]]:
    return [
        {"share": share, **_mean(column)} for share, column in zip(SHARES, values.T, strict=True)
    ]


def _comparison(method: str, rival: str, share: int, changes: dict[str, Array]) -> dict[str, Any]:
    """Change by the method's bonds less that by the rival's, of the same structures."""
    difference = changes[method][:, share] - changes[rival][:, share]
    found = _mean(difference)
    low, high = found["interval"]
    winner = method if low > 0 else rival if high < 0 else "neither"
    return {
        "method": method,
        "rival": rival,
        "share": SHARES[share],
        "difference": found["mean"],
        "interval": found["interval"],
        "larger_in": float((difference > 0).mean()),
        "winner": winner,
    }


def _mean(values: Sequence[float] | Array, n_bootstrap: int = 2_000) -> dict[str, Any]:
    """Mean over structures and its 95 % bootstrap interval; NaN are left out."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    if not len(array):
        return {"mean": None, "interval": [None, None]}
    draws = np.random.default_rng(0).integers(len(array), size=(n_bootstrap, len(array)))
    bounds = np.percentile(array[draws].mean(axis=1), [2.5, 97.5])
    return {"mean": float(array.mean()), "interval": bounds.tolist()}


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--target", default="formation_energy", show_default=True, help="Property.")
@click.option("--model", default="properties", show_default=True, help="Name or checkpoint.")
@click.option("--fold", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option("--structures", type=click.IntRange(min=2), default=60, show_default=True)
@click.option("--max-atoms", type=click.IntRange(min=2), default=12, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of structures, ties, control weights.")
@click.option("--json", "json_output", type=Path, help="Write all figures.")
@click.option("--markdown", type=Path, help="Write the tables.")
def explanations(
    file: str,
    *,
    target: str,
    model: str,
    fold: Any,
    structures: int,
    max_atoms: int,
    seed: int,
    json_output: Path | None,
    markdown: Path | None,
) -> None:
    """Faithfulness of explanations on structures of FILE, a training file of the model."""
    console = Console()
    predictor = Predictor(model, device="cpu")
    split = Split.of_training(predictor.document["training"]["train_config"], fold)
    chosen = choose_structures(file, split, structures, max_atoms, seed)
    if len(chosen) < structures:
        raise click.UsageError(
            f"{file} must hold {structures} formulas of the {fold} fold with 2 to {max_atoms} "
            f"atoms, got {len(chosen)}; lower --structures or raise --max-atoms"
        )
    trained = Explainer(target, predictor)
    untrained, rng = trained.untrained(seed), np.random.default_rng(seed)
    rows = [
        measure(atoms, trained, untrained, rng)
        for atoms in track(chosen, "removing bonds", console=console)
    ]
    document = {
        "target": target,
        "unit": trained.unit,
        "model": model,
        "file": Path(file).name,
        "fold": fold,
        "structures": len(chosen),
        "max_atoms": max_atoms,
        "seed": seed,
        **measured(),
        "torch": torch.__version__,
        **summarise(rows),
    }
    text = tables(document)
    console.print(text, markup=False, soft_wrap=True)
    _write(json_output, lambda: json.dumps(document, indent=1, allow_nan=False) + "\n")
    _write(markdown, lambda: text)


def _write(path: Path | None, text: Callable[[], str]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text())
