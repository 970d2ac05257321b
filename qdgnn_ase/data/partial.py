"""Structures with shared sites, and compositions, as Atoms; see `qdgnn_ase.graph.sites`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from pymatgen.core import Composition, DummySpecies, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase.graph import amounts, basis

_LARGEST_FORMULA = 1000
_NEAR = 0.02
"""Atoms per formula by which a number may differ from an integer."""


def structure_atoms(structure: Structure) -> Atoms:
    """Atoms of a structure; shared and partly vacant sites keep their occupancies.

    Raises:
        ValueError: If it holds dummy species.
    """
    check_elements(structure.composition)
    if structure.is_ordered:
        return AseAtomsAdaptor.get_atoms(structure, msonable=False)
    sites = [_symbols(site.species) for site in structure]
    kinds = {tuple(site.items()): site for site in sites}
    names = list(kinds)
    atoms = Atoms(
        [max(site, key=lambda symbol: site[symbol]) for site in sites],
        positions=structure.cart_coords,
        cell=structure.lattice.matrix,
        pbc=structure.lattice.pbc,
        info={"occupancy": {str(names.index(name)): dict(kinds[name]) for name in names}},
    )
    atoms.set_array("spacegroup_kinds", np.array([names.index(tuple(s.items())) for s in sites]))
    return atoms


def composition_atoms(composition: Composition | str | Mapping[str, float]) -> Atoms:
    """Atoms that stand for a composition whose structure is not known.

    Raises:
        ValueError: If it is no composition of elements.
    """
    try:
        known = Composition(composition)
    except (TypeError, ValueError) as error:
        raise ValueError(f"formula must be one such as Li3PS4, got {composition!r:.80}") from error
    check_elements(known)
    if not known:
        raise ValueError(f"formula must hold at least one element, got {composition!r}")
    shares = _symbols(known.fractional_composition)
    atoms = Atoms(
        list(shares),
        positions=np.full((len(shares), 3), np.nan),
        info={"occupancy": {str(k): {symbol: x} for k, (symbol, x) in enumerate(shares.items())}},
    )
    atoms.set_array("spacegroup_kinds", np.arange(len(shares)))
    return atoms


def check_elements(composition: Composition) -> None:
    """Raise ValueError for species that are no elements."""
    if any(isinstance(kind, DummySpecies) for kind in composition):
        raise ValueError(f"structure must hold elements only, got {composition}")


def check_ordered(atoms: Atoms) -> None:
    """Raise ValueError unless it is a structure whose sites are one element each."""
    if basis(atoms) != "structure":
        raise ValueError(
            f"structure must have fully occupied sites, got {integer_formula(atoms)}; make an "
            "ordered one first (for example with pymatgen's OrderDisorderedStructureTransformation)"
        )


def integer_formula(atoms: Atoms) -> str:
    """Smallest formula with integers within 0.02 of the numbers of atoms, e.g. Li19NaCl20."""
    counts = amounts(atoms)
    numbers = np.flatnonzero(counts)
    fractions = counts[numbers] / counts.sum()
    per_formula = np.outer(np.arange(len(numbers), _LARGEST_FORMULA + 1), fractions)
    near = (abs(per_formula - np.round(per_formula)) < _NEAR).all(axis=1)
    near &= (np.round(per_formula) > 0).all(axis=1)
    row = np.round(per_formula[int(near.argmax()) if near.any() else -1])
    return str(
        Composition({chemical_symbols[z]: n for z, n in zip(numbers, row, strict=True)}).formula
    ).replace(" ", "")


def _symbols(composition: Any) -> dict[str, float]:
    """Share of each element in order of atomic number, oxidation states summed over."""
    shares: dict[str, float] = {}
    for kind, share in sorted(composition.items(), key=lambda item: item[0].Z):
        symbol = chemical_symbols[kind.Z]
        shares[symbol] = shares.get(symbol, 0.0) + float(share)
    return {symbol: share for symbol, share in shares.items() if share > 0}
