"""Actions on the cell: volume, lengths and shears."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_ase import scale_volume, size_ratio
from qdgnn_design.actions import Action

Array = NDArray[np.float64]


def deform(name: str, deformation: Array, start: Atoms, limit: float) -> Action:
    """Cell vectors times ``deformation`` (3, 3), fractional coordinates stay.

    Allowed while no principal strain against the start, at the volume that the elements want, is
    beyond ``limit``.
    """

    def apply(atoms: Atoms, _: Generator) -> Atoms:
        if np.allclose(deformation, deformation[0, 0] * np.eye(3)):
            return scale_volume(atoms, float(np.linalg.det(deformation)))
        changed = atoms.copy()
        changed.calc = None
        changed.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        return changed

    def allowed(atoms: Atoms) -> bool:
        scale = size_ratio(atoms, start) ** (1 / 3)
        gradient = np.linalg.solve(start.cell.array * scale, atoms.cell.array @ deformation)
        stretches = np.linalg.svd(gradient, compute_uv=False)
        return bool(np.abs(stretches - 1).max() <= limit + 1e-9)

    return Action(name, apply, allowed)


def deformations(step: float) -> dict[str, Array]:
    """Elementary deformations by name: volume, the three axes and the three shears, both ways."""
    table = {}
    for sign in (1, -1):
        percent = f"{100 * sign * step:+.0f} %"
        table[f"all lengths {percent}"] = np.eye(3) * (1 + sign * step)
        for axis, name in enumerate("xyz"):
            table[f"length {name} {percent}"] = np.eye(3) + np.diag(np.eye(3)[axis] * sign * step)
        for i, j in ((1, 2), (0, 2), (0, 1)):
            shear = np.eye(3)
            shear[i, j] = shear[j, i] = sign * step / 2
            table[f"shear {'xyz'[i]}{'xyz'[j]} {percent}"] = shear
    return table
