"""Many independent computations: parallel by processes, and resumable after a kill.

Each result is a line of a JSON lines file, written when it is there; a second run with the same
items computes those that are missing. A kill loses the items in work.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from qdgnn_ase.data.resume import KEY, failure_keys, lock, resume

Item = TypeVar("Item")
Row = dict[str, Any]
FAILURE = "failure"
"""Key of the reason in the row of an item that could not be computed."""


def run_tasks(
    work: Callable[[Item], Row],
    items: Iterable[tuple[str, Item]],
    output: str | Path,
    *,
    jobs: int = 1,
    progress: Callable[[int, int, Row], None] | None = None,
) -> list[Row]:
    """Rows of all items in their order; those that the file has already are not computed again.

    Args:
        work: Computes the row of an item; with ``jobs > 1`` a function of a module (or a
            ``functools.partial`` of one). Its errors become rows with the key "failure".
        items: Pairs of a unique key and what ``work`` takes.
        output: JSON lines file, continued if it exists. Delete a line to have it computed again.
        jobs: Processes; 1 works in this one.
        progress: Called with the rows that are there, all items, and the new row.

    Raises:
        ValueError: If jobs < 1, two items have one key, or the file holds something else.
        BlockingIOError: If another process writes to the file.
    """
    tasks = _by_key(items)
    if jobs < 1:
        raise ValueError(f"jobs must be >= 1, got {jobs}")
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a+b") as file:
        lock(file)
        done = resume(file, failure_keys)
        missing = {key: item for key, item in tasks.items() if key not in done}
        n_done = len(tasks) - len(missing)
        for row in _rows(work, missing, jobs):
            file.write((json.dumps(row) + "\n").encode())
            file.flush()
            n_done += 1
            if progress is not None:
                progress(n_done, len(tasks), row)
        file.seek(0)
        rows = {row[KEY]: row for row in map(json.loads, file)}
    return [rows[key] for key in tasks]


def _by_key(items: Iterable[tuple[str, Item]]) -> dict[str, Item]:
    tasks: dict[str, Item] = {}
    for key, item in items:
        if key in tasks:
            raise ValueError(f"keys of items must be unique, got {key!r} twice")
        tasks[key] = item
    return tasks


def _rows(work: Callable[[Item], Row], tasks: dict[str, Item], jobs: int) -> Iterator[Row]:
    if jobs == 1:
        for key, item in tasks.items():
            yield _row(work, key, item)
        return
    context = multiprocessing.get_context("spawn")  # forked torch processes can hang
    with ProcessPoolExecutor(jobs, context, _end_with_parent) as pool:
        futures = [pool.submit(_row, work, key, item) for key, item in tasks.items()]
        for future in as_completed(futures):
            yield future.result()


def _row(work: Callable[[Item], Row], key: str, item: Item) -> Row:
    try:
        return {KEY: key, **work(item)}
    except Exception as error:  # calculators raise anything; the reason is kept
        return {KEY: key, FAILURE: repr(error)}


def _end_with_parent() -> None:
    """End this worker when its parent is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("must run in a worker process, got the main one")

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
