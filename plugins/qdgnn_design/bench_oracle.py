"""ASE's EMT as the exact oracle of the benchmark: alloys, and strained cells with defects."""

from __future__ import annotations

from functools import cache

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.data import atomic_numbers, reference_states
from numpy.typing import NDArray
from pymatgen.optimization.neighbors import find_points_in_spheres

Array = NDArray[np.float64]

LATTICE = 3.95
"""Å, of the fcc start of the alloy; between those of the seven elements."""


def emt_values(atoms: Atoms, strain: float = 0.02) -> dict[str, float]:
    """Formation energy (eV/atom) and bulk modulus (GPa) by EMT.

    From the parabola through the energies at three lattice parameters about that of Vegard's law.
    """
    mean = float(np.mean([_element(symbol)[0] for symbol in atoms.symbols]))
    lattice = (4 * atoms.cell.volume / len(atoms)) ** (1 / 3)
    energy, modulus, _ = _parabola(atoms, mean / lattice, strain)
    reference = float(np.mean([_element(symbol)[1] for symbol in atoms.symbols]))
    return {"formation_energy": energy - reference, "bulk_modulus": modulus}


def strained_modulus(atoms: Atoms, strain: float = 5e-3) -> float:
    """Bulk modulus V d2E/dV2 in GPa by EMT of a cell as it is strained, sites not relaxed."""
    curvature, _, _, volume = _fit(atoms, 1.0, strain)
    return float(2 * curvature * volume / units.GPa)


class FastEMT(EMT):  # type: ignore[misc] # ASE is untyped
    """ASE's EMT with pymatgen's neighbour search: the same numbers, several times faster."""

    def initialize(self, atoms: Atoms) -> None:
        """Parameters of the elements, and the neighbour list."""
        super().initialize(atoms)
        self.nl = _Neighbors(self.rc_list)


class _Neighbors:
    """What EMT asks of a neighbour list."""

    def __init__(self, cutoff: float) -> None:
        self._cutoff = cutoff

    def update(self, atoms: Atoms) -> None:
        points = np.ascontiguousarray(atoms.positions)
        self._center, self._neighbor, self._image, distance = find_points_in_spheres(
            points, points, self._cutoff, np.ones(3, dtype=np.int64), atoms.cell.array, tol=1e-8
        )
        self._real = distance > 1e-8

    def get_neighbors(self, index: int) -> tuple[NDArray[np.int64], Array]:
        chosen = (self._center == index) & self._real
        return self._neighbor[chosen], self._image[chosen]


def _parabola(atoms: Atoms, scale: float, strain: float) -> tuple[float, float, float]:
    """Energy per atom at the minimum (eV), bulk modulus (GPa), volume per atom (Å^3)."""
    curvature, slope, constant, _ = _fit(atoms, scale, strain)
    volume = -slope / (2 * curvature)
    energy = constant + slope * volume + curvature * volume**2
    return energy, float(2 * curvature * volume / units.GPa), volume


def _fit(atoms: Atoms, scale: float, strain: float) -> tuple[float, float, float, float]:
    """Parabola of the energy (eV) over the volume (Å^3), and the middle volume; per atom."""
    volumes, energies = [], []
    for factor in (1 - strain, 1.0, 1 + strain):
        copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        copy.set_cell(atoms.cell.array * scale * factor, scale_atoms=True)
        copy.calc = FastEMT()
        volumes.append(copy.cell.volume / len(atoms))
        energies.append(copy.get_potential_energy() / len(atoms))
    curvature, slope, constant = np.polyfit(volumes, energies, 2).tolist()
    return curvature, slope, constant, volumes[1]


@cache
def _element(symbol: str) -> tuple[float, float]:
    """Lattice parameter (Å) and energy (eV/atom) of the fcc element by EMT."""
    scale = reference_states[atomic_numbers[symbol]]["a"] / LATTICE
    atoms = bulk(symbol, "fcc", a=LATTICE)
    for _ in range(5):
        energy, _, volume = _parabola(atoms, scale, 0.02)
        scale = (4 * volume) ** (1 / 3) / LATTICE
    return LATTICE * scale, energy
