"""`qdgnn bench-design-case`: one design run from a real electrolyte, with the shipped models.

gamma-Li3PS4 (Pmn21, 16 atoms) conducts lithium ions; its gap is small for an electrolyte, which
the electrodes must neither oxidise nor reduce. Wanted: a wider gap, small energy above the hull, a
soft crystal that keeps contact. The ten best are relaxed and pass the filter or are told why not;
the two best of those that pass, and the start, are verified by DFT where GPAW is installed.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import click
from ase import Atoms
from ase.formula import Formula
from ase.spacegroup import crystal
from rich.console import Console

from qdgnn_ase import Predictor, QDGNNCalculator, relax
from qdgnn_design.bench_statistics import table_lines
from qdgnn_design.bench_verify import Relaxed, best_relaxed, verification, verification_lines
from qdgnn_design.evaluate import surrogate
from qdgnn_design.output import candidate_rows, write_candidates
from qdgnn_design.report import unit_of, write_report
from qdgnn_design.run import DesignConfig, DesignResult, design
from qdgnn_design.space import SpaceConfig
from qdgnn_design.targets import Target, parse_target

Row = dict[str, Any]

TARGETS = ("band_gap=3.2:4.5", "energy_above_hull=:0.03", "shear_modulus=:20")
SPACE = SpaceConfig(
    elements=("Na", "K", "Mg", "Zn", "Al", "Si", "Ge", "Sn", "As", "Sb", "O", "Se", "Cl", "Br"),
    families=("substitute", "pair", "aliovalent"),
    mobile="Li",
)


@click.command("bench-design-case")
@click.option("--output", "-o", "out", type=Path, required=True, help="Folder; resumed.")
@click.option("--budget", default=200, show_default=True, help="Unique evaluations.")
@click.option("--top", default=10, show_default=True, help="Candidates to relax and filter.")
@click.option("--seed", default=0, show_default=True)
def case_study(out: Path, budget: int, top: int, seed: int) -> None:
    """From Li3PS4 to a wider gap; writes case_study.json and .md beside the files of `design`."""
    console = Console(markup=False)
    predictor, calculator = Predictor(), QDGNNCalculator()
    targets = [parse_target(text) for text in TARGETS]
    result = design(
        lithium_thiophosphate(),
        targets,
        surrogate(predictor, targets),
        out,
        DesignConfig(budget=budget, top=top, seed=seed, space=SPACE),
        features=predictor.embedding,
        calculator=calculator,
        progress=lambda what, done, total, note: console.print(f"{what} {done}/{total} {note}"),
    )
    write_candidates(result, out)
    write_report(result, out)
    control = relaxed_start(predictor, calculator)
    checks = verification([control, *best_relaxed(result)], out)
    document = study(result, seed) | {"verification": checks}
    (out / "case_study.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "case_study.md").write_text(markdown(document, targets))
    console.print(markdown(document, targets), soft_wrap=True)


def lithium_thiophosphate() -> Atoms:
    """gamma-Li3PS4, 16 atoms: measured cell (Homma et al. 2011), sites of beta-Li3PO4's type."""
    return crystal(
        ["Li", "Li", "P", "S", "S", "S"],
        basis=[
            (0.243, 0.328, 0.987),
            (0.0, 0.155, 0.489),
            (0.0, 0.820, 0.0),
            (0.218, 0.668, 0.890),
            (0.0, 0.1145, 0.8945),
            (0.0, 0.808, 0.335),
        ],
        spacegroup=31,
        cellpar=[7.708, 6.535, 6.137, 90, 90, 90],
    )


def relaxed_start(predictor: Predictor, calculator: QDGNNCalculator) -> Relaxed:
    """The electrolyte as the potential relaxes it."""
    atoms = lithium_thiophosphate()
    atoms.calc = calculator
    relax(atoms)
    atoms.calc = None
    return Relaxed("start", atoms, predictor([atoms])[0]["band_gap"].value)


def study(result: DesignResult, seed: int) -> Row:
    """Start, targets, counts and candidates of the run as plain values."""
    start = result.problem.outcomes[0].values  # every method begins with the start
    return {
        "date": date.today().isoformat(),
        "seed": seed,
        "start": "gamma-Li3PS4, Pmn21, 16 atoms",
        "start_values": None if start is None else start.values,
        "targets": [target.describe() for target in result.problem.targets],
        "summary": result.summary(),
        "candidates": candidate_rows(result),
    }


def markdown(document: Row, targets: list[Target]) -> str:
    """The study as a table."""
    names, summary = [target.name for target in targets], document["summary"]
    lines = [_row(names, row) for row in document["candidates"]]
    start = document["start_values"] or {}
    first = [f"{start[name]:.3g}" if name in start else "" for name in names]
    units = [f"{t.name.replace('_', ' ')} ({unit_of(t)})" for t in targets]
    heads = ["", "formula", *units, "all met", "filter", "actions"]
    both = sum(row["hit"] and row["passed"] for row in document["candidates"])
    return "\n".join(
        [
            f"Made by `qdgnn bench-design-case` on {document['date']}, seed {document['seed']}: "
            f"`{'`, `'.join(document['targets'])}`; {summary['evaluations']} evaluations, "
            f"{summary['hits']} of them meet all targets, the first is number "
            f"{summary['first_hit']}; "
            f"{100 * summary['valid_share']:.1f} % of {summary['proposed']} proposals valid, "
            f"{summary['passed_filter']} of the {len(lines)} best pass the filter, {both} of them "
            "meet all targets. Values at the searched geometry → after relaxation by the default "
            "potential; in brackets the filter's sum, which must be below 1.",
            "",
            *table_lines(heads, [["start", document["start"], *first, "", "", ""], *lines]),
            "",
            *verification_lines(document["verification"]),
        ]
    )


def _row(names: list[str], row: Row) -> list[str]:
    after = row["values_relaxed"] or {}
    values = [
        f"{row['values'][name]:.3g} ± {row['std'].get(name, 0):.2g}"
        + (f" → {after[name]:.3g}" if name in after else "")
        for name in names
    ]
    reasons = "; ".join(row["reasons"]) or f"passes ({row['filter']:.2f})"
    formula = Formula(row["formula"]).format("metal")
    met = "yes" if row["hit"] else ""
    return [str(row["rank"]), formula, *values, met, reasons, str(len(row["history"]))]
