"""What people have at hand -> Atoms: one conversion for all that `predict` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ase import Atoms
from pymatgen.core import Composition, Structure

from qdgnn_ase.data.exports import crystal
from qdgnn_ase.data.partial import composition_atoms, structure_atoms

Material: TypeAlias = Atoms | Structure | Composition | str | Mapping[str, Any]
"""Atoms, a pymatgen structure (disordered or not) or its dict, a row of `qdgnn_ase.data.exports`, a
composition, a formula."""


def as_atoms(material: Material) -> Atoms:
    """Atoms of a structure, disordered structure or composition.

    Raises:
        ValueError: If it is none of these, or not valid.
    """
    if isinstance(material, Atoms):
        return material
    if isinstance(material, Structure):
        return structure_atoms(material)
    if isinstance(material, str | Composition):
        return composition_atoms(material)
    if not isinstance(material, Mapping):
        raise ValueError(
            "a material must be Atoms, a pymatgen Structure or its dict, a Composition or a "
            f"formula, got {type(material).__name__}"
        )
    if {"lattice", "sites"} <= set(material):
        return structure_atoms(Structure.from_dict(dict(material)))
    return crystal(material, partial=True)
