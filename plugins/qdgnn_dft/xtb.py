"""Tier T2: GFN1-xTB by tblite (the extra ``xtb``), behind gates.

tblite samples Gamma only, so that a periodic cell must be large; it does not converge for a part of
the inorganic crystals, and about one result in a hundred is garbage without a warning. What does
not pass the gates is refused with the reason and becomes a mask, never a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from ase import Atoms
from ase.units import Hartree

from qdgnn_dft.backend import RefusedError, make_record, mechanical_values, require
from qdgnn_dft.bands import band_edges
from qdgnn_dft.record import Record

REMEDY = "pip install 'qdgnn-ase[xtb]'"


@dataclass(frozen=True)
class Gates:
    """What a plausible result fulfils."""

    min_height: float = 9.0
    """Å. Least distance of opposite faces of a periodic cell: Gamma stands for the whole zone."""
    max_charge: float = 4.0
    """e. Largest absolute atomic charge."""
    min_level: float = -60.0
    """eV. Lowest orbital energy."""
    max_element: int = 86
    """Elements of the parametrisation."""

    def check_structure(self, atoms: Atoms) -> None:
        """Raise RefusedError if the structure is not one for Gamma-only tight binding."""
        beyond = sorted({int(z) for z in atoms.numbers if not 1 <= z <= self.max_element})
        if beyond:
            raise RefusedError(
                f"xtb has parameters for elements 1..{self.max_element}, got {beyond}"
            )
        if not atoms.pbc.any():
            return
        heights = 1 / np.linalg.norm(atoms.cell.reciprocal()[atoms.pbc], axis=1)
        if heights.min() < self.min_height:
            raise RefusedError(
                f"xtb samples Gamma only and needs cells of {self.min_height} Å between opposite "
                f"faces, got {heights.min():.2f} Å for {atoms.symbols}; repeat the cell"
            )

    def check_result(self, charges: Any, levels: Any) -> None:
        """Raise RefusedError if charges (n_atoms,), e, or levels, eV, are not plausible."""
        charges, levels = np.asarray(charges), np.asarray(levels)
        if not (np.isfinite(charges).all() and np.isfinite(levels).all()):
            raise RefusedError("xtb gave NaN or infinite charges or levels")
        if abs(charges).max() >= self.max_charge:
            raise RefusedError(
                f"xtb charges must be below {self.max_charge} e, got {abs(charges).max():.2f}"
            )
        if levels.min() <= self.min_level:
            raise RefusedError(
                f"xtb levels must lie above {self.min_level} eV, got {levels.min():.1f}"
            )


@dataclass(frozen=True)
class XTBBackend:
    """GFN1-xTB at Gamma."""

    method: str = "GFN1-xTB"
    electronic_temperature: float = 300.0
    """K."""
    gates: Gates = Gates()
    name: str = "xtb"
    n_attempts: int = 2

    def settings(self, atoms: Atoms) -> dict[str, Any]:
        """Method and temperature.

        Raises:
            RefusedError: If the structure is not one for this method.
        """
        self.gates.check_structure(atoms)
        return {
            "backend": self.name,
            "functional": self.method,
            "electronic_temperature": self.electronic_temperature,
        }

    def compute(self, atoms: Atoms, attempt: int, log_file: Path | None) -> Record:
        """Energy, forces, stress, HOMO-LUMO gap and charges.

        Raises:
            RefusedError: If a gate does not let the result through.
        """
        started = process_time()
        calculator = require("tblite.ase", REMEDY).TBLite(
            method=self.method,
            electronic_temperature=self.electronic_temperature,
            mixer_damping=(0.4, 0.1)[attempt],
            max_iterations=(250, 1000)[attempt],
            verbosity=0,
        )
        atoms.calc = calculator
        values = mechanical_values(atoms)
        result = calculator._res  # tblite's ASE interface has no public way to the orbitals
        levels = np.asarray(result.get("orbital-energies")) * Hartree
        occupations = np.asarray(result.get("orbital-occupations"))
        charges = np.asarray(result.get("charges"))
        self.gates.check_result(charges, levels)
        values |= {"charges": charges, **_frontier(levels, occupations)}
        provenance = {
            "version": f"tblite {require('importlib.metadata', REMEDY).version('tblite')}",
            "attempt": attempt + 1,
            "cpu_seconds": process_time() - started,
        }
        return make_record(atoms, self.settings(atoms), values, provenance)


def _frontier(levels: Any, occupations: Any) -> dict[str, Any]:
    """Fermi level in the middle of HOMO and LUMO, and their gap at Gamma; none for a radical."""
    order, n_electrons = np.sort(levels), round(float(np.sum(occupations)))
    n_filled = n_electrons // 2
    if n_electrons % 2 or n_filled >= len(order):
        return {}
    middle = float(order[n_filled - 1 : n_filled + 1].mean())
    edges = band_edges(order[None, None], [[0.0, 0.0, 0.0]], middle)
    return {"fermi_level": middle, "band_gap": edges["band_gap"]}
