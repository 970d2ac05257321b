"""`qdgnn design`: from a structure file and targets to candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from qdgnn_ase import Predictor, QDGNNCalculator, read_structures
from qdgnn_design.evaluate import RELAX_STEPS, surrogate
from qdgnn_design.hull import energy_above_hull
from qdgnn_design.methods import METHODS
from qdgnn_design.options import target_option
from qdgnn_design.output import candidate_rows, write_candidates
from qdgnn_design.report import unit_of, write_report
from qdgnn_design.run import DesignConfig, DesignResult, design
from qdgnn_design.space import FAMILIES, SpaceConfig
from qdgnn_design.targets import Target, parse_target

console = Console(markup=False)
_COMMON = (
    "Li Na K Rb Cs Be Mg Ca Sr Ba Sc Y La Ti Zr Hf V Nb Ta Cr Mo W Mn Fe Co Ni Cu Ag Zn Cd "
    "Al Ga In Tl Si Ge Sn Pb N P As Sb Bi O S Se Te F Cl Br I"
)


@click.command("design")
@click.argument("start", type=click.Path(exists=True, dir_okay=False))
@target_option("VALUE, LOW:HIGH, max or min; ~TOLERANCE and *WEIGHT may follow.")
@click.option(
    "--output",
    "-o",
    "out",
    type=Path,
    required=True,
    help="Folder; resumed if it has this run already.",
)
@click.option("--budget", default=200, show_default=True, help="Unique evaluations.")
@click.option("--method", type=click.Choice(METHODS), default="hybrid", show_default=True)
@click.option(
    "--elements", default=_COMMON, help="Elements that may enter; a wide set if not given."
)
@click.option(
    "--actions", default="substitute,pair", show_default=True, help=f"Of {', '.join(FAMILIES)}."
)
@click.option("--single-sites", is_flag=True, help="Substitute site by site, not orbit by orbit.")
@click.option(
    "--supercell", nargs=3, type=click.IntRange(min=1), default=(1, 1, 1), show_default=True
)
@click.option("--max-strain", default=0.06, show_default=True, help="Of the strain actions.")
@click.option("--mobile", default="", help="Ion that makes up for aliovalent dopants.")
@click.option(
    "--relax",
    "relax_first",
    is_flag=True,
    help="Relax each structure before it is evaluated (slow).",
)
@click.option(
    "--hull",
    type=click.Path(exists=True, dir_okay=False),
    help="Competing phases, elements among them: energy_above_hull is taken to their hull, with "
    "the potential's energies.",
)
@click.option(
    "--caution",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Standard deviations of a prediction that count against a candidate.",
)
@click.option("--no-filter", is_flag=True, help="Do not relax and strain the best candidates.")
@click.option("--top", default=10, show_default=True, help="Candidates to report.")
@click.option("--stop-at-hit", is_flag=True, help="End when all targets are met.")
@click.option("--seed", default=0, show_default=True)
@click.option("--model", default="properties", show_default=True, help="Property model.")
@click.option("--potential", default="default", show_default=True, help="For relaxing.")
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Saved policy for goal and hybrid.",
)
@click.option(
    "--training-calls",
    default=2000,
    show_default=True,
    help="Most evaluations to train a policy (method goal without --policy).",
)
def design_command(start: str, targets: tuple[str, ...], out: Path, **options: Any) -> None:
    """From START and targets to candidates; writes extxyz, CIF, ASE db, JSON, HTML and PNG.

    Killed at any time, the same command goes on where it was.
    """
    atoms = read_structures(start, "-1")[0].repeat(options["supercell"])
    predictor = Predictor(options["model"])
    calculator = QDGNNCalculator(options["potential"])
    wanted = _targets(targets, calculator, options)
    evaluator = surrogate(predictor, wanted, calculator if options["relax_first"] else None)
    with _progress() as bar:
        task = bar.add_task("searching", total=options["budget"], note="")
        result = design(
            atoms,
            wanted,
            evaluator,
            out,
            _config(options),
            features=predictor.embedding,
            calculator=None if options["no_filter"] else calculator,
            policy=options["policy"],
            progress=lambda what, done, total, note: bar.update(
                task, description=what, completed=done, total=total, note=note
            ),
        )
    files = [*write_candidates(result, out), *write_report(result, out)]
    _show(result)
    console.print(f"wrote {len(files)} files to {out}; begin with {out / 'report.html'}")


def _targets(
    texts: tuple[str, ...], calculator: QDGNNCalculator, options: dict[str, Any]
) -> list[Target]:
    targets = [replace(parse_target(text), caution=options["caution"]) for text in texts]
    if options["hull"] is None:
        return targets
    if not any(target.name == "energy_above_hull" for target in targets):
        raise click.UsageError("--hull needs a --target energy_above_hull=...")
    steps = RELAX_STEPS if options["relax_first"] else 0
    above = energy_above_hull(read_structures(options["hull"]), calculator, steps=steps)
    return [
        replace(target, function=above) if target.name == "energy_above_hull" else target
        for target in targets
    ]


def _config(options: dict[str, Any]) -> DesignConfig:
    space = SpaceConfig(
        elements=tuple(options["elements"].replace(",", " ").split()),
        families=tuple(name.strip() for name in options["actions"].split(",")),
        slots="sites" if options["single_sites"] else "orbits",
        max_strain=options["max_strain"],
        strain_step=min(0.02, options["max_strain"]),
        mobile=options["mobile"],
    )
    return DesignConfig(
        method=options["method"],
        budget=options["budget"],
        seed=options["seed"],
        top=options["top"],
        stop_at_hit=options["stop_at_hit"],
        training_budget=options["training_calls"],
        space=space,
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _show(result: DesignResult) -> None:
    targets = result.problem.targets
    units = [unit_of(target) for target in targets]
    table = Table(
        "", "formula", *(f"{t.name}\n{u}" for t, u in zip(targets, units, strict=True)), "filter"
    )
    for row in candidate_rows(result):
        cells = [f"{row['values'][t.name]:.3g} ± {row['std'].get(t.name, 0):.2g}" for t in targets]
        verdict = "passes" if row["passed"] else "; ".join(row["reasons"])
        table.add_row(
            str(row["rank"]), row["formula"] + (" *" if row["hit"] else ""), *cells, verdict
        )
    console.print(table)
    summary = result.summary()
    console.print(
        f"{summary['evaluations']} evaluations, {summary['hits']} hits (*), "
        f"{100 * summary['valid_share']:.1f} % of {summary['proposed']} proposals valid, "
        f"{summary['passed_filter']} of {len(result.candidates)} candidates pass the filter"
    )
