"""Elastic moduli and thermal expansion by matcalc, as its users compute them, against DFT.

matcalc's ``ElasticityCalc`` fits stresses of strained cells whose ions relax, ``EOSCalc`` a
Birch-Murnaghan curve to energies, ``QHACalc`` free energies of harmonic phonons at some volumes.
Two routes to the bulk modulus check each other: stresses and energies of one potential.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from qdgnn_ase import read_structures
from qdgnn_bench.equation_of_state import SOLIDS
from qdgnn_bench.lattice import FAILURES, FMAX

Row = dict[str, Any]
QUANTITIES = {
    "bulk_modulus_elastic": "bulk_modulus",
    "bulk_modulus_eos": "bulk_modulus",
    "shear_modulus_elastic": "shear_modulus",
}
"""What is computed and the label that it is compared with, GPa."""
SCALES = tuple(np.linspace(0.98, 1.03, 6))
"""Lattice parameters of the phonons, relative to the relaxed one."""
ROOM = 300.0
"""K."""


def load_matcalc() -> Any:
    """The library, imported without its questions to the network for models of other packages.

    Raises:
        ImportError: If it is not installed; the message names the extra.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("MATGL_BACKEND", "DGL")  # it imports matgl, whose other one lacks models
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there was no answer
            return import_module("matcalc")
    except ModuleNotFoundError as error:
        raise ImportError("matcalc is missing: pip install 'qdgnn-ase[bench]'") from error


def read_labelled_solids(path: str) -> dict[str, tuple[Atoms, dict[str, float]]]:
    """Crystal and DFT moduli (GPa) by name.

    Args:
        path: JSON lines with material_id, log10_K_VRH and log10_G_VRH beside the crystal.

    Raises:
        ValueError: If one of ``SOLIDS`` is missing.
    """
    found = {atoms.info.get("material_id"): atoms for atoms in read_structures(path)}
    if missing := [f"{key} ({name})" for key, name in SOLIDS.items() if key not in found]:
        raise ValueError(f"{path} must hold the material_id of all solids, missing: {missing}")
    columns = {"bulk_modulus": "log10_K_VRH", "shear_modulus": "log10_G_VRH"}
    return {
        name: (found[key], {label: 10 ** found[key].info[c] for label, c in columns.items()})
        for key, name in SOLIDS.items()
    }


def moduli_errors(atoms: Atoms, wanted: dict[str, float], calculator: Calculator) -> Row:
    """Moduli in GPa, relative ``errors`` by quantity (empty after a failure), CPU seconds."""
    row: Row = {"wanted": wanted, "errors": {}, "failure": ""}
    started = time.process_time()
    try:
        row |= moduli(atoms, calculator)
        row["errors"] = {name: row[name] / wanted[label] - 1 for name, label in QUANTITIES.items()}
    except FAILURES as error:
        row["failure"] = f"{type(error).__name__}: {error}"
    return row | {"seconds": time.process_time() - started}


def moduli(atoms: Atoms, calculator: Calculator) -> dict[str, float]:
    """Bulk and shear modulus (Voigt-Reuss-Hill) of stresses, bulk modulus of energies; GPa."""
    matcalc = load_matcalc()
    elastic = matcalc.ElasticityCalc(
        calculator,
        fmax=FMAX,
        relax_deformed_structures=True,
        units_GPa=True,
        r2_min=-1,  # its mean counts the fits of components that are zero by symmetry: noise
    ).calc(atoms)
    energies = matcalc.EOSCalc(calculator, fmax=FMAX, max_abs_strain=0.06).calc(atoms)
    return {
        "bulk_modulus_elastic": float(elastic["bulk_modulus_vrh"]),
        "shear_modulus_elastic": float(elastic["shear_modulus_vrh"]),
        "bulk_modulus_eos": float(energies["bulk_modulus_bm"]),
    }


def quasi_harmonic(atoms: Atoms, calculator: Calculator, supercell: int = 3) -> Row:
    """Quasi-harmonic quantities at 300 K and zero pressure.

    Returns:
        thermal_expansion (volumetric, 1/K), bulk_modulus (GPa), heat_capacity (J/(K mol) per mole
        of cells), gruneisen, and CPU seconds.
    """
    matcalc = load_matcalc()
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # at 0 K a slope is 0 over 0
        warnings.filterwarnings("ignore", ".*acoustic mode.* at Gamma")  # 1e-5 eV of phonopy's
        result = matcalc.QHACalc(
            calculator,
            t_step=20,
            t_max=400,
            scale_factors=SCALES,
            phonon_calc_kwargs={"supercell_matrix": np.eye(3, dtype=int) * supercell},
            store_ha_phonon=False,
            on_imaginary_modes="error",
        ).calc(atoms)
    place = int(np.argmin(abs(np.asarray(result["temperatures"]) - ROOM)))
    names = {
        "thermal_expansion": "thermal_expansion_coefficients",
        "bulk_modulus": "bulk_modulus_P",
        "heat_capacity": "heat_capacity_P",
        "gruneisen": "gruneisen_parameters",
    }
    values = {name: float(result[key][place]) for name, key in names.items()}
    return values | {"temperature": ROOM, "seconds": time.process_time() - started}


def summarise(rows: Sequence[Row]) -> Row:
    """Median absolute error of each quantity over the rows that did not fail."""
    known = [row for row in rows if not row["failure"]]
    medians = {
        name: float(np.median([abs(row["errors"][name]) for row in known])) if known else None
        for name in QUANTITIES
    }
    return {
        "solids": len(rows),
        "failed": len(rows) - len(known),
        "median_error": medians,
        "routes_differ": _routes(known),
    }


def _routes(known: Sequence[Row]) -> float | None:
    """Median relative difference of the two bulk moduli of one potential."""
    if not known:
        return None
    ratios = [row["bulk_modulus_eos"] / row["bulk_modulus_elastic"] - 1 for row in known]
    return float(np.median(np.abs(ratios)))


def markdown(
    rows: Sequence[Row], summary: Row, thermal: Row, peers: Mapping[str, Row] | None = None
) -> str:
    """Table of the solids, medians of all potentials below, a line of the quasi-harmonic solid."""
    lines = [
        "| solid | K of DFT, GPa | K of stresses | K of energies | G of DFT, GPa | G of stresses |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        dft = row["wanted"]
        got = [_cell(row, name) for name in QUANTITIES]
        lines.append(
            f"| {row['solid']} | {dft['bulk_modulus']:.0f} | {got[0]} | {got[1]} | "
            f"{dft['shear_modulus']:.0f} | {got[2]} |"
        )
    titles = {"median error": summary} | {f"{name}'s": row for name, row in (peers or {}).items()}
    for title, row in titles.items():
        medians = [_percent(row["median_error"][name]) for name in QUANTITIES]
        lines.append(f"| **{title}** | | {medians[0]} | {medians[1]} | | {medians[2]} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Median difference of the two bulk moduli: {_percent(summary['routes_differ'])}. "
            f"Quasi-harmonic {thermal['solid']} at {thermal['temperature']:.0f} K: volumetric "
            f"expansion {1e6 * thermal['thermal_expansion']:.1f}e-6 1/K, bulk modulus "
            f"{thermal['bulk_modulus']:.0f} GPa, heat capacity {thermal['heat_capacity']:.1f} "
            f"J/(K mol) of cells, Grüneisen parameter {thermal['gruneisen']:.2f}.",
        ]
    )


def _cell(row: Row, name: str) -> str:
    if row["failure"]:
        return "failed"
    return f"{row[name]:.0f} ({100 * row['errors'][name]:+.0f} %)"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
