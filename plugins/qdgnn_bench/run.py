"""Every case for every subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qdgnn_bench.fault_files import file_cases
from qdgnn_bench.fault_limits import limit_cases
from qdgnn_bench.fault_structures import structure_cases
from qdgnn_bench.fault_training import training_cases
from qdgnn_bench.faults import Case, Result, Subject, score


def all_cases() -> tuple[Case, ...]:
    """The table of expected outcomes; names are unique."""
    return (*structure_cases(), *limit_cases(), *file_cases(), *training_cases())


def run_faults(
    subjects: Sequence[Subject],
    cases: Sequence[Case] | None = None,
    progress: Callable[[Case], None] | None = None,
) -> Iterator[list[Result]]:
    """Results of one case after the other, in the order of ``subjects``.

    Args:
        subjects: Calculators.
        cases: ``all_cases()`` if not given.
        progress: Called before each case.
    """
    for case in all_cases() if cases is None else cases:
        if progress is not None:
            progress(case)
        yield [score(case, subject) for subject in subjects]


def summarise(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Counts per subject: fault classes, cases, and each outcome."""
    summary: dict[str, dict[str, Any]] = {}
    for subject in dict.fromkeys(result.subject for result in results):
        mine = [r for r in results if r.subject == subject and r.outcome != "-"]
        outcomes = [result.outcome for result in mine]
        summary[subject] = {
            "fault_classes": len({result.fault for result in mine}),
            "cases": len(mine),
            **{outcome: outcomes.count(outcome) for outcome in ("ok", "loud", "silent")},
        }
    return summary
