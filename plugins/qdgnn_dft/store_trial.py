"""Trials of the result store: writers that are killed, and files that are damaged.

A trial works on records whose values follow from their number, so that every returned value can be
checked against what must stand there.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from ase.build import bulk

from qdgnn_dft.backend import make_record
from qdgnn_dft.record import Record
from qdgnn_dft.store import ResultStore


@dataclass(frozen=True, slots=True)
class Killed:
    """Result of `kill_writers`."""

    rows: int
    kills: int
    lost: int
    """Rows that a writer was told are stored and that are not there."""
    duplicated: int
    corrupt: int
    """Rows that cannot be read, or hold other values than were written."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """Result of `damage_files`."""

    damages: int
    noticed: int
    """Damages after which some row was missing."""
    rows_missing: int
    """Rows not returned, over all damages; they are computed again."""
    values_changed: int
    """Rows that were returned with another value than was written."""
    unusable: int
    """Damages after which the rows could not be stored again."""


def trial_record(number: int) -> Record:
    """The record of a number; two records share neither structure nor values."""
    atoms = bulk("NaCl", "rocksalt", a=5.0 + 1e-3 * number)
    rng = np.random.default_rng(number)
    values = {
        "energy": float(rng.normal()),
        "forces": rng.normal(size=(2, 3)),
        "stress": rng.normal(size=6),
        "band_gap": float(rng.uniform(0, 9)),
    }
    return make_record(atoms, {"backend": "trial", "cutoff_ev": 500.0}, values, {"number": number})


def kill_writers(
    path: Path, *, rows: int = 1_000, writers: int = 4, kills: int = 20, seed: int = 0
) -> Killed:
    """Several processes write; each kill (SIGKILL) hits one of them, which is started again.

    Args:
        path: Store, a new ``.db`` file.
        rows: Records in all; each writer tries a share that overlaps its neighbour's.
        writers: Processes.
        kills: Kills, spread over the work.
        seed: Of the choice of the victims.
    """
    rng = np.random.default_rng(seed)
    shares = [_share(index, writers, rows) for index in range(writers)]
    told = [path.with_name(f"{path.name}.told-{index}") for index in range(writers)]
    processes = [_start(path, *task) for task in zip(shares, told, strict=True)]
    for count in range(1, kills + 1):
        _wait_for(told, rows * count // (kills + 1), processes)
        victim = int(rng.integers(writers))
        time.sleep(float(rng.uniform(0, 0.02)))  # to hit any point of a write
        _kill(processes[victim])
        processes[victim] = _start(path, shares[victim], told[victim])
    for process in processes:
        process.join()
    store = ResultStore(path)
    found = {record.key: record for record in store.records()}
    wanted = {record.key: record for record in map(trial_record, range(rows))}
    promised = {line for file in told for line in file.read_text().split("\n")[:-1]}
    inspection = store.inspect()
    return Killed(
        rows=len(found),
        kills=kills,
        lost=len((promised | wanted.keys()) - found.keys()),
        duplicated=inspection.duplicates,
        corrupt=inspection.damaged + sum(found[key] != wanted.get(key) for key in found),
    )


def damage_files(folder: Path, *, damages: int = 60, rows: int = 30, seed: int = 0) -> Damaged:
    """Overwrite random stretches of a store; ask for every row; store all of them again.

    Args:
        folder: Where the files go.
        damages: Files, each damaged once: 1 to 64 random bytes, every fifth is cut off instead.
        rows: Records of the store.
        seed: Of the damages.
    """
    wanted = [trial_record(number) for number in range(rows)]
    whole = folder / "whole.db"
    _write(whole, range(rows))
    rng = np.random.default_rng(seed)
    noticed = missing = changed = unusable = 0
    for count in range(damages):
        path = folder / f"damaged-{count}.db"
        shutil.copyfile(whole, path)
        _damage(path, rng, cut=count % 5 == 4)
        store = ResultStore(path)
        got = [store.get(record.key) for record in wanted]
        everything = {record.key: record for record in store.records()}
        changed += sum(a is not None and a != b for a, b in zip(got, wanted, strict=True))
        changed += sum(everything.get(record.key, record) != record for record in wanted)
        lacking = sum(record is None for record in got)
        missing += lacking
        noticed += lacking > 0
        for record in wanted:
            store.put(record)
        unusable += any(store.get(record.key) != record for record in wanted)
    return Damaged(damages, noticed, missing, changed, unusable)


def _share(index: int, writers: int, rows: int) -> list[int]:
    """Numbers of one writer: its own quarter and half of the next, which two then try to write."""
    size = rows // writers + 1
    return [number % rows for number in range(index * size, index * size + size + size // 2)]


def _start(path: Path | str, numbers: Sequence[int], told: Path) -> BaseProcess:
    context = multiprocessing.get_context("fork")  # no threads here; a spawned one takes a second
    process = context.Process(target=_write, args=(path, numbers, told))
    process.start()
    return process


def _write(path: Path | str, numbers: Sequence[int], told: Path | None = None) -> None:
    """Store the records of numbers; note in ``told`` what the store has promised to keep."""
    store = ResultStore(path)
    for number in numbers:
        record = trial_record(number)
        store.put(record)
        if told:
            with told.open("a") as file:
                file.write(record.key + "\n")


def _wait_for(told: Sequence[Path], n: int, processes: Sequence[BaseProcess]) -> None:
    """Until so many rows are noted, or no writer works any more."""
    while sum(_lines(file) for file in told) < n and any(p.is_alive() for p in processes):
        time.sleep(0.002)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _kill(process: BaseProcess) -> None:
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()


def _damage(path: Path, rng: np.random.Generator, *, cut: bool) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        if cut:
            file.truncate(int(rng.integers(1, size)))
            return
        length = int(rng.integers(1, 65))
        file.seek(int(rng.integers(0, size - length)))
        file.write(rng.bytes(length))
