"""One design run: search, filter, rank. Killed at any time, it goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_design.evaluate import Evaluator, Values
from qdgnn_design.filters import Residual, Verdict, domain_residual, mechanical_residuals
from qdgnn_design.filters import geometry_residuals as geometry
from qdgnn_design.methods import METHODS, method, optimise
from qdgnn_design.pareto import hypervolume, objectives, pareto_front
from qdgnn_design.problem import EvaluationLog, Outcome, Problem
from qdgnn_design.space import DesignSpace, SpaceConfig
from qdgnn_design.targets import Target, score

Array = NDArray[np.float64]
Progress = Callable[[str, int, int, str], None]
"""Called with what is done, how much of it, of how much, and a note."""


@dataclass(frozen=True, kw_only=True)
class DesignConfig:
    """How to search."""

    method: str = "hybrid"
    """Of `METHODS`."""
    budget: int = 200
    """Unique evaluations."""
    seed: int = 0
    top: int = 10
    """Candidates that are filtered and reported."""
    horizon: int = 8
    """Actions of an episode or of a walk, at most."""
    stop_at_hit: bool = False
    """End at the first candidate that meets all targets."""
    training_budget: int = 2_000
    """Unique evaluations that training a policy may cost (method "goal" without a policy)."""
    training_steps: int = 20_000
    """Environment steps of that training."""
    space: SpaceConfig = field(default_factory=SpaceConfig)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {list(METHODS)}, got {self.method!r}")
        for name in ("budget", "top", "horizon", "training_budget", "training_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with the filter's verdict."""

    outcome: Outcome
    verdict: Verdict
    relaxed: Atoms | None = None
    """By the filter's calculator."""
    relaxed_values: Values | None = None
    """The evaluator's values there; where they differ, the search was fooled by the geometry."""


@dataclass(frozen=True, slots=True)
class DesignResult:
    """What a run found."""

    problem: Problem
    candidates: tuple[Ranked, ...]
    """Best first: those that pass the filter before those that do not, then by score."""
    training_calls: int
    """Unique evaluations that a policy was trained with."""

    def summary(self) -> dict[str, Any]:
        """Counts, shares and the trade-off in numbers."""
        problem = self.problem
        rows = [o.values.values for o in problem.outcomes if o.values is not None]
        values = objectives(rows, problem.targets)
        summary: dict[str, Any] = {
            "evaluations": problem.spent,
            "training_calls": self.training_calls,
            "proposed": problem.n_proposed,
            "valid_share": 1 - problem.n_rejected / max(problem.n_proposed, 1),
            "failed": sum(o.values is None for o in problem.outcomes),
            "hits": sum(o.hit for o in problem.outcomes),
            "first_hit": next((o.call for o in problem.outcomes if o.hit), None),
            "passed_filter": sum(ranked.verdict.passed for ranked in self.candidates),
        }
        if len(problem.targets) > 1 and len(rows) > 1:
            front = pareto_front(values)
            summary["pareto_front"] = len(front)
            summary["hypervolume"] = hypervolume(values, values.min(axis=0))
        return summary


def design(
    start: Atoms,
    targets: Sequence[Target],
    evaluator: Evaluator,
    out: Path,
    config: DesignConfig | None = None,
    *,
    features: Callable[[Sequence[Atoms]], Array] | None = None,
    calculator: Calculator | None = None,
    policy: Path | None = None,
    progress: Progress | None = None,
) -> DesignResult:
    """Search from a start, filter the best; evaluations are kept in ``out``.

    The same call after a kill gives the result that the first would have given.

    Args:
        start: Starting material.
        targets: What is wanted.
        evaluator: Values of structures, such as `surrogate(Predictor(), targets)`.
        out: Folder.
        config: How to search.
        features: For methods that learn, such as ``predictor.embedding``.
        calculator: Relaxes and judges the best candidates; charge, distances and domain only if
            not given.
        policy: Saved policy for "goal" and "hybrid"; "goal" trains one if not given.
        progress: See `Progress`.

    Raises:
        ValueError: If the folder holds another run, or an argument is out of range.
    """
    config = config or DesignConfig()
    space = DesignSpace(start, config.space)
    header = _header(space, targets, config, policy)
    tell = progress or (lambda *_: None)
    training_calls, options = 0, {"horizon": config.horizon}
    if config.method == "goal" and policy is None:
        policy = out / "policy.zip"
        training_calls = _train(space, targets, evaluator, out, config, header, tell)
    if policy is not None:
        if config.method not in ("goal", "hybrid"):
            raise ValueError(f"a policy needs method 'goal' or 'hybrid', got {config.method!r}")
        options["policy"] = _load(policy)
    with closing(EvaluationLog(out / "evaluations.jsonl", header)) as log:
        problem = Problem(
            space,
            targets,
            evaluator,
            budget=config.budget,
            features=features,
            log=log,
            enough_hits=1 if config.stop_at_hit else None,
            progress=lambda p: tell("searching", p.spent, config.budget, _note(p)),
        )
        optimise(problem, method(config.method, **options), np.random.default_rng(config.seed))
    ranked = _filtered(problem, evaluator, config.top, calculator, tell)
    return DesignResult(problem, tuple(ranked), training_calls)


def reachable_goals(
    problem: Problem, rng: Generator, horizon: int, n: int = 64
) -> Callable[[Generator], tuple[Target, ...]]:
    """Draws targets with the values of random structures; maximised and minimised ones stay.

    Args:
        problem: Evaluates ``n`` walks, which counts as training.
        rng: For the walks.
        horizon: Length of the walks.
        n: Structures to draw from.
    """
    outcomes = problem([problem.space.walk(rng, horizon) for _ in range(n)])
    rows = [outcome.values.values for outcome in outcomes if outcome.values is not None]
    if not rows:
        raise ValueError(f"at least one of {n} random structures must have values, got none")

    def draw(generator: Generator) -> tuple[Target, ...]:
        row = rows[int(generator.integers(len(rows)))]
        return tuple(_at_value(target, row[target.name]) for target in problem.targets)

    return draw


def _at_value(target: Target, value: float) -> Target:
    if target.goal != "range":
        return target
    return replace(target, low=value, high=value)


def _train(
    space: DesignSpace,
    targets: Sequence[Target],
    evaluator: Evaluator,
    out: Path,
    config: DesignConfig,
    header: dict[str, Any],
    tell: Progress,
) -> int:
    from qdgnn_design.policies import train_goal_policy

    path, budget = out / "policy.zip", config.training_budget
    with closing(EvaluationLog(out / "training.jsonl", header)) as log:
        if path.is_file():
            return len(log.records)
        problem = Problem(space, targets, evaluator, budget=budget, log=log)
        rng = np.random.default_rng([config.seed, 1])
        goals = reachable_goals(problem, rng, config.horizon, min(64, max(budget // 2, 1)))
        return train_goal_policy(
            problem,
            rng,
            goals,
            path,
            steps=config.training_steps,
            horizon=config.horizon,
            walk=config.horizon,
            progress=lambda n: tell("training", n, config.training_steps, f"{problem.spent} calls"),
        )


def _load(path: Path) -> Any:
    from qdgnn_design.policies import load_policy

    return load_policy(path)


def _filtered(
    problem: Problem,
    evaluator: Evaluator,
    top: int,
    calculator: Calculator | None,
    tell: Progress,
) -> list[Ranked]:
    known = [outcome for outcome in problem.outcomes if outcome.values is not None]
    best = sorted(known, key=lambda outcome: -outcome.score)[:top]
    ranked = []
    for k, outcome in enumerate(best):
        tell("filtering", k, len(best), str(outcome.candidate.atoms.symbols))
        ranked.append(_judged(outcome, evaluator, calculator))
    tell("filtering", len(best), len(best), "")
    return sorted(ranked, key=lambda r: (not r.verdict.passed, -r.outcome.score))


def _judged(outcome: Outcome, evaluator: Evaluator, calculator: Calculator | None) -> Ranked:
    in_domain = outcome.values is not None and outcome.values.in_domain
    domain = domain_residual(in_domain=in_domain)
    if calculator is None:
        return Ranked(outcome, Verdict((*geometry(outcome.candidate.atoms), domain)))
    try:
        relaxed, residuals = mechanical_residuals(outcome.candidate.atoms, calculator)
    except (CalculatorError, ValueError, ArithmeticError) as error:
        failure = Residual(f"relaxation failed ({error})", np.inf, 1.0, "")
        return Ranked(outcome, Verdict((*geometry(outcome.candidate.atoms), domain, failure)))
    values = evaluator([relaxed])[0]
    return Ranked(
        outcome,
        Verdict((*residuals, domain)),
        relaxed,
        values if isinstance(values, Values) else None,
    )


def _note(problem: Problem) -> str:
    best = problem.best
    if best is None or best.values is None:
        return "no valid candidate yet"
    values = ", ".join(f"{t.name} {best.values.values[t.name]:.3g}" for t in problem.targets)
    return f"best {best.candidate.atoms.symbols}: {values}"


def relaxed_score(ranked: Ranked, targets: Sequence[Target]) -> float | None:
    """Score of the values after relaxation; None where there are none."""
    if ranked.relaxed_values is None:
        return None
    return score(ranked.relaxed_values.values, targets, ranked.relaxed_values.std)


def _header(
    space: DesignSpace, targets: Sequence[Target], config: DesignConfig, policy: Path | None
) -> dict[str, Any]:
    settings = asdict(config)
    settings.pop("top")
    return {
        "start": space.key(space.start),
        "formula": str(space.start.symbols),
        "targets": [target.describe() for target in targets],
        "tolerances": [target.tolerance for target in targets],
        "weights": [target.weight for target in targets],
        "cautions": [target.caution for target in targets],
        "config": settings,
        "policy": None if policy is None else str(policy),
    }
