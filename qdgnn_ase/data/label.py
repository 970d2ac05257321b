"""Labels for training from any ASE calculator: parallel, and resumable after a kill.

Frames are appended to an extended XYZ file in the order of the structures. Each has a key in
``atoms.info["key"]``, by which a second run with the same arguments goes on where the first one
stopped. Structures that could not be labelled stand with their reason in a JSON lines file beside.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from qdgnn_ase.data.resume import KEY, failure_keys, frame_keys, lock, resume

_VALID_KEY = re.compile(r"[A-Za-z][\w.:+-]*", re.ASCII)

Annotate = Callable[[Atoms, Calculator], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Labelled:
    """What one call of `label` did."""

    written: int = 0
    """Frames appended."""
    failed: int = 0
    """Structures recorded as failures."""
    skipped: int = 0
    """Structures that were done or had failed before."""


def label(
    structures: Iterable[Atoms],
    calculator_factory: Callable[[], Calculator],
    output: str | Path,
    *,
    jobs: int = 1,
    annotate: Annotate | None = None,
    progress: Callable[[Labelled], None] | None = None,
) -> Labelled:
    """Append structures with energy, forces and stress (where there is a volume) to ``output``.

    Args:
        structures: Structures; one without ``info["key"]`` gets a hash of itself as key.
        calculator_factory: Makes the calculator, once per process; with ``jobs > 1`` it must be
            importable (a function of a module, not a lambda).
        output: Extended XYZ file; an existing one is continued.
        jobs: Processes; 1 works in this one.
        annotate: Further ``info`` entries of a labelled frame, from the calculator's state.
        progress: Called with the counts so far after every structure.

    Raises:
        ValueError: If ``output`` is no file of `label`, a key is not valid, or jobs < 1.
        BlockingIOError: If another process writes to ``output``.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be >= 1, got {jobs}")
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a+b") as frames, failures_path(output).open("a+b") as failures:
        lock(frames)
        done = resume(frames, frame_keys) | resume(failures, failure_keys)
        counts = Labelled()
        for key, text, reason in _results(structures, calculator_factory, jobs, annotate, done):
            if text:
                frames.write(text.encode())
                frames.flush()
            elif reason:
                failures.write((json.dumps({KEY: key, "reason": reason}) + "\n").encode())
                failures.flush()
            counts = Labelled(
                counts.written + bool(text),
                counts.failed + bool(reason),
                counts.skipped + (not text and not reason),
            )
            if progress:
                progress(counts)
    return counts


def failures_path(output: str | Path) -> Path:
    """File of the failures beside ``output``; delete it to have them tried again."""
    return Path(f"{output}.failures.jsonl")


Result = tuple[str, str, str]  # key, text of the frame, reason of the failure


def _results(
    structures: Iterable[Atoms],
    factory: Callable[[], Calculator],
    jobs: int,
    annotate: Annotate | None,
    done: set[str],
) -> Iterator[Result]:
    tasks = _new(structures, done)
    if jobs == 1:
        calculator: Calculator | None = None
        for key, atoms in tasks:
            if atoms is None:
                yield key, "", ""
                continue
            calculator = calculator or factory()
            yield _labelled(key, atoms, calculator, annotate)
        return
    context = multiprocessing.get_context("spawn")  # forked torch processes can hang
    with ProcessPoolExecutor(jobs, context, _start_worker, (factory, annotate)) as pool:
        waiting: deque[Future[Result]] = deque()
        for key, atoms in tasks:
            waiting.append(pool.submit(_work, key, atoms) if atoms is not None else _skipped(key))
            if len(waiting) >= 8 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _new(structures: Iterable[Atoms], done: set[str]) -> Iterator[tuple[str, Atoms | None]]:
    """Key and structure; None in place of a structure that is done or occurred before."""
    for atoms in structures:
        key = key_of(atoms)
        yield key, None if key in done else atoms
        done.add(key)


def _skipped(key: str) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result((key, "", ""))
    return future


_worker: dict[str, Any] = {}  # of a worker process: its calculator and annotation


def _start_worker(factory: Callable[[], Calculator], annotate: Annotate | None) -> None:
    _worker.update(calculator=factory(), annotate=annotate)


def _work(key: str, atoms: Atoms) -> Result:
    return _labelled(key, atoms, _worker["calculator"], _worker["annotate"])


def _labelled(key: str, atoms: Atoms, calculator: Calculator, annotate: Annotate | None) -> Result:
    try:
        return key, _frame_text(key, atoms, calculator, annotate), ""
    except Exception as error:  # calculators raise anything; the reason is kept
        return key, "", f"{atoms.symbols}: {error!r}"


def _frame_text(key: str, atoms: Atoms, calculator: Calculator, annotate: Annotate | None) -> str:
    frame = atoms.copy()
    frame.set_constraint()  # a constraint would turn forces into zeros
    frame.calc = calculator
    _check_finite(positions=frame.positions, cell=frame.cell.array)  # some calculators do not
    results = {"energy": float(frame.get_potential_energy()), "forces": frame.get_forces().copy()}
    if frame.cell.rank == 3:
        results["stress"] = frame.get_stress().copy()
    _check_finite(**results)
    notes = annotate(frame, calculator) if annotate else {}
    frame.info = {KEY: key} | frame.info | notes | {KEY: key}  # key first: see resume.py
    frame.calc = SinglePointCalculator(frame, **results)
    text = io.StringIO()
    ase.io.write(text, frame, format="extxyz")
    return text.getvalue()


def _check_finite(**values: Any) -> None:
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name} must be finite, got {value}")


def key_of(atoms: Atoms) -> str:
    """Key of a structure: ``info["key"]``, or a hash of elements, positions, cell and pbc.

    Raises:
        ValueError: If the key is not a letter followed by letters, digits and ``_.:+-``.
    """
    if KEY in atoms.info:
        key = atoms.info[KEY]
        if not (isinstance(key, str) and _VALID_KEY.fullmatch(key)):
            raise ValueError(f"key must be a letter, then letters, digits or _.:+-, got {key!r}")
        return key
    arrays = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return "h" + hashlib.sha256(content).hexdigest()[:24]
