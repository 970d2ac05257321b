"""Two conflicting targets: an alloy that is stable and stiff, by the exact oracle.

Formation energy is minimised and the bulk modulus maximised, with the weights that the targets'
tolerances give. What counts is the hypervolume of all that a run has evaluated: the area, in
eV/atom times GPa, between its Pareto front and the corner of 0 eV/atom and 0 GPa.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdgnn_design.bench_rows import resumed
from qdgnn_design.bench_tasks import Task
from qdgnn_design.methods import METHODS, method, optimise
from qdgnn_design.pareto import hypervolume, pareto_front
from qdgnn_design.problem import Problem
from qdgnn_design.targets import Target

Row = dict[str, Any]

TARGETS = (
    Target(name="formation_energy", goal="minimise", tolerance=0.01),
    Target(name="bulk_modulus", goal="maximise", tolerance=3.0),
)
BUDGETS = (50, 100, 200)
_REFERENCE = np.zeros(2)
"""eV/atom and GPa."""


def conflict_rows(
    task: Task, methods: Sequence[str] | None, n_seeds: int, path: Path
) -> Iterator[Row]:
    """Runs that the file lacks; all methods that need no goal to be trained if none are named."""
    chosen = methods or [name for name in METHODS if name != "goal"]
    heads = ({"method": name, "seed": seed} for seed in range(n_seeds) for name in chosen)
    return resumed(path, heads, lambda head: run_conflict(task, head["method"], head["seed"]))


def run_conflict(task: Task, name: str, seed: int) -> Row:
    """One run: hypervolume after each budget, and the front at its end."""
    problem = Problem(
        task.space, TARGETS, task.evaluator, budget=max(BUDGETS), features=task.features
    )
    optimise(problem, method(name, horizon=task.horizon), np.random.default_rng([17, seed]))
    rows = [o.values.values for o in problem.outcomes if o.values is not None]
    values = np.array([(-row["formation_energy"], row["bulk_modulus"]) for row in rows])
    return {
        "evaluations": problem.spent,
        "hypervolume": {str(n): hypervolume(values[:n], _REFERENCE) for n in BUDGETS},
        "front": values[pareto_front(values)].tolist(),
    }


def best_known(rows: Sequence[Row]) -> float:
    """Hypervolume of everything that all runs have found together."""
    return hypervolume(np.concatenate([_front(row) for row in rows]), _REFERENCE)


def _front(row: Row) -> NDArray[np.float64]:
    return np.array(row["front"], float)
