"""`qdgnn bench-diffusion`: lithium diffusion in the argyrodite Li6PS5Cl and its Arrhenius fit.

Self-diffusion by Einstein's relation, D = lim MSD(t) / (6 t): the slope of the mean-square
displacement of Li, averaged over time origins, between 20 and 80 % of a block of the run, after the
drift of the centre of mass is taken out. The spread over blocks and atoms gives the standard error
(they are taken as independent: correlated jumps make it larger). ln D against 1/T, weighted, gives

    D = D0 exp(-Ea / kT),    sigma = N q^2 D / (V k T)    (Nernst-Einstein, Haven ratio 1).

The cell is that of room temperature at every temperature: no thermal expansion.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from qdgnn_ase import QDGNNCalculator, measured, molecular_dynamics, reduced_formula, relax
from qdgnn_bench.argyrodite import LITERATURE, argyrodite

Row = dict[str, Any]
Array = NDArray[np.float64]
BLOCKS = 3
WINDOW = (0.2, 0.8)
"""Lags of the straight line, in lengths of a block."""
ROOM = 300.0
"""K; temperature of the extrapolated conductivity."""
FRAMEWORK_MSD = 2.0
"""Å^2; thermal vibrations stay well below."""
_INTERVAL = 10
_CM2_S = 1e-4
"""Å^2/ps in cm^2/s."""


def trajectory(atoms: Atoms, temperature: float, time_ps: float, timestep_fs: float) -> Array:
    """Unwrapped positions in Å relative to the centre of mass, (n_frames, n_atoms, 3).

    Constant temperature, in place; a frame every ten steps, the first one at the start.
    """
    frames: list[Array] = []
    molecular_dynamics(
        atoms,
        temperature=temperature,
        steps=round(1e3 * time_ps / timestep_fs),
        timestep_fs=timestep_fs,
        interval=_INTERVAL,
        observer=lambda _: frames.append(atoms.positions - atoms.get_center_of_mass()),
    )
    return np.array(frames)


def mean_square_displacement(positions: Array) -> Array:
    """Per atom and lag, averaged over time origins: (n_atoms, n_frames) in Å^2.

    Args:
        positions: (n_frames, n_atoms, 3) Å, unwrapped.
    """
    n = len(positions)
    moved = [
        ((positions[lag:] - positions[: n - lag]) ** 2).sum(axis=2).mean(axis=0) for lag in range(n)
    ]
    return np.array(moved).T


def diffusivity(positions: Array, frame_ps: float, n_blocks: int = BLOCKS) -> Row:
    """Self-diffusivity and its standard error in cm^2/s.

    Args:
        positions: (n_frames, n_atoms, 3) Å, unwrapped, of the diffusing atoms.
        frame_ps: Time between frames.
        n_blocks: Parts of the run, each with a line of its own for each atom.

    Raises:
        ValueError: If a block holds fewer than 10 frames.
    """
    length = len(positions) // n_blocks
    if length < 10:
        raise ValueError(
            f"a run must hold at least {10 * n_blocks} frames, got {len(positions)}; run longer"
        )
    blocks = [positions[k * length : (k + 1) * length] for k in range(n_blocks)]
    curves = np.concatenate([mean_square_displacement(block) for block in blocks])
    first, last = (round(share * length) for share in WINDOW)
    lags = frame_ps * np.arange(length)
    slopes = np.polyfit(lags[first:last], curves[:, first:last].T, 1)[0] / 6 * _CM2_S
    return {
        "diffusivity": float(slopes.mean()),
        "standard_error": float(slopes.std(ddof=1) / len(slopes) ** 0.5),
        "lag_ps": lags[:last].tolist(),
        "msd": curves.mean(axis=0)[:last].tolist(),
    }


def conductivity(diffusion: float, temperature: float, n: int, volume: float) -> float:
    """Nernst-Einstein conductivity in mS/cm, Haven ratio 1.

    Args:
        diffusion: cm^2/s.
        temperature: K.
        n: Carriers of charge e in the cell.
        volume: Å^3.
    """
    density = n / (volume * 1e-24)  # 1/cm^3
    siemens = density * units._e**2 * diffusion / (units._k * temperature)  # S/cm
    return float(1e3 * siemens)


def arrhenius(rows: Sequence[Row], room: float = ROOM, n_samples: int = 5_000) -> Row:
    """Weighted line through ln D against 1/T.

    Args:
        rows: temperature (K), diffusivity and standard_error (cm^2/s). Points within two standard
            errors of zero are left out.
        room: Temperature of the extrapolation, K.
        n_samples: Samples of the points within their errors, for the errors of the line.

    Returns:
        activation_energy and its standard error in eV, diffusivity at ``room`` in cm^2/s with its
        68 % interval; all None where fewer than two points are left.
    """
    good = [row for row in rows if row["diffusivity"] > 2 * row["standard_error"]]
    names = ("activation_energy", "activation_error", "diffusivity", "interval")
    if len(good) < 2:
        return {"points": len(good), **dict.fromkeys(names)}
    inverse = np.array([1 / (units.kB * row["temperature"]) for row in good])
    logs = np.log([row["diffusivity"] for row in good])
    errors = np.array([row["standard_error"] / row["diffusivity"] for row in good]).clip(1e-6)
    draws = logs + errors * np.random.default_rng(0).normal(size=(n_samples, len(good)))
    lines = np.polyfit(inverse, np.vstack([logs, draws]).T, 1, w=1 / errors)
    at_room = np.exp(lines[1] + lines[0] / (units.kB * room))
    low, high = np.percentile(at_room[1:], [16, 84])
    values = (-lines[0, 0], lines[0, 1:].std(), at_room[0], [float(low), float(high)])
    return {
        "points": len(good),
        **{k: v if isinstance(v, list) else float(v) for k, v in zip(names, values, strict=True)},
    }


def measure(
    atoms: Atoms, temperature: float, *, time_ps: float, equilibration_ps: float, timestep_fs: float
) -> Row:
    """Diffusion of Li at one temperature (K); ``atoms`` carry a calculator and are left alone."""
    moving = atoms.copy()
    moving.calc = atoms.calc
    started = time.process_time()
    trajectory(moving, temperature, equilibration_ps, timestep_fs)
    positions = trajectory(moving, temperature, time_ps, timestep_fs)
    lithium = moving.symbols == "Li"
    frame = 1e-3 * _INTERVAL * timestep_fs
    rest = ((positions[-1, ~lithium] - positions[0, ~lithium]) ** 2).sum(axis=1)
    return {
        "temperature": temperature,
        "time_ps": time_ps,
        "timestep_fs": timestep_fs,
        **diffusivity(positions[:, lithium], frame),
        "framework_msd": float(rest.mean()),
        "seconds": time.process_time() - started,
    }


def run(atoms: Atoms, temperatures: Sequence[float], **lengths: float) -> Row:
    """Rows of all temperatures, Arrhenius fit and conductivity at room temperature.

    Args:
        atoms: Crystal with a calculator; its ions are relaxed first, in place.
        temperatures: K.
        **lengths: Arguments of `measure`.
    """
    relax(atoms, cell=False)
    n, volume = int((atoms.symbols == "Li").sum()), atoms.get_volume()
    rows = [measure(atoms, temperature, **lengths) for temperature in temperatures]
    fit = arrhenius(rows)
    factor = conductivity(1.0, ROOM, n, volume)
    fit["nernst_einstein_mS_cm_per_cm2_s"] = factor
    known = fit["diffusivity"] is not None
    fit["conductivity_mS_cm"] = factor * fit["diffusivity"] if known else None
    fit["conductivity_interval"] = [factor * d for d in fit["interval"]] if known else None
    system = f"{reduced_formula(atoms)} ({len(atoms)} atoms)"
    return {"system": system, "volume": volume, "n_lithium": n, "rows": rows, "arrhenius": fit}


def markdown(result: Row) -> str:
    """Tables of the runs and of the literature, with the fit between them."""
    first, last = (result["rows"][0]["lag_ps"][-1] * share / WINDOW[1] for share in WINDOW)
    lines = [
        f"{result['system']}, constant volume. D of Li +- standard error, from the slope between "
        f"lags of {first:.1f} and {last:.1f} ps (rattling in the cage must be over by then).",
        "",
        "| T, K | ps | step, fs | D, cm^2/s | MSD of the framework at the end, Å^2 | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        value = f"{row['diffusivity']:.1e} +- {row['standard_error']:.1e}"
        head = f"| {row['temperature']:.0f} | {row['time_ps']:g} | {row['timestep_fs']:g} | {value}"
        lines.append(f"{head} | {row['framework_msd']:.1f} | {row['seconds']:.0f} |")
    texts = [_fit_text(result["arrhenius"]), *_moving_framework(result["rows"]), LITERATURE]
    return "\n".join([*lines, *(line for text in texts for line in ("", text))])


def _moving_framework(rows: Sequence[Row]) -> list[str]:
    """A sentence where the other atoms have left their sites: that is no crystal."""
    moved = [f"{row['temperature']:.0f} K" for row in rows if row["framework_msd"] > FRAMEWORK_MSD]
    if not moved:
        return []
    return [
        f"At {', '.join(moved)} the framework has left its sites (MSD above {FRAMEWORK_MSD:g} "
        "Å^2): its groups turn, exchange places or melt. D and the fit are then not those of the "
        "crystal that was measured."
    ]


def _fit_text(fit: Row) -> str:
    if fit["activation_energy"] is None:
        return f"No Arrhenius fit: diffusion was resolved at {fit['points']} temperatures only."
    low, high = fit["conductivity_interval"]
    return (
        f"Ea = {fit['activation_energy']:.2f} +- {fit['activation_error']:.2f} eV from "
        f"{fit['points']} temperatures; extrapolated to {ROOM:.0f} K: D = {fit['diffusivity']:.1e} "
        f"cm^2/s, conductivity {fit['conductivity_mS_cm']:.1f} mS/cm (68 % of samples in "
        f"{low:.1f}-{high:.1f}), by Nernst-Einstein with Haven ratio 1: "
        f"{fit['nernst_einstein_mS_cm_per_cm2_s']:.2e} mS/cm per cm^2/s. A demonstration: one "
        "small cell, one run per temperature, errors of the sampling only."
    )


def plot(result: Row, path: Path) -> None:
    """Mean-square displacements, and ln D against 1/T with the fitted line, as PNG."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for row in result["rows"]:
        left.plot(row["lag_ps"], row["msd"], label=f"{row['temperature']:.0f} K")
        point = (1e3 / row["temperature"], row["diffusivity"])
        right.errorbar(*point, yerr=row["standard_error"], fmt="o", color="tab:blue", capsize=3)
    left.set(xlabel="lag (ps)", ylabel="mean-square displacement of Li (Å$^2$)")
    left.legend()
    fit = result["arrhenius"]
    if fit["activation_energy"] is not None:
        inverse = np.linspace(1e3 / max(r["temperature"] for r in result["rows"]), 1e3 / ROOM, 50)
        exponent = fit["activation_energy"] / units.kB * (1 / ROOM - 1e-3 * inverse)
        label = f"Ea = {fit['activation_energy']:.2f} ± {fit['activation_error']:.2f} eV"
        right.plot(inverse, fit["diffusivity"] * np.exp(exponent), label=label)
        right.legend()
    right.set(yscale="log", xlabel="1000 K / T", ylabel="D (cm$^2$/s)", title=result["system"])
    figure.savefig(path, dpi=120)


@click.command()
@click.option("--model", default="default", show_default=True)
@click.option("--fast", is_flag=True, help="The calculator's fast mode.")
@click.option(
    "--temperature",
    "-T",
    "temperatures",
    multiple=True,
    default=(600.0, 800.0, 1000.0),
    show_default=True,
    help="K; may be given several times.",
)
@click.option("--time-ps", default=20.0, show_default=True, help="Production per temperature, ps.")
@click.option("--equilibration-ps", default=2.0, show_default=True)
@click.option("--timestep-fs", default=2.0, show_default=True)
@click.option("--json", "output", type=Path, help="Write the result to this file.")
@click.option("--markdown", "table", type=Path, help="Write the tables here, a picture beside it.")
def diffusion(
    *,
    model: str,
    fast: bool,
    temperatures: tuple[float, ...],
    output: Path | None,
    table: Path | None,
    **lengths: float,
) -> None:
    """Li diffusion in Li6PS5Cl: mean-square displacements, Arrhenius fit, literature."""
    atoms = argyrodite()
    atoms.calc = load_calculator(model, fast)
    with Console().status(f"molecular dynamics at {temperatures} K"):
        result = run(atoms, temperatures, **lengths)
    text = markdown(result)
    click.echo(text)
    if output:
        head = {"model": model, **measured()}
        output.write_text(json.dumps(head | result, indent=1) + "\n")
    if table:
        table.write_text(text + "\n")
        plot(result, table.with_suffix(".png"))


def load_calculator(model: str, fast: bool) -> Calculator:
    """Ours, in its fast mode if asked."""
    return QDGNNCalculator(model, fast=True) if fast else QDGNNCalculator(model)
