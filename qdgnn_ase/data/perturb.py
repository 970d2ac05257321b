"""Random changes of a structure: pure functions ``(Atoms, rng) -> Atoms``.

Each returns a new object without calculator and leaves its argument alone. They make training
frames (rattled, strained, substituted crystals) and are the actions of materials design.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.neighborlist import neighbor_list
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float64]

ISOVALENT: tuple[tuple[str, ...], ...] = tuple(
    tuple(group.split())
    for group in (
        "Li Na K Rb Cs",
        "Be Mg Ca Sr Ba",
        "Sc Y La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu",
        "Ce Th U Np Pu",
        "Ti Zr Hf",
        "V Nb Ta",
        "Cr Mo W",
        "Mn Tc Re",
        "Ti V Cr Mn Fe Co Ni",
        "Fe Ru Os",
        "Co Rh Ir",
        "Ni Pd Pt",
        "Cu Ag Au",
        "Mg Zn Cd Hg",
        "B Al Ga In Tl",
        "C Si Ge Sn Pb",
        "N P As Sb Bi",
        "O S Se Te",
        "F Cl Br I",
    )
)
"""Elements that replace each other: same group of the periodic table, or same usual charge."""


def scale_volume(atoms: Atoms, factor: float) -> Atoms:
    """Copy with ``factor`` times the volume, same fractional coordinates.

    Raises:
        ValueError: If the factor is not positive or there is no cell.
    """
    if not factor > 0:
        raise ValueError(f"volume factor must be > 0, got {factor}")
    return _deformed(atoms, np.eye(3) * factor ** (1 / 3))


def strain(atoms: Atoms, rng: Generator, volume: float = 0.1, shear: float = 0.05) -> Atoms:
    """Random strain: relative volume change within ``±volume`` and a volume-conserving rest.

    Args:
        atoms: Structure with three cell vectors; fractional coordinates stay.
        rng: Random numbers.
        volume: Largest relative change of the volume, below 1.
        shear: Largest component of the symmetric strain that changes the shape.

    Raises:
        ValueError: If a bound is out of range or there is no cell.
    """
    if not (0 <= volume < 1 and 0 <= shear < 0.3):
        raise ValueError(
            f"volume must be in [0, 1) and shear in [0, 0.3), got {volume} and {shear}"
        )
    shape = np.eye(3) + _symmetric(rng.uniform(-shear, shear, size=6))
    factor = 1 + rng.uniform(-volume, volume)
    return _deformed(atoms, shape * (factor / np.linalg.det(shape)) ** (1 / 3))


def rattle(atoms: Atoms, rng: Generator, stdev: float) -> Atoms:
    """Positions moved by Gaussian noise of ``stdev`` Å per component.

    Raises:
        ValueError: If ``stdev`` is negative.
    """
    if not stdev >= 0:
        raise ValueError(f"stdev must be >= 0 Å, got {stdev}")
    changed = _copy(atoms)
    changed.positions += rng.normal(0.0, stdev, size=(len(atoms), 3))
    return changed


def substitute(
    atoms: Atoms,
    rng: Generator,
    groups: Sequence[Sequence[str]] = ISOVALENT,
    *,
    whole_species: bool = True,
) -> Atoms:
    """Another element of the same group on all sites of one species, or on one site.

    Cell and positions stay; see `size_ratio` for the volume that the new atoms want.

    Raises:
        ValueError: If no element of the structure is in a group of at least two.
    """
    partners = {
        symbol: sorted({e for group in groups if symbol in group for e in group} - {symbol})
        for symbol in sorted(set(atoms.get_chemical_symbols()))
    }
    candidates = [symbol for symbol, others in partners.items() if others]
    if not candidates:
        raise ValueError(
            f"one element must be in a group with others, got {sorted(partners)}; pass `groups`"
        )
    old = candidates[rng.integers(len(candidates))]
    new = partners[old][rng.integers(len(partners[old]))]
    sites = np.flatnonzero(atoms.numbers == chemical_symbols.index(old))
    changed = _copy(atoms)
    changed.numbers[sites if whole_species else rng.choice(sites, 1)] = chemical_symbols.index(new)
    return changed


def size_ratio(new: Atoms, old: Atoms) -> float:
    """Volume factor that keeps the packing: mean covalent radii, cubed."""
    radii = covalent_radii[new.numbers].mean() / covalent_radii[old.numbers].mean()
    return float(radii**3)


def vacancy(atoms: Atoms, rng: Generator, symbol: str | None = None) -> Atoms:
    """One random atom less (of the element ``symbol`` if given).

    Raises:
        ValueError: If no atom would remain, or none is of that element.
    """
    symbols = atoms.get_chemical_symbols()
    sites = [i for i, name in enumerate(symbols) if symbol in (None, name)]
    if len(atoms) < 2 or not sites:
        raise ValueError(
            f"a vacancy needs at least 2 atoms and one {symbol or 'atom'}, got {atoms.symbols}"
        )
    changed = _copy(atoms)
    del changed[sites[rng.integers(len(sites))]]
    return changed


def swap(atoms: Atoms, rng: Generator) -> Atoms:
    """Two random atoms of different elements change places.

    Raises:
        ValueError: If there is one element only.
    """
    if len(set(atoms.numbers)) < 2:
        raise ValueError(f"a swap needs at least 2 elements, got {atoms.symbols}")
    first = rng.integers(len(atoms))
    second = rng.choice(np.flatnonzero(atoms.numbers != atoms.numbers[first]))
    changed = _copy(atoms)
    changed.numbers[[first, second]] = atoms.numbers[[second, first]]
    return changed


def is_plausible(atoms: Atoms, ratio: float = 0.6) -> bool:
    """Whether every distance is at least ``ratio`` times the sum of the covalent radii."""
    if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
        return False
    bounds = ratio * covalent_radii[atoms.numbers]
    return len(neighbor_list("i", atoms, bounds, self_interaction=False)) == 0


def _copy(atoms: Atoms) -> Atoms:
    changed = atoms.copy()
    changed.calc = None
    return changed


def _symmetric(values: Array) -> Array:
    xx, yy, zz, yz, xz, xy = values
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _deformed(atoms: Atoms, deformation: Array) -> Atoms:
    if atoms.cell.rank < 3:
        raise ValueError(f"structure must have three cell vectors, got {atoms.cell.array.tolist()}")
    changed = _copy(atoms)
    changed.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    return changed
