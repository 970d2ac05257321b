"""Pictures of phonons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from phonopy.phonon.band_structure import BandStructure

from qdgnn_phonons.files import write_atomically
from qdgnn_phonons.spectrum import DensityOfStates
from qdgnn_phonons.thermal import ThermalProperties

Array = NDArray[np.float64]
Curves = Mapping[tuple[str, str], Mapping[tuple[str, str], Array]]


def plot_bands(bands: BandStructure, dos: DensityOfStates, path: Path, title: str = "") -> None:
    """Bands and density of states side by side, imaginary frequencies below zero."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    ticks, names = special_points(bands)
    for distances, frequencies in zip(bands.distances, bands.frequencies, strict=True):
        left.plot(distances, frequencies, color="tab:blue", linewidth=1)
    for tick in ticks:
        left.axvline(tick, color="0.8", linewidth=0.8, zorder=0)
    left.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    left.set_xticks(ticks, names)
    left.set(xlim=(ticks[0], ticks[-1]), ylabel="frequency (THz)", title=title)
    right.fill_betweenx(dos.frequencies, dos.density, color="tab:blue", alpha=0.4)
    right.set(xlabel="states per THz", xlim=(0, None))
    _save(figure, path)


def special_points(bands: BandStructure) -> tuple[list[float], list[str]]:
    """Places and names of the special points; two names where the path jumps."""
    names = list(bands.labels)
    ticks, texts = [float(bands.distances[0][0])], [names.pop(0)]
    for distances, goes_on in zip(bands.distances, bands.path_connections, strict=True):
        ticks.append(float(distances[-1]))
        texts.append(names.pop(0))
        if not goes_on and names:
            texts[-1] += f"|{names.pop(0)}"
    return ticks, texts


def plot_thermal(
    properties: ThermalProperties,
    displacements: Array,
    symbols: Sequence[str],
    path: Path,
) -> None:
    """Heat capacity and mean square displacements against temperature.

    Args:
        properties: Thermal properties.
        displacements: (n_temperatures, n_atoms, 3) Å^2 at the same temperatures.
        symbols: Elements of the atoms.
        path: PNG file to write.
    """
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(properties.temperatures, properties.heat_capacity_j_mol_k, label="heat capacity")
    left.plot(properties.temperatures, properties.entropy_j_mol_k, label="entropy")
    left.set(xlabel="temperature (K)", ylabel="J/(mol K), per mole of atoms")
    left.legend()
    for symbol in dict.fromkeys(symbols):
        chosen = [name == symbol for name in symbols]
        mean = displacements[:, chosen].sum(axis=2).mean(axis=1)
        right.plot(properties.temperatures, mean, label=symbol)
    right.set(xlabel="temperature (K)", ylabel=r"$\langle u^2 \rangle$ (Å$^2$)", ylim=(0, None))
    right.legend()
    _save(figure, path)


def plot_learning_curves(curves: Curves, path: Path) -> None:
    """Errors against training frames, doubly logarithmic, with bars for the intervals.

    Args:
        curves: Panel (title of its column, label of its row) -> line (arm, test) -> (n_sizes, 4)
            of frames, error, and its lower and upper bound. Arms have a colour, tests a style.
        path: PNG file to write.
    """
    columns, rows = (list(dict.fromkeys(part)) for part in zip(*curves, strict=True))
    figure = Figure(figsize=(1.0 + 2.6 * len(columns), 1.2 + 2.3 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharey="row")
    arms, tests = (
        list(dict.fromkeys(name[part] for lines in curves.values() for name in lines))
        for part in (0, 1)
    )
    for (column, row), lines in curves.items():
        axis = axes[rows.index(row)][columns.index(column)]
        for (arm, test), points in lines.items():
            frames, error, low, high = points.T
            axis.errorbar(
                frames,
                error,
                yerr=np.array([error - low, high - error]).tolist(),  # one size: no array of one
                color=f"C{arms.index(arm)}",
                ls=_STYLES[tests.index(test) % len(_STYLES)],
                marker=".",
                capsize=2,
                label=f"{arm}, {test}",
            )
        sizes = sorted({n for points in lines.values() for n in points[:, 0]})
        axis.set(xscale="log", yscale="log", xlim=(0.8 * sizes[0], 1.25 * sizes[-1]))
        axis.set_xticks(sizes, [f"{n:g}" for n in sizes])
        axis.set_xticks([], minor=True)
        axis.set(title=column, xlabel="training frames", ylabel=row)
        axis.label_outer()
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(arms))
    _save(figure, path)


_STYLES = ("-", "--", ":")


def _save(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda target: figure.savefig(target, dpi=120))
