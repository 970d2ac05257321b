"""Structures of the speed benchmark: MgO of any size, a real lithium garnet, and NaCl.

MgO is a dense cell with many neighbours; NaCl, where the peers have few triplets, a favourable one.
"""

from __future__ import annotations

from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

GARNET = 192
"""Atoms of the garnet's conventional cell: this size asks for it."""
SALT = 216
"""Atoms of 3 x 3 x 3 cells of NaCl: this size asks for them."""

_RATTLE = 0.05
"""Å."""


def speed_cell(n_atoms: int) -> Atoms:
    """MgO with ``n_atoms`` atoms, or Li7La3Zr2O12 for 192, NaCl for 216; rattled by 0.05 Å.

    Raises:
        ValueError: If ``n_atoms`` is no multiple of 8.
    """
    if n_atoms < 8 or n_atoms % 8:
        raise ValueError(f"sizes must be multiples of the 8 atoms of a MgO cell, got {n_atoms}")
    special = {GARNET: garnet, SALT: salt}
    atoms = special[n_atoms]() if n_atoms in special else _rocksalt(n_atoms // 8)
    atoms.rattle(_RATTLE, seed=n_atoms)
    return atoms


def garnet() -> Atoms:
    """Tetragonal Li7La3Zr2O12, I4_1/acd, 192 atoms: all sites full, lithium ordered.

    Awaka et al., J. Solid State Chem. 182, 2046 (2009).
    """
    sites = {
        "Li1": (0.0, 0.25, 0.375),  # 8a
        "Li2": (0.1813, 0.4313, 0.125),  # 16f
        "Li3": (0.0796, 0.0855, 0.8056),  # 32g
        "La1": (0.0, 0.25, 0.125),  # 8b
        "La2": (0.1270, 0.0, 0.25),  # 16e
        "Zr1": (0.0, 0.0, 0.0),  # 16c
        "O1": (-0.0335, 0.0546, 0.1529),  # 32g
        "O2": (0.0528, 0.8525, 0.5346),  # 32g
        "O3": (0.1498, 0.0278, 0.4463),  # 32g
    }
    atoms: Atoms = crystal(
        [name.rstrip("123") for name in sites],
        basis=list(sites.values()),
        spacegroup=142,
        setting=2,
        cellpar=[13.134, 13.134, 12.663, 90, 90, 90],
    )
    atoms.info.clear()
    return atoms


def salt() -> Atoms:
    """NaCl, 216 atoms."""
    atoms: Atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(3)
    return atoms


def _rocksalt(n_cells: int) -> Atoms:
    """The least elongated block of ``n_cells`` cubic cells."""
    blocks = [
        (a, b, n_cells // (a * b))
        for a in range(1, round(n_cells ** (1 / 3)) + 1)
        if n_cells % a == 0
        for b in range(a, round((n_cells / a) ** 0.5) + 1)
        if n_cells // a % b == 0
    ]
    return bulk("MgO", "rocksalt", a=4.21, cubic=True).repeat(
        min(blocks, key=lambda block: block[2] / block[0])
    )
