"""`qdgnn bench-phonon-gaps`: the labels of `bench-phonon-arms` beside DFT, frame by frame.

The study of displaced frames learns gaps of tight binding (T1) and forces of a potential, because
DFT of hundreds of supercells costs days. What it says of real crystals hangs on how well these
labels follow DFT from frame to frame of one crystal: a constant offset does no harm, the
correlation counts. GPAW computes some frames of each FILE; intervals are over frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from rich.console import Console

from qdgnn_ase import labels, measured, read_structures, resampled_weights
from qdgnn_bench.dft_labels_study import agreement
from qdgnn_dft.backend import CalculationError, backend_of, evaluate
from qdgnn_dft.gpaw_backend import GPAWBackend
from qdgnn_dft.record import Record
from qdgnn_dft.settings import DFTSettings
from qdgnn_dft.store import ResultStore

Array = NDArray[np.float64]
Row = dict[str, Any]
BACKEND = GPAWBackend(DFTSettings(cutoff_ev=400.0, k_density=1.5, path_points=0))
"""Differences between frames of one crystal; a supercell of 16 atoms has 2 x 2 x 2 points."""
COLUMN = "t1_gap"
LEAST_FRAMES = 3
"""Of a file, for a correlation."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame with the labels of the study: gap in eV, forces (n_atoms, 3) in eV/Å."""

    atoms: Atoms
    gap: float
    forces: Array


@click.command("bench-phonon-gaps")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-n", "n_frames", default=15, show_default=True, help="Frames of each file.")
@click.option("--store", required=True, help="Result store; goes on where it was.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also writes a .md beside.")
def phonon_gaps(
    files: tuple[Path, ...], *, n_frames: int, store: str, jobs: int, output: Path | None
) -> None:
    """Gaps and forces of labelled FILES of bench-phonon-arms beside GPAW's."""
    try:
        backend_of("gpaw")
    except ImportError as error:
        raise click.UsageError(str(error)) from error
    chosen = {path: frames_of(path, n_frames) for path in files}
    structures = [frame.atoms for frames in chosen.values() for frame in frames]
    with (
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
        Console(stderr=True).status("frames") as status,
    ):
        records = []
        for record in pool.map(partial(_record, store=store), structures):
            records.append(record)
            status.update(f"{len(records)} of {len(structures)} frames")
    document = {
        **measured(),
        "rows": rows_of(chosen.values(), records),
    }
    click.echo(markdown(document))
    if output:
        output.write_text(json.dumps(document, indent=1) + "\n")
        output.with_suffix(".md").write_text(markdown(document))


def frames_of(path: Path, n: int) -> list[Frame]:
    """N labelled frames of a file, evenly spaced.

    Raises:
        click.UsageError: If there are fewer, or labels are missing.
    """
    found = read_structures(path)
    if not LEAST_FRAMES <= n <= len(found):
        raise click.UsageError(
            f"-n must be {LEAST_FRAMES} to the number of frames of each file, got {n} and "
            f"{len(found)} in {path}"
        )
    chosen = [found[i] for i in np.linspace(0, len(found) - 1, n).round().astype(int)]
    frames = [Frame(a, float(a.info.get(COLUMN, np.nan)), labels(a)["forces"]) for a in chosen]
    if not all(np.isfinite([frame.gap, *frame.forces.flat]).all() for frame in frames):
        raise click.UsageError(
            f"frames of {path} must have {COLUMN} and forces, as those of "
            "`qdgnn bench-phonon-arms --labels tight_binding` have"
        )
    return frames


def rows_of(files: Iterable[Sequence[Frame]], records: Sequence[Record]) -> list[Row]:
    """A row of each file, whose records come in the same order."""
    rows, start = [], 0
    for frames in files:
        rows.append(compare(frames, records[start : start + len(frames)]))
        start += len(frames)
    return rows


def compare(frames: Sequence[Frame], records: Sequence[Record]) -> Row:
    """Labels beside DFT: gaps (GPAW less T1) and forces (the potential's on DFT's)."""
    gaps = np.array([record.values["band_gap"] for record in records])
    own = np.array([frame.gap for frame in frames])
    forces = np.array([record.values["forces"] for record in records]).ravel()
    theirs = np.array([frame.forces for frame in frames]).ravel()
    settings = records[0].settings
    info = frames[0].atoms.info
    return {
        "crystal": frames[0].atoms.symbols.formula.format("metal"),
        "temperature_kelvin": info.get("temperature_kelvin"),
        "arm": info.get("arm"),
        "gap_dft": [float(gaps.mean()), float(gaps.std())],
        "gap_labels": [float(own.mean()), float(own.std())],
        "gap": agreement(gaps, own, resampled_weights([str(i) for i in range(len(own))])),
        "forces": {
            "mae": float(np.abs(theirs - forces).mean()),
            "r2": float(1 - ((theirs - forces) ** 2).sum() / (forces**2).sum()),
            "slope": float(theirs @ forces / (forces @ forces)),
        },
        "cutoff_ev": settings["cutoff_ev"],
        "k_mesh": settings["k_mesh"],
        "version": records[0].provenance["version"],
        "cpu_seconds": round(sum(record.provenance["cpu_seconds"] for record in records)),
    }


def markdown(document: Row) -> str:
    """The table."""
    rows = document["rows"]
    frames = sum(row["gap"]["rows"] for row in rows)
    cost = sum(row["cpu_seconds"] for row in rows) / frames
    lines = [
        f"{frames} frames by {rows[0]['version']}, PBE, {cost:.0f} CPU s each; mean and standard "
        f"deviation over frames; slope of the labels' forces on DFT's; {document['date']}, "
        f"{document['machine']}.",
        "",
        "| frames | of | mesh | gap DFT, eV | gap T1, eV | MAE less the mean, eV | Pearson "
        "| Spearman | forces MAE, eV/Å | R2 | slope |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        gap, forces = row["gap"], row["forces"]
        cells = [
            f"{gap['rows']} {row['crystal']}",
            f"{row['arm']}, {row['temperature_kelvin']:g} K",
            "x".join(map(str, row["k_mesh"])),
            _spread(row["gap_dft"]),
            _spread(row["gap_labels"]),
            *(f"{gap[name]:.3f}" for name in ("mae_without_mean", "pearson", "spearman")),
            *(f"{forces[name]:.3f}" for name in ("mae", "r2", "slope")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    return "{:.3f} ± {:.3f}".format(*values)


def _record(atoms: Atoms, store: str) -> Record:
    try:
        return evaluate(atoms, BACKEND, ResultStore(store))
    except CalculationError as error:
        raise click.ClickException(str(error)) from error
