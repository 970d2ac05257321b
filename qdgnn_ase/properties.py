"""Properties of a material: names, units, scales. A new target is one row of `PROPERTIES`.

Extensive properties are given per atom, so that a supercell has the value of its cell. The
formulas of derived properties stand below; K and G are bulk and shear modulus (Voigt-Reuss-Hill).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """What a name stands for."""

    name: str
    unit: str
    description: str
    pooling: Literal["atoms", "structure"] = "structure"
    """Mean of contributions of the atoms, or a function of the pooled structure."""
    scale: Literal["linear", "log10", "probability"] = "linear"
    """How it is learned. Labels of a probability are 0 or 1."""
    lower: float = -inf
    """Values below it are impossible."""
    derived: bool = False
    """Computed from other properties, never learned."""


def _table(*rows: Property) -> dict[str, Property]:
    return {row.name: row for row in rows}


PROPERTIES = _table(
    Property(
        name="formation_energy",
        unit="eV/atom",
        description="formation energy from the elements (DFT, 0 K)",
        pooling="atoms",
    ),
    Property(
        name="energy_above_hull",
        unit="eV/atom",
        description="energy above the convex hull of competing phases (DFT, 0 K)",
        pooling="atoms",
        lower=0.0,
    ),
    Property(
        name="band_gap",
        unit="eV",
        description="Kohn-Sham band gap of the training data's functional; 0 for a metal",
        lower=0.0,
    ),
    Property(
        name="metal_probability",
        unit="1",
        description="probability of a band gap of 0",
        scale="probability",
        lower=0.0,
    ),
    Property(
        name="bulk_modulus",
        unit="GPa",
        description="bulk modulus K, Voigt-Reuss-Hill",
        scale="log10",
        lower=0.0,
    ),
    Property(
        name="shear_modulus",
        unit="GPa",
        description="shear modulus G, Voigt-Reuss-Hill",
        scale="log10",
        lower=0.0,
    ),
    Property(
        name="last_phonon_peak",
        unit="cm^-1",
        description="highest-frequency peak of the phonon density of states",
        scale="log10",
        lower=0.0,
    ),
    Property(
        name="ionic_conductivity",
        unit="S/cm",
        description="ionic conductivity at 25 °C",
        scale="log10",
        lower=0.0,
    ),
    Property(
        name="heat_capacity",
        unit="J/(mol K)",
        description="heat capacity at constant volume per mole of atoms, at a temperature that is "
        "given as a condition; for labels of your own",
        pooling="atoms",
        lower=0.0,
    ),
    Property(
        name="thermal_stability",
        unit="°C",
        description="decomposition temperature; for labels of your own",
        lower=-273.15,
    ),
    Property(
        name="cohesive_energy",
        unit="eV/atom",
        description="energy to free atoms: measured cohesive energies of the elements (298 K) less "
        "the formation energy",
        derived=True,
    ),
    Property(
        name="young_modulus",
        unit="GPa",
        description="E = 9 K G / (3 K + G)",
        lower=0.0,
        derived=True,
    ),
    Property(
        name="poisson_ratio",
        unit="1",
        description="(3 K - 2 G) / (2 (3 K + G))",
        lower=-1.0,
        derived=True,
    ),
    Property(
        name="debye_temperature",
        unit="K",
        description="from the mean sound velocity of K, G and the density (Anderson 1963)",
        lower=0.0,
        derived=True,
    ),
    Property(
        name="lindemann_temperature",
        unit="°C",
        description="temperature at which the root mean square displacement of the Debye model is "
        "a tenth of the shortest bond: an estimate of melting, not of decomposition",
        lower=-273.15,
        derived=True,
    ),
)
LEARNED = tuple(name for name, row in PROPERTIES.items() if not row.derived)


def learned_property(name: str) -> Property:
    """Row of a property that a model can learn.

    Raises:
        ValueError: If there is none of that name, or it is derived from others.
    """
    if name not in LEARNED:
        raise ValueError(f"target must be one of {list(LEARNED)}, got {name!r}")
    return PROPERTIES[name]
