"""Settings of a plane-wave calculation that are right before they are fast.

- Cutoff by element: 2p and 3d states are hard. Differences of energies at one cutoff converge much
  sooner than the energies themselves (`qdgnn bench-dft-convergence`).
- k-points: a mesh centred on Gamma with even numbers of points, which holds the zone boundary.
  Odd meshes miss it: CsPbI3 reads 3.60 eV on 3 x 3 x 3 in place of 1.28 eV.
- Gaps are taken over the mesh and the lines between the points of high symmetry.
- Spin where an element is magnetic, from a ferromagnetic and an antiferromagnetic start; the lower
  energy is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

MIN_CUTOFF = 500.0
"""eV."""
CUTOFFS: dict[str, float] = {
    **dict.fromkeys(("N", "F"), 800.0),
    **dict.fromkeys(("O", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn"), 700.0),
}
"""Elements that need more than `MIN_CUTOFF`, eV."""
MOMENTS: dict[str, float] = {
    "V": 3.0,
    "Cr": 4.0,
    "Mn": 5.0,
    "Fe": 4.0,
    "Co": 3.0,
    "Ni": 2.0,
    **dict.fromkeys(("Ce", "Pr", "Nd", "Pm", "Sm"), 3.0),
    **dict.fromkeys(("Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm"), 6.0),
    **dict.fromkeys(("U", "Np", "Pu"), 3.0),
}
"""Starting moments of the magnetic elements, Bohr magnetons."""


@dataclass(frozen=True, kw_only=True)
class DFTSettings:
    """What a user may choose."""

    functional: str = "PBE"
    """Exchange and correlation as the backend spells it."""
    cutoff_ev: float | None = None
    """Plane-wave cutoff in eV; None takes the largest of the elements."""
    k_density: float = 3.5
    """Points per Å^-1 of reciprocal length (2 pi included)."""
    smearing_ev: float = 0.05
    """Width of the Fermi-Dirac distribution in eV."""
    path_points: int = 24
    """Points on the lines of high symmetry where the gap is looked for; 0 takes the mesh only."""
    spin_orbit: bool = False
    """Add spin-orbit coupling to the levels of the gap, as perturbation after convergence."""

    def __post_init__(self) -> None:
        if self.cutoff_ev is not None and not self.cutoff_ev > 0:
            raise ValueError(f"cutoff_ev must be larger than 0, got {self.cutoff_ev}")
        if not (self.k_density > 0 and self.smearing_ev >= 0 and self.path_points >= 0):
            raise ValueError(
                "k_density must be > 0, smearing_ev and path_points >= 0, got "
                f"{self.k_density}, {self.smearing_ev}, {self.path_points}"
            )

    def resolve(self, atoms: Atoms) -> dict[str, Any]:
        """The numbers of this structure, for the key and the calculator."""
        return {
            "functional": self.functional,
            "cutoff_ev": self.cutoff_ev or default_cutoff(atoms),
            "k_mesh": even_mesh(atoms, self.k_density),
            "smearing_ev": self.smearing_ev,
            "path_points": self.path_points if atoms.pbc.all() else 0,
            "starts": {name: start.tolist() for name, start in magnetic_starts(atoms).items()},
            **({"spin_orbit": True} if self.spin_orbit else {}),
        }


def default_cutoff(atoms: Atoms) -> float:
    """Largest cutoff of the elements in eV."""
    return max(CUTOFFS.get(symbol, MIN_CUTOFF) for symbol in set(atoms.symbols))


def even_mesh(atoms: Atoms, density: float) -> list[int]:
    """Even numbers of points along the periodic axes, 1 along the others.

    Args:
        atoms: Structure.
        density: Least points per Å^-1.
    """
    lengths = 2 * np.pi * np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    wanted = 2 * np.ceil(density * lengths / 2 - 1e-9)
    return [int(max(2, n)) if p else 1 for n, p in zip(wanted, atoms.pbc, strict=True)]


def magnetic_starts(atoms: Atoms) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Starting moments by name, (n_atoms,) each.

    Moments that the structure brings are the only start ("given"). Else: "none" without magnetic
    elements, else "ferromagnetic" and, with two magnetic atoms or more, "antiferromagnetic", where
    the sign alternates along the longest spread of the magnetic atoms.
    """
    given = atoms.get_initial_magnetic_moments()
    if given.any():
        return {"given": np.asarray(given, dtype=np.float64)}
    size = np.zeros(len(atoms))
    for symbol, moment in MOMENTS.items():
        size[atoms.numbers == atomic_numbers[symbol]] = moment
    magnetic = np.flatnonzero(size)
    if not len(magnetic):
        return {"none": size}
    starts = {"ferromagnetic": size}
    if len(magnetic) > 1:
        down = _along_longest_spread(atoms.positions, magnetic)[1::2]
        starts["antiferromagnetic"] = size.copy()
        starts["antiferromagnetic"][down] *= -1.0
    return starts


def _along_longest_spread(positions: Any, indices: Any) -> Any:
    """Indices sorted along the first principal axis of their positions; ties keep their order."""
    centred = positions[indices] - positions[indices].mean(axis=0)
    axis = np.linalg.svd(centred)[2][0]
    return indices[np.argsort(np.round(centred @ axis, 3), kind="stable")]
