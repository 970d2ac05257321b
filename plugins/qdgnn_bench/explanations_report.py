"""Markdown of `qdgnn bench-explain`: changes, winners, agreement."""

from __future__ import annotations

from typing import Any


def tables(document: dict[str, Any]) -> str:
    """Markdown of a result."""
    unit = document["unit"]
    shares = [row["share"] for row in document["removed"]["random"]]
    heads = " | ".join(f"{100 * share:.0f} %" for share in shares)
    ruler = "|---" * (2 + len(shares)) + "|"
    lines = [
        f"Explanations of {document['target']} by the model `{document['model']}`: "
        f"{document['structures']} structures, one per formula, of the {document['fold']} fold of "
        f"{document['file']}, up to {document['max_atoms']} atoms; {document['date']}, "
        f"{document['machine']}, torch {document['torch']}. Means over structures with 95 % "
        "bootstrap intervals, not corrected for the number of comparisons; random: mean of several "
        "choices; untrained: the bonds that the method names in a model with random weights.",
        "",
        f"Change of the prediction ({unit}) when a part of the bonds is removed (larger: they "
        "mattered), and when all others are (smaller: they suffice):",
        "",
        f"| bonds chosen by | | {heads} |",
        ruler,
    ]
    for name in document["removed"]:
        for kind in ("removed", "kept"):
            cells = " | ".join(_cell(row) for row in document[kind][name])
            lines.append(f"| {name} | {kind} | {cells} |")
    lines += ["", *_verdicts(document), "", "| methods | rank correlation |", "|---|---|"]
    for row in document["agreement"]:
        lines.append(f"| {' and '.join(row['methods'])} | {_cell(row)} |")
    return "\n".join(lines) + "\n"


def _verdicts(document: dict[str, Any]) -> list[str]:
    """Who wins each comparison of removed bonds, by the interval of the paired difference."""
    lines = [*map(_sentence, _grouped(document["comparisons"]))]
    lines += [
        "",
        f"Paired difference of the change ({document['unit']}), and the share of structures where "
        "the method's is larger:",
        "",
        "| method | against | bonds | difference | larger in | winner |",
        "|---|---|---|---|---|---|",
    ]
    for row in document["comparisons"]:
        value = _cell({"mean": row["difference"], "interval": row["interval"]})
        lines.append(
            f"| {row['method']} | {row['rival']} | {100 * row['share']:.0f} % | {value} | "
            f"{100 * row['larger_in']:.0f} % | {row['winner']} |"
        )
    return lines


def _grouped(comparisons: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Comparisons of one method with one rival together."""
    pairs = dict.fromkeys((row["method"], row["rival"]) for row in comparisons)
    return [[row for row in comparisons if (row["method"], row["rival"]) == p] for p in pairs]


def _sentence(rows: list[dict[str, Any]]) -> str:
    method, rival = rows[0]["method"], rows[0]["rival"]
    won = sum(row["winner"] == method for row in rows)
    lost = sum(row["winner"] == rival for row in rows)
    tied = len(rows) - won - lost
    return f"- {method} against {rival}: {won} won, {lost} lost, {tied} undecided"


def _cell(row: dict[str, Any]) -> str:
    if row["mean"] is None:
        return "-"
    low, high = row["interval"]
    return f"{row['mean']:.3f} ({low:.3f} to {high:.3f})"
