"""Read structures and their labels from any file that ASE or pymatgen reads."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io.formats import string2index
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray
from pymatgen.core import Composition, Structure
from pymatgen.io.cif import CifParser, str2float

from qdgnn_ase.data.database import read_database, split_selection
from qdgnn_ase.data.exports import crystal, with_values
from qdgnn_ase.data.partial import check_ordered, structure_atoms

Array = NDArray[np.float64]


def read_structures(path: str | Path, index: str = ":", *, partial: bool = False) -> list[Atoms]:
    """All structures of a file, with stored results attached as ASE does.

    CIF files go through pymatgen, which keeps occupancies. JSON lines (``.jsonl``), a JSON list, a
    JSON object with a list "data", CSV (columns with the same names; a column cif holds a whole
    file) and Parquet have a crystal in each row, in a form of `qdgnn_ase.data.exports`; the other
    values go to ``atoms.info``. An ASE database may come with a selection, ``set.db@natoms<20``;
    id and key-value pairs of its rows go to ``atoms.info`` too. Everything else goes through
    ``ase.io.read``. All but Parquet and databases may end in ``.gz``.

    Args:
        path: The file.
        index: Frames, as ``ase.io.read`` takes them.
        partial: Take what a property model can use and a potential cannot, in the form of
            `qdgnn_ase.graph.sites`: structures with shared or partly vacant sites, and rows of
            tables that have a formula (column formula or composition) and no structure.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read or holds no usable structure.
    """
    path, selection = split_selection(path)
    if not path.is_file():
        raise FileNotFoundError(f"structure file must exist, got {path}")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".cif", ".mcif")):
        frames = _read_cif(path, partial)[string2index(index)]
    elif name.endswith(".db"):
        frames = read_database(path, selection, index)
    elif (rows := _rows(path, name)) is not None:
        frames = _crystals(path, rows, partial)[string2index(index)]
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


def _rows(path: Path, name: str) -> list[dict[str, Any]] | None:
    """Rows of a table or export; None for a file of another kind."""
    readers = {".jsonl": _json_lines, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet}
    for suffix, reader in readers.items():
        if name.endswith(suffix):
            try:
                return reader(path)
            except (ValueError, EOFError, gzip.BadGzipFile) as error:
                raise ValueError(f"{path} must be a valid {suffix} file, got: {error}") from error
    return None


def _open(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _json_lines(path: Path) -> list[dict[str, Any]]:
    with _open(path) as lines:
        return [_json_row(line, k + 1) for k, line in enumerate(lines) if line.strip()]


def _json_row(line: str, number: int) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error
    return row


def _json_rows(path: Path) -> list[dict[str, Any]] | None:
    """Rows of an export; None for ASE's own JSON."""
    with _open(path) as text:
        document = json.load(text)
    rows: Any = document.get("data") if isinstance(document, dict) else document
    return rows if isinstance(rows, list) else None


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    csv.field_size_limit(10_000_000)  # a cell holds a structure
    with _open(path) as lines:
        return [_without_empty(row) for row in csv.DictReader(lines)]


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pandas

        table = pandas.read_parquet(path)
    except ImportError as error:  # of pandas, or of what it reads with
        raise ValueError("pandas and pyarrow read it: pip install 'qdgnn-ase[tables]'") from error
    rows: list[dict[str, Any]] = table.to_dict("records")
    return rows


def _without_empty(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value != ""}


def _crystals(path: Path, rows: list[dict[str, Any]], partial: bool) -> list[Atoms]:
    frames = []
    for k, row in enumerate(rows):
        try:
            frames.append(_crystal(row, partial))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, row {k + 1} must hold a crystal, got: {error}") from error
    return frames


def _crystal(row: dict[str, Any], partial: bool) -> Atoms:
    if not isinstance(row, dict) or row.get("cif") is None:
        return crystal(row, partial=partial)
    atoms = _cif_frames(lambda: CifParser.from_str(row["cif"], check_cif=False), partial)[0]
    return with_values(atoms, row, ("cif",), partial=partial)


def _read_cif(path: Path, partial: bool) -> list[Atoms]:
    try:
        return _cif_frames(lambda: CifParser(path, check_cif=False), partial)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _cif_frames(open_parser: Callable[[], CifParser], partial: bool) -> list[Atoms]:
    try:
        parser = open_parser()
        structures = parser.parse_structures(primitive=False)
        blocks = parser.as_dict().values()
    except Exception as error:  # pymatgen's parser raises anything on a broken file
        raise ValueError(f"file must be a valid CIF, got: {error}") from error
    for block in blocks:
        _check_angles(block)
    formulas = [b["_chemical_formula_sum"] for b in blocks if "_chemical_formula_sum" in b]
    frames = [structure_atoms(structure) for structure in structures]
    for atoms in () if partial else frames:  # before the formula, which may not tell of vacancies
        check_ordered(atoms)
    for structure in structures:
        _check_complete(structure, formulas)
    return frames


def _check_angles(block: dict[str, Any]) -> None:
    """Refuse what pymatgen folds back into a cell: angles beyond 180 degrees."""
    for name in ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"):
        if name in block and not 0 < str2float(block[name]) < 180:
            raise ValueError(
                f"structure must have cell angles between 0 and 180°, got {block[name]}"
            )


def _check_complete(structure: Structure, formulas: list[str]) -> None:
    """Refuse a file that was cut between two atoms: it parses, and only its formula tells."""
    found = structure.composition.fractional_composition
    try:
        wanted = [Composition(formula).fractional_composition for formula in formulas]
    except ValueError:  # "?" or another text that is no formula
        return
    if wanted and not any(found.almost_equals(formula, rtol=0.0, atol=0.01) for formula in wanted):
        raise ValueError(
            f"structure must hold the atoms of its formula {' or '.join(formulas)}, got "
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
