"""Bulk moduli of 20 cubic crystals from equations of state, against DFT elastic tensors.

Birch-Murnaghan fit to the energies at nine volumes within 6 % of the potential's own equilibrium;
ions relax where they are free to. Ten of the crystals are in the default test fold.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.eos import EquationOfState
from matplotlib.axes import Axes

from qdgnn_ase import read_structures, relax
from qdgnn_bench.lattice import FAILURES, FMAX, median, percent

Row = dict[str, Any]
SOLIDS = {
    "mp-1265": "MgO, rock salt",
    "mp-1138": "LiF, rock salt",
    "mp-23193": "KCl, rock salt",
    "mp-1500": "BaS, rock salt",
    "mp-256": "LaN, rock salt",
    "mp-2828": "HfN, rock salt",
    "mp-1282": "VC, rock salt",
    "mp-149": "Si, diamond",
    "mp-8062": "SiC, zinc blende",
    "mp-2490": "GaP, zinc blende",
    "mp-124": "Ag, fcc",
    "mp-134": "Al, fcc",
    "mp-75": "Nb, bcc",
    "mp-13": "Fe, bcc",
    "mp-22865": "CsCl, CsCl",
    "mp-331": "ScAl, CsCl",
    "mp-2741": "CaF2, fluorite",
    "mp-1569": "Be2C, antifluorite",
    "mp-3448": "KMgF3, perovskite",
    "mp-2998": "BaTiO3, perovskite",
}
"""Entries of the Materials Project."""
STRAINS = np.linspace(-0.06, 0.06, 9)
"""Relative changes of the volume."""


def read_solids(path: str) -> dict[str, tuple[Atoms, float]]:
    """Crystal and DFT bulk modulus (GPa) by name.

    Args:
        path: JSON lines with material_id and log10_K_VRH (GPa) beside the crystal.

    Raises:
        ValueError: If one of ``SOLIDS`` is missing.
    """
    found = {atoms.info.get("material_id"): atoms for atoms in read_structures(path)}
    if missing := [f"{key} ({name})" for key, name in SOLIDS.items() if key not in found]:
        raise ValueError(f"{path} must hold the material_id of all solids, missing: {missing}")
    return {
        name: (found[key], float(10 ** found[key].info["log10_K_VRH"]))
        for key, name in SOLIDS.items()
    }


def bulk_modulus(atoms: Atoms, calculator: Calculator) -> float:
    """Bulk modulus in GPa at the equilibrium of a calculator.

    Raises:
        ValueError: If the fitted equilibrium is not between the volumes.
    """
    crystal = atoms.copy()
    crystal.calc = calculator
    relax(crystal, fmax=FMAX)
    volumes, energies = [], []
    for strain in STRAINS:
        scaled = crystal.copy()
        scaled.set_cell(crystal.cell.array * (1 + strain) ** (1 / 3), scale_atoms=True)
        scaled.calc = calculator
        relax(scaled, fmax=FMAX, cell=False)
        volumes.append(scaled.get_volume())
        energies.append(scaled.get_potential_energy())
    volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit(warn=False)
    if not volumes[0] < volume < volumes[-1]:
        raise ValueError(
            f"the minimum of the energy must be between {volumes[0]:.2f} and {volumes[-1]:.2f} "
            f"Å^3, got {volume:.2f}"
        )
    return float(modulus / units.GPa)


def modulus_error(atoms: Atoms, wanted: float, calculator: Calculator) -> Row:
    """bulk_modulus in GPa, relative error (None after a failure), CPU seconds."""
    row: Row = {"bulk_modulus": None, "error": None, "failure": ""}
    started = time.process_time()
    try:
        row["bulk_modulus"] = bulk_modulus(atoms, calculator)
        row["error"] = row["bulk_modulus"] / wanted - 1
    except FAILURES as error:
        row["failure"] = f"{type(error).__name__}: {error}"
    return row | {"seconds": time.process_time() - started}


def summarise(rows: Sequence[Row]) -> Row:
    """Median absolute error with 95 % bootstrap interval, of all solids and of the test fold."""
    summary: Row = {"failed": sum(bool(row["failure"]) for row in rows)}
    for name, mine in {"all": rows, "test": [row for row in rows if row["test_fold"]]}.items():
        values = [np.inf if row["error"] is None else abs(row["error"]) for row in mine]
        summary[f"n_{name}"] = len(values)
        if values:
            summary[name], summary[f"{name}_interval"] = median(values)
    return summary | {"seconds": sum(row["seconds"] for row in rows)}


def markdown(rows: dict[str, list[Row]], summaries: dict[str, Row]) -> str:
    """Table of the solids with one column per potential, and the medians below."""
    lines = [
        "| solid | " + " | ".join(f"{name}, GPa (error)" for name in rows) + " |",
        "|---|" + "---|" * len(rows),
    ]
    for same in zip(*rows.values(), strict=True):
        mark = " (test fold)" if same[0]["test_fold"] else ""
        cells = [_cell(row) for row in same]
        lines.append(f"| {same[0]['solid']}{mark} | {' | '.join(cells)} |")
    for key, label in {"all": "all", "test": "test fold"}.items():
        cells = [
            percent(s[key], s[f"{key}_interval"]) if key in s else "" for s in summaries.values()
        ]
        lines.append(f"| **median error, %, {label}** | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    if row["error"] is None:
        return "failed"
    return f"{row['bulk_modulus']:.0f} ({100 * row['error']:+.0f} %)"


def draw(axes: Axes, rows: dict[str, list[Row]]) -> None:
    """Error of the bulk modulus of each solid; the band is 20 %."""
    axes.axvspan(-20, 20, color="0.9")
    axes.axvline(0, color="0.6")
    for name, mine in rows.items():
        known = [row for row in mine if row["error"] is not None]
        errors, solids = ([row[key] for row in known] for key in ("error", "solid"))
        axes.plot(100 * np.array(errors), solids, "o", label=name, alpha=0.7)
    axes.invert_yaxis()
    axes.set(xlabel="error of the bulk modulus (%)")
    axes.legend()
