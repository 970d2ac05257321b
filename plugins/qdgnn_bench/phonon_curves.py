"""`qdgnn bench-phonon-curves`: bands and heat capacities beside those from DFT forces.

Force constants of every potential are fitted to its forces on the supercells of the DFT forces, see
`qdgnn_bench.phonons`: lattice, displacements and fit are DFT's. Heat capacities are those of all
real modes, at constant volume.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase.calculators.calculator import Calculator
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from qdgnn_ase import QDGNNCalculator, measured
from qdgnn_bench.phonons import ASKED, CAVEAT, DFT, read_sets, refitted

Row = dict[str, Any]
Array = NDArray[np.float64]
TEMPERATURES = (100.0, 300.0, 600.0)
"""K."""
_COLORS = {DFT: "black", "ours": "tab:blue", "M3GNet": "tab:orange"}


@click.command("bench-phonon-curves")
@click.argument("displacements", type=click.Path(exists=True, file_okay=False))
@click.option("--m3gnet", type=click.Path(exists=True), help="M3GNet's folder, to run it beside.")
@click.option("--model", default="default", show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), required=True)
def phonon_curves(displacements: str, m3gnet: str | None, model: str, output: Path) -> None:
    """Of NaCl, MgO and AlN, from the supercells in DISPLACEMENTS; also writes a .md and a .png."""
    calculators: dict[str, Calculator] = {"ours": QDGNNCalculator(model, dtype="float64")}
    if m3gnet:
        from qdgnn_matgl import load_m3gnet

        calculators["M3GNet"] = load_m3gnet(m3gnet)
    sets = read_sets(displacements)
    rows: list[Row] = []
    figure = Figure(figsize=(4 * len(ASKED), 4), layout="constrained")
    panels = figure.subplots(1, len(ASKED))
    with Console(stderr=True).status("starting") as status:
        for name, axes in zip(ASKED, panels, strict=True):
            status.update(f"{name}: {len(sets[name])} supercells")
            phonons = refitted(sets[name], calculators)
            draw_bands(axes, name, phonons)
            rows += heat_capacities(name, phonons)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    document = {
        **measured(),
        "model": model,
        "rows": rows,
    }
    click.echo(markdown(document))
    output.write_text(json.dumps(document, indent=1) + "\n")
    output.with_suffix(".md").write_text(markdown(document))
    figure.savefig(output.with_suffix(".png"), dpi=120)


def draw_bands(axes: Any, title: str, phonons: dict[str, Any]) -> None:
    """Bands of all potentials over one path, imaginary frequencies below zero."""
    from qdgnn_phonons import band_structure
    from qdgnn_phonons.figures import special_points

    for name, phonon in phonons.items():
        bands = band_structure(phonon)
        lines = zip(bands.distances, bands.frequencies, strict=True)
        for index, (distances, frequencies) in enumerate(lines):
            drawn = axes.plot(distances, frequencies, color=_COLORS[name], linewidth=0.9)
            if index == 0:
                drawn[0].set_label(name)
    axes.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    ticks, names = special_points(bands)  # the same for all: one lattice
    for tick in ticks:
        axes.axvline(tick, color="0.85", linewidth=0.8, zorder=0)
    axes.set_xticks(ticks, names, fontsize="small")
    axes.set(title=title, xlim=(ticks[0], ticks[-1]), ylabel="frequency (THz)")


def heat_capacities(name: str, phonons: dict[str, Any]) -> list[Row]:
    """Relative errors in % at `TEMPERATURES`, a row for each potential."""
    from qdgnn_phonons import thermal_properties

    curves = {
        key: thermal_properties(phonon, TEMPERATURES, allow_imaginary=True).heat_capacity_j_mol_k
        for key, phonon in phonons.items()
    }
    return [
        {
            "crystal": name,
            "potential": key,
            "errors_percent": (100 * (curve / curves[DFT] - 1)).tolist(),
        }
        for key, curve in curves.items()
        if key != DFT
    ]


def markdown(document: Row) -> str:
    """Table of the heat capacities."""
    rows: Sequence[Row] = document["rows"]
    heads = " | ".join(f"C_v at {t:.0f} K, error %" for t in TEMPERATURES)
    lines = [
        f"{document['date']}, {document['machine']}, model {document['model']}.",
        "",
        f"| crystal | potential | {heads} |",
        "|---|---|" + "---|" * len(TEMPERATURES),
    ]
    for row in rows:
        cells = " | ".join(f"{error:+.1f}" for error in row["errors_percent"])
        lines.append(f"| {row['crystal']} | {row['potential']} | {cells} |")
    return "\n".join([*lines, "", CAVEAT]) + "\n"
