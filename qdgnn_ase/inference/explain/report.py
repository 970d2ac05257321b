"""Explanations as files: a table of bonds, a plot, a chemiscope page."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from qdgnn_ase.inference.explain.explanation import Explanation
from qdgnn_ase.training.checkpoint import write_atomic

_DRAWN = 200
"""Bonds of a structure that the page draws, at most; more hide each other."""
_RADIUS = 0.15
"""Å, of the strongest bond drawn."""
_POSITIVE, _NEGATIVE = "#b2182b", "#2166ac"
_SCRIPT = "sphinx/static/chemiscope.min.js"
_PAGE = """<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 0; font-family: sans-serif; }}
#page {{ display: flex; height: 100vh; }}
.column {{ flex: 1; display: flex; flex-direction: column; min-width: 0; }}
#map, #structure {{ flex: 1; position: relative; min-height: 0; }}
</style>
<script>{script}</script>
</head>
<body>
<div id="page">
<div class="column"><div id="meta"></div><div id="map"></div></div>
<div class="column"><div id="structure"></div><div id="info"></div></div>
</div>
<script id="data" type="application/json">{data}</script>
<script>
const data = JSON.parse(document.getElementById("data").textContent);
const places = {{ meta: "meta", map: "map", info: "info", structure: "structure" }};
Chemiscope.DefaultVisualizer.load(places, data).catch((error) => {{
  document.body.prepend("chemiscope could not show this page: " + error);
}});
</script>
</body>
</html>
"""


def bonds_csv(explanations: Sequence[Explanation]) -> str:
    """One row per bond of a structure: atoms, pair, vector and length in Å, score by each method.

    Args:
        explanations: Of one structure, by different methods.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    methods = [row.method for row in explanations]
    writer.writerow(["i", "j", "pair", "dx", "dy", "dz", "length", *methods])
    bonds = explanations[0].bonds
    scores = np.column_stack([row.bond_scores for row in explanations])
    for k, (i, j) in enumerate(bonds.atoms.tolist()):
        place = [f"{x:.6f}" for x in (*bonds.vectors[k], bonds.lengths[k])]
        writer.writerow([i, j, bonds.pairs[k], *place, *(f"{x:.8g}" for x in scores[k])])
    return text.getvalue()


def plot_bonds(explanations: Sequence[Explanation], path: Path) -> None:
    """Bond scores against bond length, a colour per pair of elements, a panel per method.

    Args:
        explanations: Of any structures, for one target.
        path: File to write, PNG or another format of matplotlib.
    """
    methods = list(dict.fromkeys(row.method for row in explanations))
    figure = Figure(figsize=(7, 3.6 * len(methods)), layout="constrained")
    panels = figure.subplots(len(methods), 1, sharex=True, squeeze=False)[:, 0]
    pairs = sorted({pair for row in explanations for pair in row.bonds.pairs})
    for axes, method in zip(panels, methods, strict=True):
        chosen = [row for row in explanations if row.method == method]
        for k, pair in enumerate(pairs):
            x, y = _points(chosen, pair)
            axes.plot(x, y, "o^sDv"[k // 10 % 5], color=f"C{k % 10}", label=pair, ms=4, alpha=0.6)
        axes.axhline(0.0, color="0.6", lw=0.8, zorder=0)
        unit = "" if chosen[0].score_unit == "1" else f" ({chosen[0].score_unit})"
        axes.set(ylabel=f"{chosen[0].target}, {method}{unit}")
    panels[-1].set(xlabel="bond length (Å)")
    if pairs:
        panels[0].legend(fontsize="small", ncols=1 + len(pairs) // 8)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format=path.suffix.removeprefix("."))
    write_atomic(path, picture.getvalue())


def _points(explanations: Sequence[Explanation], pair: str) -> tuple[Any, Any]:
    chosen = [np.array(row.bonds.pairs) == pair for row in explanations]
    pieces = list(zip(explanations, chosen, strict=True))
    x = np.concatenate([row.bonds.lengths[use] for row, use in pieces])
    return x, np.concatenate([row.bond_scores[use] for row, use in pieces])


def write_chemiscope(structures: Sequence[Sequence[Explanation]], path: Path) -> None:
    """Structures coloured by their scores, strongest bonds drawn, as one page for any browser.

    The page needs no network. Bonds are those of the first method: red where the score is positive,
    blue where negative, thickness by size.

    Args:
        structures: Per structure its explanations, by the same methods in the same order.
        path: HTML file to write.

    Raises:
        ImportError: If chemiscope is not installed.
    """
    try:
        import chemiscope
    except ImportError as error:
        raise ImportError(
            "pages of explanations need chemiscope: pip install 'qdgnn-ase[report]'"
        ) from error
    first = [rows[0] for rows in structures]
    target, methods = first[0].target, [row.method for row in structures[0]]
    name = f"{target} ({methods[0]})"
    data = chemiscope.create_input(
        structures=[row.atoms for row in first],
        metadata={"name": f"Bonds and atoms behind {target}", "description": _DESCRIPTION},
        properties=_properties(structures),
        environments=chemiscope.all_atomic_environments([row.atoms for row in first], cutoff=5.0),
        shapes={"bonds": _bond_shapes(first)},
        settings=chemiscope.quick_settings(
            x="atom",
            y=name,
            map_color=name,
            structure_color=name,
            periodic=all(row.atoms.pbc.all() for row in first),
            target="atom",
            structure_settings={"shape": "bonds", "bonds": False},
        ),
    )
    script = (Path(str(files("chemiscope"))) / _SCRIPT).read_text(encoding="utf-8")
    page = _PAGE.format(title=html.escape(target), script=_inline(script), data=_inline_json(data))
    write_atomic(path, page.encode())


_DESCRIPTION = (
    "Score of an atom: half of the scores of its bonds. Drawn bonds: red positive, blue negative, "
    "thickness by size. Attributions tell what the model does, not what is true of the material."
)


def _properties(structures: Sequence[Sequence[Explanation]]) -> dict[str, Any]:
    first = [rows[0] for rows in structures]
    target = first[0].target
    columns: dict[str, Any] = {
        "atom": {
            "target": "atom",
            "values": np.concatenate([np.arange(len(row.atoms)) for row in first]),
        },
        f"{target} value": {
            "target": "structure",
            "values": [row.value for row in first],
            "units": first[0].unit,
        },
        f"{target} without bonds": {
            "target": "structure",
            "values": [row.baseline for row in first],
            "units": first[0].unit,
        },
    }
    for k, row in enumerate(structures[0]):
        columns[f"{target} ({row.method})"] = {
            "target": "atom",
            "values": np.concatenate([rows[k].atom_scores for rows in structures]),
            "units": row.score_unit,
        }
    return columns


def _bond_shapes(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """The strongest bonds of each structure as cylinders."""
    return {
        "kind": "cylinders",
        "parameters": {"global": {}, "structure": [_cylinders(row) for row in explanations]},
    }


def _cylinders(explanation: Explanation) -> dict[str, Any]:
    if not len(explanation.bonds):  # chemiscope wants at least one: of no radius
        return {"vectors": [[0.0, 0.0, 1.0]], "radii": 0.0}
    strongest = explanation.ranking()[:_DRAWN]
    scores = explanation.bond_scores[strongest]
    bonds = explanation.bonds
    size = np.abs(scores) / (np.abs(scores).max() or 1.0)
    return {
        "bases": explanation.atoms.positions[bonds.atoms[strongest, 0]].tolist(),
        "vectors": bonds.vectors[strongest].tolist(),
        "radii": (_RADIUS * size).tolist(),
        "colors": [_POSITIVE if score > 0 else _NEGATIVE for score in scores],
    }


def _inline(script: str) -> str:
    """A script that may stand in a page: no text of it ends the element."""
    return script.replace("</script", "<\\/script")


def _inline_json(data: Any) -> str:
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")
