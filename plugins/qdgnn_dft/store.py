"""Results that are computed once: an ASE database keyed by structure and settings.

A row's ``unique_id`` is the key and its ``data`` hold the record's text with a checksum. Only what
the checksum confirms is ever returned; ASE's own columns (energy, forces ...) are there for
``ase db`` and are never read back. Writers of an SQLite file take turns by a lock that the system
drops when a process dies, and a row is written in one transaction, so a kill at any time leaves
all rows that were there. Where a file is damaged, its good rows go to a new file and the old one
is kept beside it.
"""

from __future__ import annotations

import fcntl
import logging
import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Error as SQLiteError
from typing import Any

from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.db.core import now
from ase.db.row import AtomsRow

from qdgnn_ase import reduced_formula
from qdgnn_dft.record import Record, checksum

log = logging.getLogger(__name__)

_SUFFIX = ".db"
_SERVER = ("postgresql://", "postgres://")
_COLUMNS = ("energy", "free_energy", "forces", "stress")
_DAMAGE = (  # what ASE and SQLite raise on bytes that were changed behind their back
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    SQLiteError,
    TypeError,
    ValueError,
    struct.error,
)
_NO_DAMAGE = ("BUSY", "LOCKED", "FULL", "PERM", "READONLY", "CANTOPEN", "IOERR")
"""SQLite errors that say nothing about the rows; a cut file is IOERR_SHORT_READ."""
_SERVER_ATTEMPTS = 3
_MIN_ROW_BYTES = 256
"""A row takes more in the file; bounds the ids of a file whose table of contents is lost."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `ResultStore.inspect` found."""

    good: int
    """Rows whose checksum and key hold."""
    damaged: int
    """Rows that cannot be read, or whose checksum or key does not hold."""
    duplicates: int
    """Good rows beyond the first of their key."""


class ResultStore:
    """Records by key, in an SQLite file or on a PostgreSQL server.

    Args:
        address: Path of a ``.db`` file, made at the first write, or ``postgresql://...``.

    Raises:
        ValueError: If the address is neither.
        ImportError: If a server is asked for and ase-db-backends is not installed.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.is_server = self.address.startswith(_SERVER)
        if not self.is_server and not self.address.endswith(_SUFFIX):
            raise ValueError(
                f"store must be a file *{_SUFFIX} or {_SERVER[0]}USER:PASSWORD@HOST/NAME, got "
                f"{self.address!r}"
            )
        self._path = None if self.is_server else Path(self.address)
        self._connect()

    def get(self, key: str) -> Record | None:
        """The record of a key; None where there is none, or only a damaged one."""
        if not self._exists():
            return None
        try:
            rows = self._rows([("unique_id", "=", key)])
        except _DAMAGE as error:
            self._require_damage(error)
            log.warning("%s: row %s cannot be read: %r", self, key[:12], error)
            return None
        found = next((record for record in map(_verified, rows) if record), None)
        if rows and found is None:
            log.warning("%s: row %s is damaged and is not used", self, key[:12])
        return found

    def put(self, record: Record) -> None:
        """Store a record; a good row of the same key stays, a damaged one is replaced."""
        if self.is_server:
            self._put_on_server(record)
            return
        with self._turn():
            if self.get(record.key) is not None:
                return
            row = _row(record)
            try:
                self._connect().write(*row)
            except _DAMAGE as error:  # the file, or the row of this key
                self._require_damage(error)
                log.warning("%s is damaged (%r): its good rows are kept", self.address, error)
                self._rebuild()
                self._connect().write(*row)

    def records(self, formula: str | None = None) -> Iterator[Record]:
        """All good records, of one reduced formula if given; damaged rows are left out."""
        for record in self._scan(formula):
            if record is not None:
                yield record

    def inspect(self) -> Inspection:
        """Count good rows, damaged rows and duplicates."""
        keys = [record.key if record else None for record in self._scan(None)]
        good = [key for key in keys if key]
        return Inspection(len(good), len(keys) - len(good), len(good) - len(set(good)))

    def __str__(self) -> str:
        """The address without a password."""
        return re.sub(r"://[^@/]*@", "://", self.address)

    def _connect(self) -> Any:
        try:
            return connect(
                self.address, "postgresql" if self.is_server else "db", use_lock_file=False
            )
        except ImportError as error:
            raise ImportError(
                f"a store on a server needs ase-db-backends, got: {error}; "
                "pip install 'qdgnn-ase[scale]'"
            ) from error

    def _exists(self) -> bool:
        return self._path is None or (self._path.is_file() and self._path.stat().st_size > 0)

    def _require_damage(self, error: BaseException) -> None:
        """Raise where rows are not to blame: a full disk, a locked file, a server that is away."""
        name = getattr(error, "sqlite_errorname", "SQLITE_").removeprefix("SQLITE_")
        if self.is_server or (name.startswith(_NO_DAMAGE) and name != "IOERR_SHORT_READ"):
            raise OSError(f"store {self} cannot be used: {error!r}") from error

    def _rows(self, selection: list[tuple[str, str, Any]]) -> list[AtomsRow]:
        columns = ["id", "unique_id"]  # the rest of a row is in its data
        try:
            return list(self._connect().select(selection, columns=columns))
        except Exception as error:  # of a server: the driver's own
            if self.is_server:
                raise OSError(f"store {self} cannot be read: {error!r}") from error
            raise

    def _scan(self, formula: str | None) -> Iterator[Record | None]:
        """Every row, None in place of a damaged one."""
        if not self._exists():
            return
        selection = [("reduced_formula", "=", _tag(formula))] if formula else []
        try:
            found = [_verified(row) for row in self._rows(selection)]
        except _DAMAGE as error:
            self._require_damage(error)
            found = [r for r in self._one_by_one() if _is_of(r, formula)]
        yield from found

    def _one_by_one(self) -> list[Record | None]:
        """Rows by id, each on its own, out of a file that cannot be read as a whole."""
        database = self._connect()
        found: list[Record | None] = []
        last = max(1, Path(self.address).stat().st_size // _MIN_ROW_BYTES)
        for number in range(1, last + 1):
            try:
                rows = list(database.select(number, columns=["id", "unique_id"]))
            except _DAMAGE:
                found.append(None)
            else:
                found += [_verified(row) for row in rows]
        return found

    def _put_on_server(self, record: Record) -> None:
        """Unique keys keep two writers apart; the one that comes second looks again."""
        for attempt in range(_SERVER_ATTEMPTS):
            try:
                if self.get(record.key) is not None:
                    return
                damaged = self._rows([("unique_id", "=", record.key)])
                self._connect().delete([row.id for row in damaged])
                self._connect().write(*_row(record))
            except Exception as error:  # the driver's own
                if attempt == _SERVER_ATTEMPTS - 1:
                    raise OSError(f"store {self} cannot be written: {error!r}") from error

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One writer at a time; the system frees the lock of a process that dies."""
        path = Path(self.address)
        path.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{self.address}.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _rebuild(self) -> None:
        """A new file with the good rows; the old one stays beside it as ``*.damaged-N``."""
        good = {record.key: record for record in self._scan(None) if record}
        fresh = Path(f"{self.address}.rebuilt{_SUFFIX}")
        fresh.unlink(missing_ok=True)
        database = connect(fresh, "db", use_lock_file=False)
        with database:
            for record in good.values():
                database.write(*_row(record))
        number = len(list(Path(self.address).parent.glob(f"{Path(self.address).name}.damaged-*")))
        kept = Path(f"{self.address}.damaged-{number + 1}")
        shutil.copyfile(self.address, kept)
        journal = Path(f"{self.address}-journal")
        if journal.exists():  # it would be played back into the new file
            journal.replace(f"{kept}-journal")
        fresh.touch()  # empty where no row was good
        fresh.replace(self.address)
        log.warning("%s: %d good rows kept, old file is %s", self.address, len(good), kept)


def _row(record: Record) -> tuple[AtomsRow, dict[str, str], dict[str, str]]:
    """Row, key-value pairs and data for ``Database.write``."""
    atoms = record.atoms()
    results = {name: record.values[name] for name in _COLUMNS if name in record.values}
    atoms.calc = SinglePointCalculator(atoms, **results)
    row = AtomsRow(atoms)
    row.unique_id = record.key
    row.user = ""
    row.ctime = now()
    text = record.to_text()
    data = {"record": text, "checksum": checksum(text)}
    return row, {"reduced_formula": _tag(reduced_formula(atoms))}, data


def _tag(formula: str) -> str:
    """ASE refuses texts that read as numbers, and InF reads as infinity."""
    return f"_{formula}"


def _verified(row: AtomsRow) -> Record | None:
    """The record of a row, or None if its bytes are not those that were written."""
    try:
        data = row.data
        text = data["record"]
        if checksum(text) != data["checksum"]:
            return None
        record = Record.from_text(text)
        return record if row.unique_id == record.key else None
    except _DAMAGE:
        return None


def _is_of(record: Record | None, formula: str | None) -> bool:
    return formula is None or record is None or reduced_formula(record.atoms()) == formula
