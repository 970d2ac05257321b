"""ASE databases: rows of a selection, and results as rows with key-value pairs."""

from __future__ import annotations

import re
import sqlite3
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.db import connect
from ase.db.core import check
from ase.io.formats import string2index

_SUFFIX = ".db"


def split_selection(name: str | Path) -> tuple[Path, str]:
    """File and selection: ``set.db@natoms<20`` -> ``set.db``, ``natoms<20``.

    The selection has ASE's syntax: comma-separated conditions on key-value pairs, ``id``,
    ``natoms``, ``energy``, elements ..., or a place (``0``, ``-1``, ``:10``). It is "" where the
    name has none.
    """
    stem, mark, selection = str(name).partition(f"{_SUFFIX}@")
    if not mark or Path(name).exists():
        return Path(name), ""
    return Path(stem + _SUFFIX), selection


def read_database(path: Path, selection: str = "", index: str = ":") -> list[Atoms]:
    """Structures of the selected rows with their stored results; id and key-value pairs in info.

    Args:
        path: ASE database.
        selection: See `split_selection`.
        index: Places among the selected rows, as in ``ase.io.read``.

    Raises:
        ValueError: If the database is damaged or no row is selected.
    """
    try:
        rows = _select(path, selection)
        return [_atoms(row) for row in _at(rows, index)]
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} must be an ASE database, got a damaged one: {error}") from error


def _select(path: Path, selection: str) -> list[Any]:
    is_place = re.fullmatch(r"-?\d*(:-?\d*){0,2}", selection)
    rows = _query(path, "" if is_place else selection)
    if selection and is_place:
        rows = _at(rows, selection)
    if not rows:
        keys = sorted({key for row in connect(path).select() for key in row.key_value_pairs})
        wanted = f"a row of the selection {selection!r}" if selection else "at least one structure"
        raise ValueError(f"{path} must hold {wanted}, got none; its keys are {keys}")
    return rows


def _query(path: Path, selection: str) -> list[Any]:
    try:
        return list(connect(path).select(selection))
    except ValueError as error:
        raise ValueError(
            f"{path} must come with a selection of ASE's syntax, got {selection!r}: {error}"
        ) from error


def _at(rows: list[Any], index: str) -> list[Any]:
    place = string2index(index)
    return rows[place] if isinstance(place, slice) else rows[place : place + 1 or None]


def _atoms(row: Any) -> Atoms:
    atoms = row.toatoms()
    atoms.info = {"id": row.id, **row.key_value_pairs}
    return atoms


Rows = Iterable[tuple[Atoms, Mapping[str, float | str]]]


def append_rows(path: Path, rows: Rows) -> None:
    """Add structures with their stored results, what is in their info, and further pairs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = connect(path, type="db")
    for atoms, values in rows:
        pairs = {"source_id" if key == "id" else key: value for key, value in atoms.info.items()}
        storable = {key: value for key, value in pairs.items() if _is_storable(key, value)}
        rest = {key: value for key, value in pairs.items() if key not in storable}
        database.write(atoms, key_value_pairs=storable | dict(values), data=rest)


def write_rows(path: Path, rows: Rows) -> None:
    """Write a new database, whole or not at all.

    Raises:
        FileExistsError: If there is a file already.
    """
    check_new(path)
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)
    append_rows(beside, rows)
    beside.replace(path)


def check_new(path: Path) -> None:
    """Refuse a name that `write_rows` could not write.

    Raises:
        ValueError: If it does not end in .db.
        FileExistsError: If there is a file already.
    """
    if path.suffix != _SUFFIX:
        raise ValueError(f"database must end in {_SUFFIX}, got {path}")
    if path.exists():
        raise FileExistsError(f"{path} must be a new file, got one that exists")


def stored_values(path: Path, key: str) -> set[Any]:
    """Values of a key in a database, none where there is no file."""
    return {row[key] for row in connect(path).select(key)} if path.exists() else set()


def _is_storable(key: str, value: Any) -> bool:
    """ASE refuses names of elements and texts that look like numbers, and warns of formulas."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            check({key: value})
        except (ValueError, UserWarning):
            return False
    return True
