"""`qdgnn bench-property-card`: evaluate a property model and write its card and README table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from qdgnn_ase import PROPERTIES, Predictor, Split, evaluate_properties, measured
from qdgnn_bench.added_heads import added_table, compare_added
from qdgnn_bench.readme import check_blocks, last_notes, replace_blocks, versions


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--model", required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--readme", type=click.Path(exists=True), help="Replace the table in it.")
@click.option("--note", multiple=True, help="Line for the card; without any, the last card's.")
def property_card(
    files: tuple[str, ...], model: str, readme: str | None, note: tuple[str, ...]
) -> None:
    """Errors of MODEL on its own test fold; writes MODEL.json and MODEL.md beside it.

    FILES are the model's training files, known by their names.
    """
    if readme:
        check_blocks(readme, "properties")
    predictor = Predictor(model)
    training = predictor.document["training"]
    report: dict[str, Any] = {}
    added: dict[str, Any] = {}
    for name in files:
        run, columns = _origin(training, Path(name).name)
        config = run["train_config"]
        report[Path(name).name] = evaluate_properties(
            predictor,
            name,
            columns,
            split=Split.of_training(config, "test"),
            max_atoms=config["max_atoms"],
        )
        if run is not training:
            added |= compare_added(predictor, name, columns, config)
    result = {
        "model": predictor.document,
        "errors": report,
        "added": added,
        "notes": list(note) or last_notes(model),
        **measured(),
    }
    target = Path(model)
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    target.with_suffix(".md").write_text(_markdown(target.stem, result))
    if readme:
        replace_blocks(readme, {"properties": property_table(report)})
    click.echo(property_table(report))


def _origin(training: dict[str, Any], name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Run that learned a file, that of the model or of an added head, and the columns it used."""
    runs = [training, *training.get("added", ())]
    for run in runs:
        for source in run["files"]:
            if source["name"] == name:
                return run, dict(source["columns"])
    known = [source["name"] for run in runs for source in run["files"]]
    raise click.UsageError(f"FILES must be of {known}, got {name}")


def property_table(report: dict[str, Any]) -> str:
    """Markdown: one row per property; errors with 95 % intervals over formulas."""
    lines = [
        "| property | file | structures | MAE | R2 | calibration error | rank correlation | "
        "in domain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for file, rows in report.items():
        for name, row in rows.items():
            if name != "timing" and row["structures"]:
                lines.append(f"| {name} | {file} | {row['structures']} | {_cells(name, row)} |")
    timing = [rows["timing"] for rows in report.values()]
    lines += [
        "",
        f"CPU ms per structure with its graph, {len(timing)} files: "
        f"{min(t['batch_1_ms'] for t in timing):.1f}-{max(t['batch_1_ms'] for t in timing):.1f} "
        f"one by one, {min(t['batch_64_ms'] for t in timing):.1f}-"
        f"{max(t['batch_64_ms'] for t in timing):.1f} in batches of 64.",
    ]
    return "\n".join(lines)


def _cells(name: str, row: dict[str, Any]) -> str:
    inside = f"{100 * row['in_domain']:.0f} %"
    if PROPERTIES[name].scale == "probability":
        curve = f"AUC {_with_interval(row, 'auc')}, accuracy {row['accuracy']:.3f}"
        return f"{curve} | - | - | - | {inside}"
    key = "log10_mae" if PROPERTIES[name].scale == "log10" else "mae"
    unit = f"log10 {row['unit']}" if key == "log10_mae" else row["unit"]
    error = f"{_with_interval(row, key)} {unit}"
    if key == "log10_mae":
        error += f"; {row['mae']:.3g} {row['unit']}"
    numbers = [f"{row[key]:.3f}" for key in ("r2", "calibration_error", "spearman")]
    return f"{error} | {' | '.join(numbers)} | {inside}"


def _with_interval(row: dict[str, Any], key: str) -> str:
    if f"{key}_interval" not in row:
        return "undefined"
    low, high = row[f"{key}_interval"]
    return f"{row[key]:.3f} ({low:.3f}-{high:.3f})"


def _markdown(name: str, result: dict[str, Any]) -> str:
    training = result["model"]["training"]
    added = training.get("added", [])
    runs = [training, *added]
    return "\n".join(
        [
            f"# Model card: {name}",
            "",
            f"Made on {result['date']} ({result['machine']}), {versions(result['model'])}.",
            "",
            "## Training",
            "Split by reduced formula: no composition of the test fold is in a training file.",
            *[f"- {line}" for line in result["notes"]],
            "",
            "| file | columns | train | validation | test | too large | sha256 |",
            "|---|---|---|---|---|---|---|",
            *[_file(row) for run in runs for row in run["files"]],
            "",
            "`qdgnn train CONFIG.json -o RUN` with",
            "```json",
            json.dumps(training["train_config"], indent=1),
            "```",
            *[line for run in added for line in _added_run(run)],
            "",
            "## Errors on the test fold",
            "Mean absolute errors with 95 % intervals over formulas. Calibration error: mean "
            "difference between the share of errors within the central 10-90 % intervals of the "
            "predicted normal distributions and those shares. Rank correlation: Spearman's of "
            "absolute error and standard deviation.",
            "",
            property_table(result["errors"]),
            "",
            *(_added_errors(result["added"]) if result["added"] else ()),
        ]
    )


def _added_run(run: dict[str, Any]) -> list[str]:
    bases = ", ".join(f"{n} {kind}" for kind, n in run["bases"].items())
    return [
        f"Added to it with a frozen trunk, `{', '.join(run['targets'])}` ({bases}):",
        "```json",
        json.dumps(run["train_config"], indent=1),
        "```",
    ]


def _added_errors(found: dict[str, Any]) -> list[str]:
    return [
        "## Added heads against the composition alone",
        "Same test fold, upper bounds included: they err where the prediction is above them. The "
        "others learn both other folds. Differences are error of the other - error of the model.",
        "",
        *added_table(found),
        "",
    ]


def _file(row: dict[str, Any]) -> str:
    columns = ", ".join(f"{name} = {column}" for name, column in row["columns"].items())
    counts = " | ".join(str(row.get(key, 0)) for key in ("train", "val", "test", "too_large"))
    return f"| {row['name']} | {columns} | {counts} | {(row['sha256'] or '')[:12]} |"
