"""One budget for every method: unique evaluations, cached, logged, replayed after a kill.

A method is a function ``(problem, rng)`` that calls ``problem(candidates)`` until `BudgetSpent`
ends it. Because methods are seeded, a run that was killed is repeated from the start: what the log
holds is not computed again, so the run comes to the point of the kill in no time and goes on as if
nothing had happened.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_design.evaluate import Evaluator, Values
from qdgnn_design.filters import Verdict, geometry_residuals
from qdgnn_design.space import Candidate, DesignSpace
from qdgnn_design.targets import Target, is_hit, score

Array = NDArray[np.float64]
Record = dict[str, Any]

_PROPOSALS = 25
"""Proposals per evaluation of the budget after which a method has nothing new to say."""


class BudgetSpent(Exception):  # noqa: N818 - the normal end of a method, no error
    """No evaluation is left, the hit is made, or nothing new was proposed for long."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one proposal."""

    candidate: Candidate
    key: str
    values: Values | None
    """None where it was rejected or its evaluation failed."""
    score: float
    """See `qdgnn_design.targets`; -inf without values."""
    hit: bool
    reasons: tuple[str, ...] = ()
    """Why it was rejected or failed."""
    call: int = 0
    """Number of the evaluation, from 1; 0 where none was made."""


class EvaluationLog:
    """Evaluations on disk, one line of JSON per batch; a half line at the end is cut off.

    Args:
        path: File; its first line is the header.
        header: What the evaluations belong to.

    Raises:
        ValueError: If the file belongs to another run.
        BlockingIOError: If another process writes to it.
    """

    def __init__(self, path: Path, header: Record) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise BlockingIOError(f"{path} must have one writer, got a second; wait") from error
        self.records: dict[str, Record] = {}
        lines = self._complete_lines()
        if not lines:
            self.append_line(header)
        elif json.loads(lines[0]) != json.loads(json.dumps(header)):
            self.close()
            raise ValueError(
                f"{path} must belong to the same start, targets, method and seed, got\n  "
                f"{lines[0].decode()}\ninstead of\n  {json.dumps(header)}\nchoose another folder"
            )
        for line in lines[1:]:
            self.records |= {record["key"]: record for record in json.loads(line)}

    def append_line(self, content: object) -> None:
        """Write one line to the disk."""
        self._file.write(json.dumps(content).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _complete_lines(self) -> list[bytes]:
        self._file.seek(0)
        content = self._file.read()
        complete = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(complete))
        return complete.splitlines()


class Problem:
    """Start, targets and evaluator with a budget; call it with candidates.

    Args:
        space: Actions of the start.
        targets: What is wanted.
        evaluator: Gives the values.
        budget: Unique evaluations.
        features: Structures -> (n, n_features), for methods that learn; the space's encoding if
            not given.
        log: Where evaluations are kept and found again.
        enough_hits: End with this many candidates that meet all targets; None: never.
        progress: Called after each new evaluation.
    """

    def __init__(
        self,
        space: DesignSpace,
        targets: Sequence[Target],
        evaluator: Evaluator,
        *,
        budget: int,
        features: Callable[[Sequence[Atoms]], Array] | None = None,
        log: EvaluationLog | None = None,
        enough_hits: int | None = None,
        progress: Callable[[Problem], None] | None = None,
    ) -> None:
        if budget < 1 or not targets:
            raise ValueError(
                f"budget must be at least 1 and there must be a target, got {budget} and "
                f"{list(targets)}"
            )
        self.space, self.targets, self.budget = space, tuple(targets), budget
        self.outcomes: list[Outcome] = []
        self.n_proposed = self.n_rejected = 0
        self._evaluator, self._log, self._enough_hits = evaluator, log, enough_hits
        self.n_hits = 0
        self._features, self._rows = features, dict[str, Array]()
        self._known: dict[str, Outcome] = {}
        self._progress = progress

    @property
    def spent(self) -> int:
        """Unique evaluations so far."""
        return len(self.outcomes)

    @property
    def best(self) -> Outcome | None:
        """Highest score so far."""
        return max(self.outcomes, key=lambda outcome: outcome.score, default=None)

    def __call__(self, candidates: Sequence[Candidate]) -> list[Outcome]:
        """Outcomes in order; equal structures are evaluated once, rejected ones never.

        Raises:
            BudgetSpent: After the last evaluation that the budget holds.
        """
        keys = [self.space.key(candidate.atoms) for candidate in candidates]
        fresh: dict[str, Candidate] = {}
        self.n_proposed += len(keys)
        for key, candidate in zip(keys, candidates, strict=True):
            if key not in self._known and key not in fresh and self._admit(key, candidate):
                fresh[key] = candidate
        kept = dict(list(fresh.items())[: self.budget - self.spent])
        for key, value in zip(kept, self._evaluate(kept), strict=True):
            self._add(key, kept[key], value)
        if len(kept) < len(fresh) or self.spent >= self.budget or self._is_stuck():
            raise BudgetSpent
        return [self._known[key] for key in keys]

    def features(self, candidates: Sequence[Candidate]) -> Array:
        """Features (n, n_features) of structures, evaluated or not; each computed once."""
        keys = [self.space.key(candidate.atoms) for candidate in candidates]
        new = {
            key: candidate.atoms
            for key, candidate in zip(keys, candidates, strict=True)
            if key not in self._rows
        }
        if new and self._features is not None:
            self._rows |= dict(zip(new, self._features(list(new.values())), strict=True))
        elif new:
            self._rows |= {key: self.space.encode(atoms) for key, atoms in new.items()}
        return np.array([self._rows[key] for key in keys])

    def is_known(self, candidate: Candidate) -> bool:
        """Whether the structure, or an equivalent one, was proposed before."""
        return self.space.key(candidate.atoms) in self._known

    def _admit(self, key: str, candidate: Candidate) -> bool:
        verdict = Verdict(geometry_residuals(candidate.atoms))
        if not verdict.passed:
            self.n_rejected += 1
            reasons = tuple(verdict.reasons)
            self._known[key] = Outcome(candidate, key, None, -inf, hit=False, reasons=reasons)
        return verdict.passed

    def _evaluate(self, candidates: dict[str, Candidate]) -> list[Values | str]:
        """One batch: all of it from the log, or all of it anew, so that a replay is exact."""
        logged = {} if self._log is None else self._log.records
        if candidates.keys() <= logged.keys():
            return [_from_record(logged[key], c.atoms) for key, c in candidates.items()]
        values = self._evaluator([candidate.atoms for candidate in candidates.values()])
        if self._log is not None:
            self._log.append_line(
                [_to_record(key, value) for key, value in zip(candidates, values, strict=True)]
            )
        return values

    def _add(self, key: str, candidate: Candidate, value: Values | str) -> None:
        call = self.spent + 1
        if isinstance(value, str):
            outcome = Outcome(candidate, key, None, -inf, hit=False, reasons=(value,), call=call)
        else:
            result = score(value.values, self.targets, value.std)
            hit = is_hit(value.values, self.targets)
            outcome = Outcome(candidate, key, value, result, hit, call=call)
        self._known[key] = outcome
        self.outcomes.append(outcome)
        if self._progress is not None:
            self._progress(self)
        self.n_hits += outcome.hit
        if outcome.hit and self.n_hits == self._enough_hits:
            raise BudgetSpent

    def _is_stuck(self) -> bool:
        return self.n_proposed > _PROPOSALS * (self.budget + 10)


def _to_record(key: str, value: Values | str) -> Record:
    return {"key": key} | ({"failure": value} if isinstance(value, str) else value.to_dict())


def _from_record(record: Record, atoms: Atoms) -> Values | str:
    return str(record["failure"]) if "failure" in record else Values.from_dict(record, atoms)
