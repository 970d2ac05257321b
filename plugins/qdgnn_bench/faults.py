"""What a fault case is, and how an answer to it is judged.

Each case says what must happen: an error, one ``ExtrapolationWarning``, or a right value. The
outcome of a case is

| outcome | meaning |
|---|---|
| ok | what the case asks for |
| loud | an error or NaN where a value was due, or for ours another error than the one promised |
| silent | a wrong number and no error (nor the warning that was due): the worst there is |
| - | the case does not apply |

Ours must raise the promised type with the promised message, and warn exactly once. A peer may
raise anything where an error is due, and may refuse or warn in any way where a warning is due.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError

from qdgnn_ase import ExtrapolationWarning

Expected = Literal["error", "warning", "value"]
Outcome = Literal["ok", "loud", "silent", "-"]


class NotApplicable(Exception):  # noqa: N818 - nothing went wrong
    """Raised by a probe that means nothing for a subject."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A calculator under test, as its users use it."""

    name: str
    """Heading of its column."""
    calculator: Callable[[], Any]
    """Makes a fresh ASE calculator."""
    read: Callable[[Path], Atoms]
    """Reads a structure file."""
    unseen: tuple[str, ...] = ()
    """Two elements without training data or parameters."""
    is_ours: bool = False
    """Judged by the letter, and by the cases of checkpoints and training too."""
    model: str | None = None
    """Ours: name or path of the checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault and what must come of it."""

    name: str
    """How the input is made."""
    fault: str
    """Class of the fault."""
    expected: Expected
    """What must happen."""
    probe: Callable[[Subject, Path], float]
    """Commits the fault in an empty folder. Returns for "value" the deviation from the oracle in
    units of the tolerance (right: <= 1), else the energy that should not have come (eV)."""
    error: type[Exception] | tuple[type[Exception], ...] = InputError
    """Type that ours must raise."""
    message: str = ""
    """Regular expression that our error or warning must hold."""
    skip: Mapping[str, str] = field(default_factory=dict)
    """Subjects that the case cannot be given to, and why."""
    ours_only: bool = False
    """Checkpoints and training are ours alone."""


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of one case for one subject."""

    fault: str
    case: str
    expected: Expected
    subject: str
    outcome: Outcome
    detail: str
    seconds: float


def score(case: Case, subject: Subject) -> Result:
    """Give a case to a subject and judge what it does."""
    started = perf_counter()
    outcome, detail = _outcome(case, subject)
    return Result(
        fault=case.fault,
        case=case.name,
        expected=case.expected,
        subject=subject.name,
        outcome=outcome,
        detail=detail,
        seconds=perf_counter() - started,
    )


def _outcome(case: Case, subject: Subject) -> tuple[Outcome, str]:
    if case.ours_only and not subject.is_ours:
        return "-", "a case of ours alone"
    if subject.name in case.skip:
        return "-", case.skip[subject.name]
    with TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            number = case.probe(subject, Path(folder))
        except NotApplicable as reason:
            return "-", str(reason)
        except Exception as error:  # whatever a calculator raises is the measurement
            return _judge_error(case, subject, error)
    messages = [str(w.message) for w in caught if _counts(w.category, subject)]
    if case.expected == "value":
        return _judge_value(number)
    if case.expected == "warning":
        return _judge_warnings(case, subject, messages, number)
    return _judge_answer(number)


def _counts(category: type[Warning], subject: Subject) -> bool:
    """Ours promises one kind of warning; a peer's users may take any warning as a hint."""
    wanted = ExtrapolationWarning if subject.is_ours else UserWarning
    return issubclass(category, wanted)


def _judge_error(case: Case, subject: Subject, error: Exception) -> tuple[Outcome, str]:
    detail = f"{type(error).__name__}: {error}".splitlines()[0]
    if case.expected == "value" or (case.expected == "warning" and subject.is_ours):
        return "loud", detail
    promised = isinstance(error, case.error) and re.search(case.message, str(error)) is not None
    return ("loud" if subject.is_ours and not promised else "ok"), detail


def _judge_value(deviation: float) -> tuple[Outcome, str]:
    if np.isnan(deviation):
        return "loud", "NaN"
    return ("ok" if deviation <= 1 else "silent"), f"{deviation:.2g} tolerances off"


def _judge_warnings(
    case: Case, subject: Subject, messages: list[str], number: float
) -> tuple[Outcome, str]:
    if not messages:
        return _judge_answer(number)
    detail = "; ".join(messages)
    if subject.is_ours and (len(messages) != 1 or not re.search(case.message, detail)):
        return "loud", detail
    return "ok", detail


def _judge_answer(number: float) -> tuple[Outcome, str]:
    if not np.isfinite(number):
        return "loud", f"answers {number}"
    return "silent", f"answers {number:.4g}"
