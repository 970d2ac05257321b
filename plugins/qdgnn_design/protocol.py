"""The protocol of generated structures: valid, neutral, unique, novel, hits; as a table too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from qdgnn_ase import reduced_formula
from qdgnn_design.evaluate import Values
from qdgnn_design.judge import Judge
from qdgnn_design.oxidation import smact_valid
from qdgnn_design.prototype import Prototype
from qdgnn_design.targets import Target, is_hit

SHARES = ("valid", "neutral", "unique", "novel", "hits", "novel_hits")
"""Columns of the protocol."""


def protocol(
    samples: Sequence[Atoms], training: Sequence[Atoms], judge: Judge
) -> dict[str, float | int]:
    """What samples are worth.

    Returns:
        ``samples``; shares of all of them: ``valid`` (distances, `geometry_residuals`, and a value
        from the judge), ``neutral`` (valid, and smact finds neutral oxidation states), ``unique``
        (valid and not like an earlier one), ``novel`` (unique and not in ``training``), ``hits``
        (valid and wanted) and ``novel_hits``. Structures are alike by pymatgen's StructureMatcher
        within a reduced formula.
    """
    found = judge(samples)
    valid = [k for k, value in enumerate(found) if isinstance(value, Values)]
    unique = unlike([samples[k] for k in valid], [])
    chosen = [samples[valid[k]] for k in unique]
    novel = {valid[unique[k]] for k in unlike(chosen, training)}
    hits = {k for k in valid if _hits(found[k], judge.targets)}
    n = len(samples)
    return {
        "samples": n,
        "valid": len(valid) / n,
        "neutral": sum(smact_valid(samples[k]) for k in valid) / n,
        "unique": len(unique) / n,
        "novel": len(novel) / n,
        "hits": len(hits) / n,
        "novel_hits": len(hits & novel) / n,
    }


def random_members(prototype: Prototype, n: int, rng: np.random.Generator) -> list[Atoms]:
    """Each site any element that it has in the family, the family's mean geometry."""
    species = np.array(
        [[rng.choice(np.flatnonzero(row)) for row in prototype.allowed] for _ in range(n)]
    )
    return prototype.decode(species, np.zeros((n, len(prototype.mean))))


def unlike(structures: Sequence[Atoms], others: Sequence[Atoms]) -> list[int]:
    """Indices of the structures that are like no earlier one and none of the others."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    matcher, seen = StructureMatcher(), defaultdict(list)
    formulas = [reduced_formula(atoms) for atoms in structures]
    for atoms in others:
        if (formula := reduced_formula(atoms)) in formulas:
            seen[formula].append(AseAtomsAdaptor.get_structure(atoms))
    kept = []
    for k, (atoms, formula) in enumerate(zip(structures, formulas, strict=True)):
        structure = AseAtomsAdaptor.get_structure(atoms)
        if not any(matcher.fit(structure, other) for other in seen[formula]):
            seen[formula].append(structure)
            kept.append(k)
    return kept


def _hits(value: Values | str, targets: Sequence[Target]) -> bool:
    return isinstance(value, Values) and is_hit(value.values, targets)


def markdown(document: dict[str, Any]) -> str:
    """The protocol as a table."""
    lines = [
        f"`qdgnn generate {document['structures']}`, {', '.join(document['targets'])} within "
        f"{', '.join(f'{t:g}' for t in document['tolerances'])}: {document['members']} members of "
        f"one family, {document['rows'][0]['samples']} samples, judged by `{document['judge']}`, "
        f"seed {document['seed']}, relaxation: {document['relaxation']}; likeness: "
        f"{document['matcher']}. Per cent of the samples.",
        "",
        f"| | {' | '.join(name.replace('_', ' ') for name in SHARES)} | training calls |",
        "|---|" + "---|" * (len(SHARES) + 1),
    ]
    for row in document["rows"]:
        shares = " | ".join(f"{100 * row[name]:.1f}" for name in SHARES)
        lines.append(f"| {row['method']} | {shares} | {row['training_calls']} |")
    return "\n".join(lines) + "\n"
