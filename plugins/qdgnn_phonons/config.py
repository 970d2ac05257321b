"""How phonons are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["finite", "symfc"]
"""Displacements of single atoms by symmetry, or a fit (symfc) to random displacements of all."""


@dataclass(frozen=True, kw_only=True)
class PhononConfig:
    """Numerical settings of a phonon calculation."""

    supercell: tuple[int, int, int] | None = None
    """Multiples of the cell; None chooses them by ``min_length``."""
    min_length: float = 10.0
    """Å. Least distance of opposite faces of the supercell: force constants beyond half of it are
    folded back."""
    method: Method = "finite"
    """How the force constants are found."""
    displacement: float = 0.01
    """Å. Size of the displacements."""
    random_sets: int | None = None
    """Random supercells of "symfc"; None is phonopy's estimate of how many are needed."""
    seed: int = 0
    """Seed of the random displacements."""
    fmax: float = 1e-5
    """eV/Å. Largest force after the relaxation."""
    max_residual: float = 1e-3
    """eV/Å. Largest force on the undisplaced supercell; it is subtracted from the others."""
    relaxation_steps: int = 500
    """Most steps of the relaxation."""
    symmetry_tolerance: float = 1e-3
    """Å. Tolerance for finding the space group that the relaxation keeps."""

    def __post_init__(self) -> None:
        for name in ("min_length", "displacement", "fmax", "max_residual", "symmetry_tolerance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be larger than 0, got {getattr(self, name)}")
        if self.supercell is not None and min(self.supercell) < 1:
            raise ValueError(f"supercell must be three numbers from 1 up, got {self.supercell}")
        if self.method not in ("finite", "symfc"):
            raise ValueError(f"method must be 'finite' or 'symfc', got {self.method!r}")
