"""Structures with labels of properties: tables, extxyz, ASE databases, CGCNN's CIF folders.

A column is a key of a row of JSON lines, JSON, CSV or Parquet (`qdgnn_ase.data.exports` lists the
forms of structures), of extxyz's comment line, of a row of an ASE database, or the number of a
column of ``id_prop.csv`` (1 is the first after the id). ``log10:NAME`` is a column that holds the
decimal logarithm of the property. Empty, null, NaN and "na" (JARVIS) are missing labels. "<1e-10"
is a censored label, known to be below that only; who asks for ``bounds`` gets it.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from qdgnn_ase.data.database import split_selection
from qdgnn_ase.data.io import read_structures
from qdgnn_ase.properties import learned_property

log = logging.getLogger(__name__)

_LOG10 = "log10:"


@dataclass(frozen=True, slots=True)
class LabelledStructure:
    """A structure and what is known about it."""

    atoms: Atoms
    labels: dict[str, float]
    """Property -> value in its unit; NaN = missing."""
    name: str
    """File and place in it, for messages."""
    conditions: dict[str, float] = field(default_factory=dict)
    """Name -> value; NaN = absent."""
    censored: frozenset[str] = frozenset()
    """Properties whose label is an upper bound."""


def read_labelled(
    path: str | Path,
    columns: Mapping[str, str],
    *,
    partial: bool = False,
    conditions: Mapping[str, str] | None = None,
    bounds: bool = False,
) -> list[LabelledStructure]:
    """`read_columns` for names of `qdgnn_ase.PROPERTIES` that can be learned.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a name is no such property, or as `read_columns`.
    """
    for name in columns:
        learned_property(name)
    return read_columns(path, columns, partial=partial, conditions=conditions, bounds=bounds)


def read_columns(
    path: str | Path,
    columns: Mapping[str, str],
    *,
    partial: bool = False,
    conditions: Mapping[str, str] | None = None,
    bounds: bool = False,
) -> list[LabelledStructure]:
    """Structures of a file or CIF folder with the labels of some columns.

    Args:
        path: A file that `read_structures` reads, or a folder with ``id_prop.csv`` and a CIF for
            each id (CGCNN's form). A CIF that cannot be read is left out with a logged warning.
        columns: Name of the label -> column, e.g. ``{"bulk_modulus": "log10:log10_K_VRH"}``.
        partial: Take disordered structures, and rows with a formula and no structure.
        conditions: Name of a condition -> column.
        bounds: Take labels such as "<1e-10", which ``LabelledStructure.censored`` tells.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is in no row, a value is no finite number, or a file is damaged.
            The message names file and row.
    """
    path = Path(path)
    if not split_selection(path)[0].exists():
        raise FileNotFoundError(f"labelled file must exist, got {path}")
    rows = list(_folder_rows(path, partial) if path.is_dir() else _file_rows(path, partial))
    known = {key for _, _, values in rows for key in values}
    conditions = conditions or {}
    for name, column in (*columns.items(), *conditions.items()):
        if column.removeprefix(_LOG10) not in known:
            raise ValueError(
                f"{path} must have a column {column.removeprefix(_LOG10)!r} for {name}, got "
                f"{sorted(known)}"
            )
    return [
        LabelledStructure(
            atoms,
            _values(values, columns, f"{path}, {place}", bounds),
            f"{path.name}, {place}",
            _values(values, conditions, f"{path}, {place}"),
            frozenset(name for name, column in columns.items() if _is_bound(values, column)),
        )
        for place, atoms, values in rows
    ]


_Row = tuple[str, Atoms, Mapping[str, Any]]
"""Place in the file, structure, columns."""


def _file_rows(path: Path, partial: bool) -> Iterator[_Row]:
    is_database = split_selection(path)[0].suffix == ".db"
    for k, atoms in enumerate(read_structures(path, partial=partial)):
        yield f"id {atoms.info['id']}" if is_database else f"row {k + 1}", atoms, atoms.info


def _folder_rows(folder: Path, partial: bool) -> Iterator[_Row]:
    table = folder / "id_prop.csv"
    if not table.is_file():
        raise FileNotFoundError(f"folder must hold id_prop.csv and CIF files, got {folder}")
    with table.open(encoding="utf-8", newline="") as lines:
        entries = [row for row in csv.reader(lines) if row]
    counts = Counter(row[0] for row in entries)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise ValueError(f"{table} must name each structure once, got twice: {', '.join(twice)}")
    left_out = 0
    for name, *values in entries:
        try:
            atoms = read_structures(folder / f"{name}.cif", partial=partial)[0]
        except (FileNotFoundError, ValueError) as error:
            log.warning("left out: %s", error)
            left_out += 1
            continue
        yield f"id {name}", atoms, {str(k + 1): value for k, value in enumerate(values)}
    log.info("%s: %d of %d structures read", folder, len(entries) - left_out, len(entries))


def _is_bound(values: Mapping[str, Any], column: str) -> bool:
    return str(values.get(column.removeprefix(_LOG10), "")).lstrip().startswith("<")


def _values(
    values: Mapping[str, Any], columns: Mapping[str, str], place: str, bounds: bool = False
) -> dict[str, float]:
    return {name: _value(values, column, place, bounds) for name, column in columns.items()}


def _value(values: Mapping[str, Any], column: str, place: str, bounds: bool) -> float:
    raw = values.get(column.removeprefix(_LOG10))
    if raw is None or raw in ("", "na"):
        return float("nan")
    number = raw.lstrip().removeprefix("<") if bounds and isinstance(raw, str) else raw
    try:
        value = float(number)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {column} must be a number or empty, got {raw!r}") from error
    if np.isinf(value):
        raise ValueError(f"{place}: {column} must be finite or empty, got {raw!r}")
    return float(10.0**value) if column.startswith(_LOG10) else value


def label_table(rows: list[LabelledStructure], targets: tuple[str, ...]) -> Any:
    """(n_structures, n_targets) labels in the properties' units, NaN = missing.

    A structure with a band gap is a metal where the gap is 0.
    """
    return np.array([[_label(row, name) for name in targets] for row in rows])


def bound_table(rows: list[LabelledStructure], targets: tuple[str, ...]) -> Any:
    """(n_structures, n_targets) bool, whether a label is an upper bound."""
    return np.array([[name in row.censored for name in targets] for row in rows], dtype=bool)


def _label(row: LabelledStructure, name: str) -> float:
    if name == "metal_probability" and name not in row.labels:
        gap = row.labels.get("band_gap", np.nan)
        known = np.isfinite(gap) and "band_gap" not in row.censored
        return float(gap <= 0) if known else np.nan
    return row.labels.get(name, np.nan)
