"""Surrogate against oracle: what a search finds on a learned surrogate, judged by the oracle.

A Gaussian process per target learns the alloy's oracle from a few random structures. Each method
searches on the surrogate alone, until ten candidates meet the targets by its lights or the budget
is spent; the oracle then judges the ten best. Their share of hits by the surrogate minus that by
the oracle is the gap: what the search gained by the surrogate's errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_design.bayes import fit_process
from qdgnn_design.bench_rows import resumed
from qdgnn_design.bench_tasks import Task, remembered
from qdgnn_design.evaluate import Evaluator, Values
from qdgnn_design.methods import method, optimise
from qdgnn_design.problem import Problem
from qdgnn_design.targets import Target, is_hit

Array = NDArray[np.float64]
Row = dict[str, Any]

LABELS = 100
"""Structures that the surrogate learns; oracle calls."""
JUDGED = 10
"""Candidates of a run that the oracle judges."""
_BUDGET = 200
"""Surrogate calls of a run, at most."""
_COMPONENTS = 16
_METHODS = ("random", "hill-climb", "annealing", "genetic", "bayes", "ppo", "hybrid")


def gap_rows(
    task: Task, methods: Sequence[str] | None, n_goals: int, n_seeds: int, path: Path
) -> Iterator[Row]:
    """Runs that the file lacks; one surrogate per seed."""
    goals = [task.draw_goal(np.random.default_rng([7, k])) for k in range(n_goals)]
    surrogates: dict[int, Evaluator] = {}

    def measure(head: Row) -> Row:
        seed = head["seed"]
        if seed not in surrogates:
            surrogates[seed] = learned_surrogate(task, goals[0], np.random.default_rng([13, seed]))
        return run_gap(task, goals[head["goal"]], head["method"], seed, surrogates[seed])

    heads = (
        {"method": name, "goal": goal, "seed": seed}
        for seed in range(n_seeds)
        for goal in range(n_goals)
        for name in methods or _METHODS
    )
    return resumed(path, heads, measure)


def run_gap(task: Task, goal: tuple[Target, ...], name: str, seed: int, model: Evaluator) -> Row:
    """Search on the surrogate; hits among the best by the surrogate and by the oracle."""
    problem = Problem(
        task.space, goal, model, budget=_BUDGET, features=task.features, enough_hits=JUDGED
    )
    optimise(problem, method(name, horizon=task.horizon), np.random.default_rng([11, seed]))
    best = sorted(problem.outcomes, key=lambda outcome: -outcome.score)[:JUDGED]
    truth = task.evaluator([outcome.candidate.atoms for outcome in best])
    hits = [isinstance(value, Values) and is_hit(value.values, goal) for value in truth]
    return {
        "calls": problem.spent,
        "judged": len(best),
        "claimed": sum(outcome.hit for outcome in best),
        "true": sum(hits),
        "both": sum(o.hit and hit for o, hit in zip(best, hits, strict=True)),
    }


def learned_surrogate(
    task: Task, targets: Sequence[Target], rng: Generator, n: int = LABELS
) -> Evaluator:
    """Gaussian processes on different random structures with the oracle's values.

    Args:
        task: Space, features and oracle.
        targets: Properties to learn.
        rng: Draws the structures.
        n: Oracle calls; fewer where 20 times as many walks do not meet so many structures.
    """
    drawn: dict[str, Atoms] = {}
    for _ in range(20 * n):
        atoms = task.space.walk(rng, int(rng.integers(1, task.horizon + 1))).atoms
        drawn.setdefault(task.space.key(atoms), atoms)
        if len(drawn) == n:
            break
    labels = task.evaluator(list(drawn.values()))
    pairs = [(a, v) for a, v in zip(drawn.values(), labels, strict=True) if isinstance(v, Values)]
    features = task.features([atoms for atoms, _ in pairs])
    project = _projection(features)
    train = torch.tensor(project(features), dtype=torch.float64)
    models = {}
    for target in targets:
        column = [value.values[target.name] for _, value in pairs]
        models[target.name] = fit_process(train, torch.tensor(column, dtype=torch.float64))

    def evaluate(structures: Sequence[Atoms]) -> list[Values | str]:
        inputs = torch.tensor(project(task.features(structures)), dtype=torch.float64)
        with torch.no_grad():
            found = {name: model.posterior(inputs) for name, model in models.items()}
        means = {name: f.mean[:, 0].tolist() for name, f in found.items()}
        stds = {name: f.variance[:, 0].sqrt().tolist() for name, f in found.items()}
        return [
            Values({n: v[k] for n, v in means.items()}, {n: v[k] for n, v in stds.items()})
            for k in range(len(structures))
        ]

    return remembered(task.space, evaluate)


def _projection(features: Array) -> Callable[[Array], Array]:
    """On the leading principal components of ``features``, in units of the first one's spread."""
    center = features.mean(axis=0)
    left, sizes, axes = np.linalg.svd(features - center, full_matrices=False)
    unit = max(float((left[:, 0] * sizes[0]).std()), 1e-12)
    return lambda rows: np.asarray((rows - center) @ axes[:_COMPONENTS].T / unit)
