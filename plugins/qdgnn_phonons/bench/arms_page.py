"""What `qdgnn bench-phonon-arms` writes: a JSON document, and the page made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_phonons.bench.arms import ARMS, Study
from qdgnn_phonons.bench.arms_explain import compare_explanations, explanation_markdown
from qdgnn_phonons.bench.arms_models import LEARNERS, QUANTITIES
from qdgnn_phonons.bench.arms_report import JUDGED, leading, markdown, summarise, verdict

Row = dict[str, Any]
Array = NDArray[np.float64]


def document(name: str, folder: Path, study: Study, crystal: Atoms, rows: Sequence[Row]) -> Row:
    """JSON document of a study; models of the gap are explained.

    Args:
        name: Of the crystal.
        folder: Of the study.
        study: Its settings.
        crystal: Undisplaced.
        rows: Of `run_study`.
    """
    good = [row for row in rows if "failure" not in row]
    summary = summarise(good)
    result = {
        "crystal": name,
        "study": asdict(study) | {"train": LEARNERS[study.labels].train | study.train},
        "atoms": len(crystal) * int(np.prod(study.supercell or (1, 1, 1))),
        "failed": [row for row in rows if "failure" in row],
        "summary": summary,
        "verdict": verdict(summary),
        "rows": good,
    }
    if study.labels == "tight_binding" and len(good) == len(rows):
        arms = better_and_worse(summary)
        found = compare_explanations(folder, study, crystal, arms)
        result["explanations"] = found | {"r2": {arm: _mean(summary, arm, "r2") for arm in arms}}
    return result


def better_and_worse(summary: Sequence[Row]) -> tuple[str, str]:
    """Arms with the smallest and the largest error at the largest size, mean over the tests."""
    order = sorted(ARMS, key=lambda arm: _mean(summary, arm, "mae"))
    return order[0], order[-1]


def _mean(summary: Sequence[Row], arm: str, score: str) -> float:
    """Of a score of the leading quantity over the tests, at the largest size."""
    place = (max(row["size"] for row in summary), arm, leading(summary))
    rows = [row for row in summary if (row["size"], row["arm"], row["quantity"]) == place]
    return float(np.mean([row[score][0] for row in rows]))


def page(crystals: Sequence[Row]) -> str:
    """Markdown of documents: a section each."""
    return "\n".join(_section(part) for part in crystals)


def learning_curves(crystals: Sequence[Row]) -> dict[tuple[str, str], dict[tuple[str, str], Array]]:
    """Errors of gap and forces against training frames, for `plot_learning_curves`."""
    curves: dict[tuple[str, str], dict[tuple[str, str], Array]] = {}
    for part in crystals:
        for row in part["summary"]:
            if row["quantity"] in JUDGED:
                panel = curves.setdefault((part["crystal"], QUANTITIES[row["quantity"]]), {})
                before = panel.get((row["arm"], row["test"]), np.empty((0, 4)))
                panel[row["arm"], row["test"]] = np.vstack([before, [row["size"], *row["mae"]]])
    return curves


def _section(part: Row) -> str:
    study = part["study"]
    labels = {"tight_binding": "tight binding (T1)", "calculator": "the calculator"}
    texts = [
        f"## {part['crystal']}, labels of {labels[study['labels']]}\n",
        _conditions(part) + "\n",
        "\n".join(f"- {sentence}" for sentence in part["verdict"]) + "\n",
        markdown(part["summary"]),
    ]
    if "explanations" in part:
        texts.append(explanation_markdown(part["explanations"]))
    return "\n".join(texts)


def _conditions(part: Row) -> str:
    study, rows = part["study"], part["rows"]
    text = (
        f"{part['atoms']} atoms, {len(study['seeds'])} seeds, {study['n_test']} frames of "
        f"molecular dynamics per test; calculator: {part['calculator']}; {part['date']}, "
        f"{part['machine']}."
    )
    if rows and rows[0]["without_force"]:
        text += (
            f" {rows[0]['without_force']} modes have no restoring force in this calculator, "
            f"policy: {study['policy']} ({rows[0]['modes']} modes move)."
        )
    if part["failed"]:
        text += f" {len(part['failed'])} models failed: {part['failed'][0]['failure']}."
    return text
