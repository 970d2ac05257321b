"""Which bonds carry the gap that a model learned from an arm, and do two arms name the same ones?

Integrated gradients of a frame add up to the prediction less that without bonds, which is the same
for all frames of a crystal. So with S_g the sum of the scores of a kind g of bonds,

    Var(f) = sum_g Cov(S_g, f)

over frames, and Cov(S_g, f) / Var(f) is the share of the differences between frames that the model
takes from these bonds. Kinds are pairs of elements at a distance of the crystal as it was given.

Faithfulness: the change of the prediction when the tenth of the bonds with the largest scores is
removed, against a random tenth and the tenth that the untrained model names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.stats import spearmanr

from qdgnn_ase import Explainer, Explanation, Predictor, read_structures
from qdgnn_phonons.bench.arms import Study, md_file, run_folder
from qdgnn_phonons.bench.arms_report import LEAST_R2, interval

Row = dict[str, Any]
Array = NDArray[np.float64]
REMOVED = 0.1
"""Share of the bonds."""
_RANDOM = 10
"""Random choices of bonds; their mean change counts."""
_FRAMES = 4
"""Frames of each test."""


def compare_explanations(folder: Path, study: Study, crystal: Atoms, arms: Sequence[str]) -> Row:
    """Explanations of the models of two arms at the largest size, for the same test frames.

    Args:
        folder: Of a study of the labels "tight_binding".
        study: Its settings.
        crystal: Undisplaced crystal or supercell.
        arms: The better and the worse arm.

    Returns:
        ``arms``: name -> shares of kinds of bonds and faithfulness, means over seeds with
        intervals; ``agreement``: rank correlation of the bond scores of two models of the better
        arm ("seeds") and of one model of each arm ("arms").
    """
    frames = [
        atoms
        for kelvin in study.temperatures
        for atoms in read_structures(md_file(folder, f"{kelvin:g}K"))[:: _step(study)]
    ]
    size = max(study.sizes)
    found = {
        arm: [
            explain_model(_checkpoint(folder, arm, size, seed), frames, crystal)
            for seed in study.seeds
        ]
        for arm in arms
    }
    better, worse = ([row["scores"] for row in found[arm]] for arm in arms)
    return {
        "frames": len(frames),
        "arms": {arm: _summary(rows) for arm, rows in found.items()},
        "agreement": {
            "seeds": _agreement(better[:-1], better[1:]),
            "arms": _agreement(better, worse),
        },
    }


def _checkpoint(folder: Path, arm: str, size: int, seed: int) -> Path:
    return run_folder(folder, arm, size, seed) / "gap" / "best.safetensors"


def _step(study: Study) -> int:
    return max(1, study.n_test // _FRAMES)


def explain_model(checkpoint: Path, frames: Sequence[Atoms], crystal: Atoms) -> Row:
    """One model: ``scores`` of each frame's bonds, ``kinds`` with shares, and ``removed``."""
    explainer = Explainer("band_gap", Predictor(checkpoint, device="cpu"))
    untrained = explainer.untrained()
    found = [explainer(atoms) for atoms in frames]
    changes = [_changes(explainer, row, untrained(row.atoms), k) for k, row in enumerate(found)]
    return {
        "scores": [row.bond_scores for row in found],
        "kinds": shares(found, crystal, explainer.cutoff),
        "removed": {name: float(np.mean([row[name] for row in changes])) for name in changes[0]},
    }


def shares(explanations: Sequence[Explanation], crystal: Atoms, cutoff: float) -> dict[str, Row]:
    """Kind of bonds -> share of the variance over frames, and of all absolute scores."""
    distances = _distances(crystal, cutoff)
    kinds = [_kinds(row, distances) for row in explanations]
    values = np.array([row.value for row in explanations])
    variance = float(((values - values.mean()) ** 2).sum())
    total = sum(np.abs(row.bond_scores).sum() for row in explanations)
    result: dict[str, Row] = {}
    for kind in sorted(set(np.concatenate(kinds).tolist())):
        chosen = [row.bond_scores[k == kind] for row, k in zip(explanations, kinds, strict=True)]
        sums = np.array([scores.sum() for scores in chosen])
        result[kind] = {
            "variance": float(((sums - sums.mean()) * (values - values.mean())).sum() / variance),
            "scores": float(sum(np.abs(scores).sum() for scores in chosen) / total),
        }
    return result


def _distances(crystal: Atoms, cutoff: float) -> dict[str, Array]:
    """Pair of elements -> distances in the undisplaced crystal, a little beyond the cutoff too."""
    i, j, d = neighbor_list("ijd", crystal, cutoff + 1.5)
    names = np.array(
        ["-".join(sorted(pair)) for pair in zip(*_symbols(crystal, i, j), strict=True)]
    )
    return {str(name): np.unique(d[names == name].round(2)) for name in np.unique(names)}


def _symbols(crystal: Atoms, *indices: NDArray[np.int64]) -> list[list[str]]:
    symbols = crystal.get_chemical_symbols()
    return [[symbols[k] for k in chosen] for chosen in indices]


def _kinds(explanation: Explanation, distances: dict[str, Array]) -> NDArray[np.str_]:
    """Pair and nearest distance of the crystal of each bond, (n_bonds,), such as "Na-Cl 2.87"."""
    bonds = explanation.bonds
    nearest = [
        distances[pair][np.abs(distances[pair] - length).argmin()]
        for pair, length in zip(bonds.pairs, bonds.lengths, strict=True)
    ]
    return np.array([f"{p} {d:.2f} Å" for p, d in zip(bonds.pairs, nearest, strict=True)])


def _changes(
    explainer: Explainer, found: Explanation, control: Explanation, seed: int
) -> dict[str, float]:
    """|f - f without a tenth of the bonds| in the unit of f, by who chooses them."""
    n = len(found.bonds)
    rng = np.random.default_rng(seed)
    orders = [found.ranking(), control.ranking(), *(rng.permutation(n) for _ in range(_RANDOM))]
    strengths = np.ones((len(orders), n))
    for row, order in zip(strengths, orders, strict=True):
        row[order[: max(1, round(REMOVED * n))]] = 0.0
    changes = np.abs(explainer.values(found.atoms, strengths) - found.value)
    return {
        "model": float(changes[0]),
        "untrained": float(changes[1]),
        "random": float(changes[2:].mean()),
    }


def _summary(models: Sequence[Row]) -> Row:
    kinds = sorted({kind for row in models for kind in row["kinds"]})
    absent = {"variance": 0.0, "scores": 0.0}
    return {
        "kinds": {
            kind: {
                name: interval(np.array([row["kinds"].get(kind, absent)[name] for row in models]))
                for name in absent
            }
            for kind in kinds
        },
        "removed": {
            name: interval(np.array([row["removed"][name] for row in models]))
            for name in models[0]["removed"]
        },
    }


def _agreement(some: Sequence[list[Array]], others: Sequence[list[Array]]) -> list[float]:
    """Mean rank correlation of the bond scores of pairs of models, with an interval over pairs."""
    values = [
        np.mean([spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)])
        for one, other in zip(some, others, strict=True)
    ]
    return interval(np.array(values))


def explanation_markdown(result: Row) -> str:
    """Tables of `compare_explanations`, and a sentence on which bonds carry the property."""
    better, worse = result["arms"]
    kinds = {arm: row["kinds"] for arm, row in result["arms"].items()}
    names = sorted(
        {*kinds[better], *kinds[worse]}, key=lambda k: -kinds[better].get(k, _NONE)["variance"][0]
    )
    lines = [
        f"| bonds | of the variance, {better} | {worse} | of the scores, {better} | {worse} |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        cells = [
            _share(kinds[arm].get(name, _NONE)[key])
            for key in ("variance", "scores")
            for arm in (better, worse)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _sentences(result, names[0])]) + "\n"


_NONE = {"variance": [0.0] * 3, "scores": [0.0] * 3}


def _sentences(result: Row, first: str) -> str:
    (better, mine), (worse, theirs) = result["arms"].items()
    removed = " and ".join(
        f"of the {arm} model by {_change(row['model'])} eV (a random tenth: "
        f"{_change(row['random'])}, one named by the untrained model: {_change(row['untrained'])})"
        for arm, row in ((better, mine["removed"]), (worse, theirs["removed"]))
    )
    seeds, arms = (_change(result["agreement"][name]) for name in ("seeds", "arms"))
    carried = _share(mine["kinds"][first]["variance"])
    text = f"In the better model ({better}) {first} bonds carry {carried} of the differences "
    text += "of the gap between frames"
    if not result["r2"][better] >= LEAST_R2:
        text += f"; its R2 is below {LEAST_R2}, so that nothing follows for the crystal"
    return (
        f"{text}. Removing the tenth of the bonds with the largest scores changes the gap "
        f"{removed}. Rank correlation of bond scores: {seeds} between models of the "
        f"better arm that differ in the seed, {arms} between the arms. {result['frames']} frames."
    )


def _change(values: Sequence[float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*values)


def _share(values: Sequence[float]) -> str:
    mean, low, high = (100 * value for value in values)
    return f"{mean:.0f} % ({low:.0f} to {high:.0f})"
