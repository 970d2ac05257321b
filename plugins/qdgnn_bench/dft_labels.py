"""`qdgnn bench-dft-labels`: label a set by DFT, compare with its values, see what the labels teach.

Structures of `ELEMENTS` are drawn by a hash of the structure, those with a gap first: metals teach
little about gaps. A plane-wave calculation of each gives formation energy and gap, beside those of
the set; all energies, those of the elements too, have the same cutoff, whose error cancels. The
set's energies may have other references (perov5's are competing phases): they are compared after
an offset for each element too, fitted to other formulas, beside a fit of elements alone. Then
gradient boosting learns the set's gap, in cross-validation grouped by formula, from composition
(T0), tight binding (T1), the calculation (T3) and, as a control, the calculation of another
structure.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from rich.console import Console

from qdgnn_ase import (
    LabelledStructure,
    mean_interval,
    read_labelled,
    reduced_formula,
    resampled_weights,
)
from qdgnn_bench.t1_experiment import FOLDS, out_of_fold
from qdgnn_bench.t1_features import composition_features, electronic_features
from qdgnn_dft.backend import CalculationError, backend_of, evaluate
from qdgnn_dft.gpaw_backend import GPAWBackend
from qdgnn_dft.record import Record, record_key
from qdgnn_dft.references import derived_values, element_energy, scale_of
from qdgnn_dft.settings import DFTSettings
from qdgnn_dft.store import ResultStore

Array = NDArray[np.float64]
Labelled = list[tuple[LabelledStructure, Record]]

ELEMENTS = (
    *("Li", "Na", "K", "Rb", "Be", "Mg", "Ca", "Sr", "Ba", "Sc", "Y", "Ti", "Zr", "Hf", "Nb", "Ta"),
    *("Cu", "Ag", "Au", "Zn", "Cd", "Al", "In", "Si", "Ge", "Sn", "Pb", "As", "Sb", "Bi"),
    *("N", "O", "F", "S"),
)
"""Not magnetic, with a crystal of few atoms or a molecule as reference."""
SETTINGS = DFTSettings(cutoff_ev=500.0, k_density=2.2, path_points=0)
"""An even mesh of 4 x 4 x 4 points for a cubic perovskite holds Gamma, X, M and R."""
BACKEND = GPAWBackend(SETTINGS)
REFERENCE = GPAWBackend(DFTSettings(cutoff_ev=SETTINGS.cutoff_ev, path_points=0))
"""Metals need denser meshes."""
ARMS = {
    "T0": ("T0",),
    "T0 + T1": ("T0", "T1"),
    "T0 + T3": ("T0", "T3"),
    "T0 + T1 + T3": ("T0", "T1", "T3"),
    "T0 + T3 of another structure": ("T0", "another's T3"),
}
_LOSS = "absolute_error"
"""The metric."""


@click.command("bench-dft-labels")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--energy", required=True, metavar="COLUMN", help="Formation energy, eV/atom.")
@click.option("--gap", required=True, metavar="COLUMN", help="Band gap, eV.")
@click.option("-n", "n_rows", default=300, show_default=True, help="Structures to label.")
@click.option("--store", type=Path, required=True, help="Result store; goes on where it was.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seeds", default=5, show_default=True, help="Cross-validations that are averaged.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also writes a .md beside.")
def dft_labels(
    file: Path,
    *,
    energy: str,
    gap: str,
    n_rows: int,
    store: Path,
    jobs: int,
    seeds: int,
    output: Path | None,
) -> None:
    """Label structures of FILE with GPAW; compare with its columns; ablation of T0, T1 and T3."""
    try:
        backend_of("gpaw")
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    rows = chosen(read_labelled(file, {"formation_energy": energy, "band_gap": gap}), n_rows)
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(jobs, mp_context=context) as pool,
        Console(stderr=True).status("elements") as status,
    ):
        energies = list(pool.map(partial(_element, store=str(store)), ELEMENTS))
        found = pool.map(partial(_record, store=str(store)), [row.atoms for row in rows])
        labelled, failures = sorted_out(rows, found, status.update)
    document = {
        "file": file.name,
        "columns": {"formation_energy": energy, "band_gap": gap},
        "date": date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "k_density": SETTINGS.k_density,
        "failures": failures,
        **study(labelled, dict(zip(ELEMENTS, energies, strict=True)), seeds),
    }
    click.echo(markdown(document))
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
        output.with_suffix(".md").write_text(markdown(document))


def chosen(rows: Sequence[LabelledStructure], n: int) -> list[LabelledStructure]:
    """Rows of `ELEMENTS` with both labels, those with a gap first.

    Raises:
        click.UsageError: If there are fewer than folds.
    """
    usable = [
        row
        for row in rows
        if set(row.atoms.symbols) <= set(ELEMENTS) and np.isfinite(list(row.labels.values())).all()
    ]
    if len(usable) < FOLDS or n < FOLDS:
        raise click.UsageError(
            f"-n must be at least {FOLDS} and FILE hold so many labelled structures of "
            f"{', '.join(ELEMENTS)}, got {n} and {len(usable)}"
        )
    usable.sort(key=lambda row: (row.labels["band_gap"] == 0, record_key(row.atoms, {})))
    return usable[:n]


def sorted_out(
    rows: Sequence[LabelledStructure], found: Iterable[Record | str], show: Callable[[str], None]
) -> tuple[Labelled, dict[str, str]]:
    """Rows with their records, and the reasons of those that failed by formula."""
    labelled: Labelled = []
    failures = {}
    for row, record in zip(rows, found, strict=True):
        if isinstance(record, str):
            failures[str(row.atoms.symbols)] = record
        else:
            labelled.append((row, record))
        show(f"{len(labelled)} of {len(rows)} labelled, {len(failures)} failed")
    return labelled, failures


def _element(symbol: str, store: str) -> dict[str, Any]:
    return element_energy(symbol, REFERENCE, ResultStore(store))


def _record(atoms: Atoms, store: str) -> Record | str:
    try:
        return evaluate(atoms, BACKEND, ResultStore(store))
    except CalculationError as error:
        return str(error)


def study(labelled: Labelled, elements: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """Agreement with the set, and the ablation."""
    table = {scale_of(labelled[0][1].settings): {"elements": dict(elements)}}
    own = np.array([derived_values(r, table)["formation_energy"] for _, r in labelled])
    gaps = np.array([record.values["band_gap"] for _, record in labelled])
    theirs, target = (
        np.array([row.labels[name] for row, _ in labelled])
        for name in ("formation_energy", "band_gap")
    )
    structures = [row.atoms for row, _ in labelled]
    formulas = [reduced_formula(atoms) for atoms in structures]
    weights = resampled_weights(formulas)
    return {
        "structures": len(labelled),
        "with_gap": int((target > 0).sum()),
        "cpu_seconds": round(sum(r.provenance["cpu_seconds"] for _, r in labelled)),
        "version": labelled[0][1].provenance["version"],
        "agreement": {
            "formation_energy": agreement(own, theirs, weights),
            "formation_energy, an offset per element": agreement(
                own - by_elements(own - theirs, structures, formulas), theirs, weights
            ),
            "fit of elements alone": agreement(
                by_elements(theirs, structures, formulas), theirs, weights
            ),
            "band_gap where the set has one": agreement(
                gaps[target > 0], target[target > 0], weights[:, target > 0]
            ),
        },
        "ablation": ablation(features(labelled, own), target, formulas, seeds),
    }


def by_elements(target: Array, structures: Sequence[Atoms], formulas: Sequence[str]) -> Array:
    """Linear in the fractions of the elements, fitted to the folds without the formula, (n,)."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold, cross_val_predict

    counts = [[list(atoms.symbols).count(e) / len(atoms) for e in ELEMENTS] for atoms in structures]
    folds = GroupKFold(FOLDS, shuffle=True, random_state=0)
    found: Array = cross_val_predict(
        Ridge(alpha=1e-2), np.array(counts), target, groups=formulas, cv=folds
    )
    return found


def agreement(own: Array, theirs: Array, weights: Array) -> dict[str, Any]:
    """Mean absolute and mean difference and correlations of two columns (n,)."""
    from scipy.stats import pearsonr, spearmanr

    difference = own - theirs
    return {
        "rows": len(own),
        "mae": float(np.abs(difference).mean()),
        "mae_interval": mean_interval(np.abs(difference), weights),
        "mean_difference": float(difference.mean()),
        "mae_without_mean": float(np.abs(difference - difference.mean()).mean()),
        "pearson": float(pearsonr(own, theirs)[0]),
        "spearman": float(spearmanr(own, theirs)[0]),
    }


def features(labelled: Labelled, formation: Array) -> dict[str, Array]:
    """Descriptors (n, n_features) of each tier."""
    t1 = [list(electronic_features(row.atoms).values()) for row, _ in labelled]
    t3 = np.array(
        [
            [*(record.values[name] for name in _NUMBERS), energy, *_spread(record)]
            for (_, record), energy in zip(labelled, formation, strict=True)
        ]
    )
    return {
        "T0": np.array([composition_features(row.atoms) for row, _ in labelled]),
        "T1": np.array(t1),
        "T3": t3,
        "another's T3": t3[np.random.default_rng(0).permutation(len(t3))],
    }


_NUMBERS = ("band_gap", "band_gap_direct", "fermi_level")


def _spread(record: Record) -> list[float]:
    """Standard deviation, least and largest of the atoms' charges, whose mean is zero."""
    charges = np.array(record.values["charges"])
    return [float(charges.std()), float(charges.min()), float(charges.max())]


def ablation(
    tiers: Mapping[str, Array], target: Array, formulas: Sequence[str], seeds: int
) -> dict[str, Any]:
    """Errors of each arm out of fold, and what it gains on T0, paired, with 95 % intervals."""
    weights = resampled_weights(list(formulas))
    errors = {}
    for arm, names in ARMS.items():
        known = np.hstack([tiers[name] for name in names])
        found = out_of_fold(known, target, formulas, loss=_LOSS, seeds=seeds)
        errors[arm] = np.abs(np.maximum(found, 0.0) - target)
    parts = {"all": target >= 0} | ({"with a gap": target > 0} if (target == 0).any() else {})
    return {
        "seeds": seeds,
        "folds": FOLDS,
        "parts": {
            part: {
                "rows": int(mask.sum()),
                "arms": {
                    arm: _gain(error[mask], errors["T0"][mask], weights[:, mask])
                    for arm, error in errors.items()
                },
            }
            for part, mask in parts.items()
        },
    }


def _gain(error: Array, base: Array, weights: Array) -> dict[str, Any]:
    return {
        "mae": float(error.mean()),
        "interval": mean_interval(error, weights),
        "gain": float((base - error).mean()),
        "gain_interval": mean_interval(base - error, weights),
    }


def markdown(document: Mapping[str, Any]) -> str:
    """Both tables."""
    tried = document["structures"] + len(document["failures"])
    cost = document["cpu_seconds"] / document["structures"]
    lines = [
        f"{document['structures']} of {tried} structures of {document['file']} labelled "
        f"({document['with_gap']} with a gap in the set) by {document['version']}, PBE, "
        f"{document['k_density']} k-points per Å^-1, {cost:.0f} CPU s each; {document['date']}, "
        f"{document['machine']}.",
        "",
        "| PBE beside the set | rows | MAE (95 %) | mean difference | MAE without it | Pearson "
        "| Spearman |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in document["agreement"].items():
        lines.append(
            f"| {name.replace('_', ' ')} | {row['rows']} | {_cell(row['mae'], row['mae_interval'])}"
            f" | {row['mean_difference']:+.3f} | {row['mae_without_mean']:.3f} "
            f"| {row['pearson']:.3f} | {row['spearman']:.3f} |"
        )
    found = document["ablation"]
    lines += [
        "",
        f"The set's gap from descriptors, by gradient boosting out of {found['folds']} folds of "
        f"formulas, {found['seeds']} seeds; eV.",
        "",
        "| descriptors | " + " | ".join(f"{p}, MAE | gain on T0" for p in found["parts"]) + " |",
        "|---|" + "---|---|" * len(found["parts"]),
    ]
    for arm in ARMS:
        rows = [part["arms"][arm] for part in found["parts"].values()]
        cells = [
            f"{_cell(r['mae'], r['interval'])} | {_cell(r['gain'], r['gain_interval'])}"
            for r in rows
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: float, limits: Sequence[float]) -> str:
    return f"{value:.3f} ({limits[0]:.3f} to {limits[1]:.3f})"
