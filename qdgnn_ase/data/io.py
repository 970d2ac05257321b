"""Read structures and their labels from any file that ASE or pymatgen reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray
from pymatgen.core import DummySpecies, Structure
from pymatgen.io.ase import AseAtomsAdaptor

Array = NDArray[np.float64]


def read_structures(path: str | Path, index: str = ":") -> list[Atoms]:
    """All structures of a file, with stored results attached as ASE does.

    CIF files go through pymatgen, which keeps occupancies; everything else through ``ase.io.read``
    (``.gz`` too).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read or holds no usable structure.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"structure file must exist, got {path}")
    name = path.name.removesuffix(".gz")
    if name.endswith((".cif", ".mcif")):
        return [_read_cif(path)]
    form = "extxyz" if name.endswith((".xyz", ".extxyz")) else None
    try:
        frames = ase.io.read(path, index, format=form)
    except Exception as error:  # ASE's readers raise anything on a broken file
        raise ValueError(
            f"{path} must be a structure file that ASE reads, got: {error!r}"
        ) from error
    frames = frames if isinstance(frames, list) else [frames]
    if not frames:
        raise ValueError(f"{path} must hold at least one structure, got none")
    return frames


def _read_cif(path: Path) -> Atoms:
    try:
        structure = Structure.from_file(path)
    except Exception as error:  # pymatgen's parser raises anything on a broken file
        raise ValueError(f"{path} must be a valid CIF, got: {error}") from error
    if any(isinstance(kind, DummySpecies) for kind in structure.composition):
        raise ValueError(f"{path} must hold elements only, got {structure.composition}")
    if not structure.is_ordered:
        raise ValueError(
            f"{path} must have fully occupied sites, got {structure.composition}; make an ordered "
            "structure first (for example with pymatgen's OrderDisorderedStructureTransformation)"
        )
    return AseAtomsAdaptor.get_atoms(structure, msonable=False)


def labels(atoms: Atoms) -> dict[str, Array]:
    """Stored results: energy () eV, forces (n_atoms, 3) eV/Å, stress (3, 3) eV/Å^3; NaN = missing.

    Read them before ``atoms`` is changed: ASE drops results of other positions.
    """
    stress = _stored(atoms, "stress", (6,))
    return {
        "energy": _stored(atoms, "energy", ()),
        "forces": _stored(atoms, "forces", (len(atoms), 3)),
        "stress": voigt_6_to_full_3x3_stress(stress),
    }


def _stored(atoms: Atoms, name: str, shape: tuple[int, ...]) -> Array:
    if atoms.calc is None:
        return np.full(shape, np.nan)
    try:
        value = atoms.calc.get_property(name, atoms, allow_calculation=False)
    except PropertyNotImplementedError:
        value = None
    if value is None:
        return np.full(shape, np.nan)
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"stored {name} must have shape {shape}, got {array.shape}")
    return array


def iter_files(paths: list[Path]) -> Iterator[tuple[Path, int, Atoms]]:
    """(path, index in the file, structure) of every structure of several files."""
    for path in paths:
        for index, atoms in enumerate(read_structures(path)):
            yield path, index, atoms
