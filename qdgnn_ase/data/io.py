"""Read structures and their labels from any file that ASE or pymatgen reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io.formats import string2index
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray
from pymatgen.core import Composition, DummySpecies, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifParser, str2float

Array = NDArray[np.float64]
_CRYSTAL = ("species", "lattice", "frac_coords")


def read_structures(path: str | Path, index: str = ":") -> list[Atoms]:
    """All structures of a file, with stored results attached as ASE does.

    CIF files go through pymatgen, which keeps occupancies; JSON lines (``.jsonl``) hold a crystal
    each, as lattice (3, 3) in Å, species and frac_coords, the other values go to ``atoms.info``;
    everything else goes through ``ase.io.read``. All may end in ``.gz``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read or holds no usable structure.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"structure file must exist, got {path}")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".cif", ".mcif")):
        frames = _read_cif(path)[string2index(index)]
    elif name.endswith(".jsonl"):
        frames = _read_lines(path)[string2index(index)]
    else:
        frames = _read_ase(path, index)
    frames = frames if isinstance(frames, list) else [frames]
    if not frames:
        raise ValueError(f"{path} must hold at least one structure, got none")
    return frames


def _read_ase(path: Path, index: str) -> Any:
    is_xyz = path.name.removesuffix(".gz").endswith((".xyz", ".extxyz"))
    try:
        return ase.io.read(path, index, format="extxyz" if is_xyz else None)
    except StopIteration:  # the last frame of a file without frames
        return []
    except Exception as error:  # ASE's readers raise anything on a broken file
        raise ValueError(
            f"{path} must be a structure file that ASE reads, got: {error!r}"
        ) from error


def _read_lines(path: Path) -> list[Atoms]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            return [_crystal(json.loads(line)) for line in lines]
    except (KeyError, TypeError, ValueError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path} must hold a JSON object with lattice, species and frac_coords on each line, "
            f"got: {error!r}"
        ) from error


def _crystal(row: dict[str, Any]) -> Atoms:
    species, cell, scaled = (row[key] for key in _CRYSTAL)
    info = {key: value for key, value in row.items() if key not in _CRYSTAL}
    return Atoms(species, cell=cell, scaled_positions=scaled, pbc=True, info=info)


def _read_cif(path: Path) -> list[Atoms]:
    try:
        parser = CifParser(path, check_cif=False)
        structures = parser.parse_structures(primitive=False)
        blocks = parser.as_dict().values()
    except Exception as error:  # pymatgen's parser raises anything on a broken file
        raise ValueError(f"{path} must be a valid CIF, got: {error}") from error
    for block in blocks:
        _check_angles(block, path)
    formulas = [b["_chemical_formula_sum"] for b in blocks if "_chemical_formula_sum" in b]
    for structure in structures:
        _check_ordered(structure, path)
        _check_complete(structure, formulas, path)
    return [AseAtomsAdaptor.get_atoms(structure, msonable=False) for structure in structures]


def _check_angles(block: dict[str, Any], path: Path) -> None:
    """Refuse what pymatgen folds back into a cell: angles beyond 180 degrees."""
    for name in ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"):
        if name in block and not 0 < str2float(block[name]) < 180:
            raise ValueError(f"{path} must have cell angles between 0 and 180°, got {block[name]}")


def _check_ordered(structure: Structure, path: Path) -> None:
    if any(isinstance(kind, DummySpecies) for kind in structure.composition):
        raise ValueError(f"{path} must hold elements only, got {structure.composition}")
    if not structure.is_ordered:
        raise ValueError(
            f"{path} must have fully occupied sites, got {structure.composition}; make an ordered "
            "structure first (for example with pymatgen's OrderDisorderedStructureTransformation)"
        )


def _check_complete(structure: Structure, formulas: list[str], path: Path) -> None:
    """Refuse a file that was cut between two atoms: it parses, and only its formula tells."""
    found = structure.composition.fractional_composition
    try:
        wanted = [Composition(formula).fractional_composition for formula in formulas]
    except ValueError:  # "?" or another text that is no formula
        return
    if wanted and not any(found.almost_equals(formula, rtol=0.0, atol=0.01) for formula in wanted):
        raise ValueError(
            f"{path} must hold the atoms of its formula {' or '.join(formulas)}, got "
            f"{structure.composition}; it is cut off or lacks atoms (often hydrogen)"
        )


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
