"""The physics filter: a structure S is kept when sum_i |L_i(S)| / tol_i < 1.

Every residual L_i has a unit and a tolerance of its own. `geometry_residuals` cost nothing and
screen each proposal before it is evaluated; `mechanical_residuals` need a calculator and judge the
best candidates: vanishing forces (div sigma = 0) and stress of the relaxed structure, the Born
criteria, a positive definite elastic matrix C of Hooke's law sigma = C : eps from finite strains,
and no imaginary frequency of the phonons at Gamma of the given cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from qdgnn_ase import relax
from qdgnn_design.oxidation import charges_of

Array = NDArray[np.float64]

SHORTEST = 0.65
"""Shortest allowed distance in sums of covalent radii, without any penalty."""
_SEARCHED = 1.2
"""Distances beyond this many sums of radii are not looked at."""


@dataclass(frozen=True, slots=True)
class Residual:
    """How far one law is from being kept."""

    name: str
    value: float
    """In ``unit``, 0 where the law is kept."""
    tolerance: float
    unit: str

    @property
    def share(self) -> float:
        """|L| / tol; infinite where the value is not finite."""
        return abs(self.value) / self.tolerance if np.isfinite(self.value) else np.inf


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of the filter with its reasons."""

    residuals: tuple[Residual, ...]

    @property
    def total(self) -> float:
        """sum_i |L_i| / tol_i."""
        return float(sum(residual.share for residual in self.residuals))

    @property
    def passed(self) -> bool:
        """Whether the sum is below 1."""
        return self.total < 1.0

    @property
    def reasons(self) -> list[str]:
        """What speaks against the structure, worst first; none where it passes."""
        if self.passed:
            return []
        worst = sorted(self.residuals, key=lambda residual: -residual.share)
        return [
            f"{r.name} {r.value:.3g} {r.unit} (tolerance {r.tolerance:g})"
            for r in worst
            if r.share >= 0.05
        ]


def geometry_residuals(atoms: Atoms) -> tuple[Residual, ...]:
    """Charge neutrality and the shortest distance."""
    charge = float(charges_of(atoms).sum())
    shortfall = max(0.0, SHORTEST - shortest_contact(atoms))
    return (
        Residual("total charge", charge, 0.5, "e"),
        Residual("shortest distance below the least", shortfall, 0.05, "sums of covalent radii"),
    )


def domain_residual(*, in_domain: bool) -> Residual:
    """Out of the domain of the predictor: rejected by itself."""
    return Residual("outside the training data", 0.0 if in_domain else 1.0, 1.0, "")


def shortest_contact(atoms: Atoms) -> float:
    """Shortest distance in sums of covalent radii, capped at 1.2; 0 for broken positions."""
    if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
        return 0.0
    radii = covalent_radii[atoms.numbers]
    first, second, distance = neighbor_list("ijd", atoms, _SEARCHED * radii)
    ratio = distance / (radii[first] + radii[second])
    return float(min(ratio.min(initial=_SEARCHED), _SEARCHED))


def mechanical_residuals(
    atoms: Atoms, calculator: Calculator, *, fmax: float = 0.05, steps: int = 300
) -> tuple[Atoms, tuple[Residual, ...]]:
    """Relax, then judge forces, stress, both stabilities and what relaxation did to the volume.

    Args:
        atoms: Structure with a cell; stays as it is.
        calculator: Any ASE calculator with forces and stress.
        fmax: Relaxation ends at this force, eV/Å.
        steps: Most steps of the relaxation.

    Returns:
        The relaxed structure (without calculator) and the residuals.
    """
    relaxed = atoms.copy()
    relaxed.calc = calculator
    relax(relaxed, fmax=fmax, steps=steps)
    force = float(np.linalg.norm(relaxed.get_forces(), axis=1).max())
    stress = float(np.abs(relaxed.get_stress()).max() / units.GPa)
    elastic = elastic_matrix(relaxed, calculator)
    lowest = float(np.linalg.eigvalsh(elastic)[0]) if np.isfinite(elastic).all() else np.nan
    asymmetry = float(np.abs(elastic - elastic.T).max() / max(np.abs(elastic).max(), 1e-12))
    frequency = lowest_frequency(relaxed, calculator)
    relaxed.calc = None
    change = float(abs(np.log(relaxed.cell.volume / atoms.cell.volume)))
    return relaxed, (
        Residual("force after relaxation", force, 0.5, "eV/Å"),
        Residual("stress after relaxation", stress, 5.0, "GPa"),
        Residual("asymmetry of the elastic matrix", asymmetry, 1.0, ""),
        Residual("elastic eigenvalue below zero", min(0.0, lowest), 1.0, "GPa"),
        Residual("imaginary frequency at Gamma", min(0.0, frequency), 1.0, "THz"),
        Residual("log of the volume change in relaxation", change, 1.0, ""),
        *(shape for shape in geometry_residuals(relaxed)),
    )


def elastic_matrix(atoms: Atoms, calculator: Calculator, strain: float = 5e-3) -> Array:
    """Elastic matrix C in GPa, Voigt order (6, 6), ions relaxed, by central differences of stress.

    Not symmetrised: its asymmetry tells how far the structure is from Hooke's law.

    Args:
        atoms: Relaxed structure.
        calculator: With forces and stress.
        strain: Size of the strain.
    """
    columns = []
    for axes in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        stress = [_stress(atoms, calculator, axes, sign * strain) for sign in (1, -1)]
        columns.append((stress[0] - stress[1]) / (2 * strain))
    elastic: Array = np.array(columns).T / units.GPa
    return elastic


def lowest_frequency(atoms: Atoms, calculator: Calculator, step: float = 0.01) -> float:
    """Lowest phonon frequency in THz at Gamma of the cell, minus |f| if imaginary.

    Central differences of the forces; the three translations, about 0, are among the modes.

    Args:
        atoms: Relaxed structure.
        calculator: With forces.
        step: Displacement, Å.
    """
    moved = atoms.copy()
    moved.calc = calculator
    rows = []
    for atom, axis in np.ndindex(len(atoms), 3):
        forces = []
        for sign in (1, -1):
            moved.positions[:] = atoms.positions
            moved.positions[atom, axis] += sign * step
            forces.append(moved.get_forces().ravel())
        rows.append((forces[1] - forces[0]) / (2 * step))
    hessian = np.array(rows)
    if not np.isfinite(hessian).all():
        return float("nan")
    scale = np.repeat(atoms.get_masses(), 3) ** -0.5
    lowest = np.linalg.eigvalsh(0.5 * (hessian + hessian.T) * np.outer(scale, scale))[0]
    angular = np.sign(lowest) * np.sqrt(abs(lowest)) * units.second  # omega, 1/s
    return float(angular / (2e12 * np.pi))


def _stress(atoms: Atoms, calculator: Calculator, axes: Sequence[int], size: float) -> Array:
    """Stress in eV/Å^3 under an engineering strain, ions relaxed in the fixed cell."""
    first, second = axes
    deformation = np.eye(3)
    deformation[first, second] += size if first == second else size / 2
    deformation[second, first] = deformation[first, second]
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    strained.calc = calculator
    if len(strained) > 1:
        relax(strained, fmax=0.01, steps=30, cell=False)
    return np.asarray(strained.get_stress(), float)
