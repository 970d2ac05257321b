"""What DFT labels say: agreement with a set's own values, an ablation of descriptors, the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_ase import LabelledStructure, mean_interval, reduced_formula, resampled_weights
from qdgnn_bench.t1_experiment import FOLDS, LOSSES, out_of_fold
from qdgnn_bench.t1_features import composition_features, electronic_features
from qdgnn_dft.record import Record
from qdgnn_dft.references import derived_values, scale_of

Array = NDArray[np.float64]
Labelled = list[tuple[LabelledStructure, Record]]

ARMS = {
    "T0": ("T0",),
    "T0 + T1": ("T0", "T1"),
    "T0 + T3": ("T0", "T3"),
    "T0 + T1 + T3": ("T0", "T1", "T3"),
    "T0 + T3 of another structure": ("T0", "another's T3"),
}
_LOSS = LOSSES[1]
"""With the metric itself, boosting stands still at the median where half of the gaps are 0."""


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

    known = sorted({symbol for atoms in structures for symbol in atoms.symbols})
    counts = [[list(atoms.symbols).count(e) / len(atoms) for e in known] for atoms in structures]
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
