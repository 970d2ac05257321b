"""`qdgnn bench-design`: every method on equal budgets of unique evaluations.

Each run of a task with goals ends at the first candidate that meets all targets, or with its
budget; how many runs have hit after 50, 100, 200 and 500 evaluations follows from that one number.
Two more tasks have measures of their own: `bench_conflict` (two conflicting targets) and
`bench_gap` (search on a learned surrogate, judged by the oracle). Runs are kept line by line, so
the benchmark goes on where it was killed, and grows by calls with more goals or other methods.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from qdgnn_ase import Predictor, measured
from qdgnn_design.bench_checks import speed, valid_shares
from qdgnn_design.bench_conflict import conflict_rows
from qdgnn_design.bench_gap import gap_rows
from qdgnn_design.bench_report import markdown, plot
from qdgnn_design.bench_rows import read_rows, resumed
from qdgnn_design.bench_tasks import Task, defects_task, emt_task, garnet_task, perovskite_task
from qdgnn_design.methods import METHODS, method, optimise
from qdgnn_design.policies import load_policy, train_goal_policy
from qdgnn_design.problem import Problem
from qdgnn_design.targets import Target

Row = dict[str, Any]

BUDGETS = (50, 100, 200, 500)
_WITH_POLICY = "hybrid+policy"
_TRAINING_CALLS = 100_000
"""Bound of the training calls; training ends by its steps."""
_MAKERS: dict[str, Callable[[Predictor], Task]] = {
    "EMT-fcc8": emt_task,
    "strain+defects": defects_task,
    "perovskite": perovskite_task,
    "garnet": garnet_task,
}
_SIZES = {
    "EMT-fcc8": (20, 5),
    "strain+defects": (10, 3),
    "perovskite": (10, 3),
    "garnet": (10, 3),
    "conflict": (1, 5),
    "gap": (10, 3),
}
"""Goals, and runs of each."""


@click.command("bench-design")
@click.option("--output", "-o", "out", type=Path, required=True, help="Folder; resumed.")
@click.option(
    "--task", "names", multiple=True, type=click.Choice(list(_SIZES)), help="All if none."
)
@click.option("--methods", help=f"Of {', '.join([*METHODS, _WITH_POLICY])}; all that a task takes.")
@click.option("--goals", type=click.IntRange(1), help="If not those of the task.")
@click.option("--seeds", type=click.IntRange(1), help="Runs per goal, if not those of the task.")
@click.option("--training-steps", default=10_000, show_default=True, help="Of the goal policy.")
@click.option("--report-only", is_flag=True, help="Make the tables from the runs that exist.")
def bench(out: Path, names: tuple[str, ...], report_only: bool, **options: Any) -> None:
    """All methods at equal budgets on six tasks; writes design.json, .md and .png.

    The same folder takes several calls, such as fewer goals for a slow method; the tables count.
    """
    console = Console(markup=False)
    out.mkdir(parents=True, exist_ok=True)
    if not report_only:
        predictor = Predictor()
        for name in names or _SIZES:
            for row in _rows(name, predictor, out, options):
                console.print(", ".join(f"{key} {value}" for key, value in row.items()))
        _once(out / "speed.json", speed)
        _once(out / "valid.json", lambda: valid_shares(predictor))
    document = summary(out)
    if not document["runs"]:
        raise click.UsageError(f"{out} must hold runs to report, got none; leave --report-only out")
    (out / "design.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "design.md").write_text(markdown(document))
    plot(document, out / "design.png")
    console.print(markdown(document), soft_wrap=True)


def _rows(name: str, predictor: Predictor, out: Path, options: Row) -> Iterator[Row]:
    """New rows of one task."""
    goals, seeds = (
        options[key] or size for key, size in zip(("goals", "seeds"), _SIZES[name], strict=True)
    )
    methods = options["methods"].split(",") if options["methods"] else None
    untrained = [each for each in METHODS if each != "goal"]
    known = untrained if name in ("conflict", "gap") else [*METHODS, _WITH_POLICY]
    if unknown := sorted(set(methods or ()) - set(known)):
        raise click.UsageError(f"--methods of {name} must be of {known}, got {unknown}")
    if name == "conflict":
        return conflict_rows(emt_task(predictor), methods, seeds, out / "conflict.jsonl")
    if name == "gap":
        return gap_rows(emt_task(predictor), methods, goals, seeds, out / "gap.jsonl")
    return run_task(
        _MAKERS[name](predictor), methods or known, goals, seeds, options["training_steps"], out
    )


def run_task(
    task: Task, methods: list[str], n_goals: int, n_seeds: int, training_steps: int, out: Path
) -> Iterator[Row]:
    """Runs that are not in ``out`` yet; goals first, so that an early end is fair to all."""
    goals = [task.draw_goal(np.random.default_rng([7, k])) for k in range(n_goals)]
    policies: list[Any] = []

    def measure(head: Row) -> Row:
        name = head["method"]
        if name in ("goal", _WITH_POLICY) and not policies:
            policies.append(_policy(task, training_steps, out))
        return run_one(task, goals[head["goal"]], name, head["seed"], next(iter(policies), None))

    heads = (
        {"task": task.name, "method": name, "goal": goal, "seed": seed}
        for seed in range(n_seeds)
        for goal in range(n_goals)
        for name in methods
    )
    return resumed(out / "runs.jsonl", heads, measure)


def run_one(task: Task, goal: tuple[Target, ...], name: str, seed: int, policy: Any) -> Row:
    """One method, one goal, one seed."""
    options: dict[str, Any] = {"horizon": task.horizon}
    if name in ("goal", _WITH_POLICY):
        options["policy"] = policy
    problem = Problem(
        task.space,
        goal,
        task.evaluator,
        budget=task.budget,
        features=task.features,
        enough_hits=1,
    )
    begun = time.process_time()
    search = method("hybrid" if name == _WITH_POLICY else name, **options)
    optimise(problem, search, np.random.default_rng([11, seed]))
    return {
        "calls": next((outcome.call for outcome in problem.outcomes if outcome.hit), None),
        "budget": task.budget,
        "evaluations": problem.spent,
        "proposed": problem.n_proposed,
        "rejected": problem.n_rejected,
        "failed": sum(outcome.values is None for outcome in problem.outcomes),
        "cpu_seconds": round(time.process_time() - begun, 2),
    }


def summary(out: Path) -> Row:
    """Everything that was measured, as one document."""
    extras = {
        name: json.loads((out / f"{name}.json").read_text())
        for name in ("speed", "valid")
        if (out / f"{name}.json").is_file()
    }
    policies = [json.loads(path.read_text()) for path in sorted(out.glob("policy_*.json"))]
    return {
        **measured(),
        "threads": 1,
        "budgets": list(BUDGETS),
        "policies": policies,
        "runs": read_rows(out / "runs.jsonl"),
        "conflict": read_rows(out / "conflict.jsonl"),
        "gap": read_rows(out / "gap.jsonl"),
        **extras,
    }


def _policy(task: Task, steps: int, out: Path) -> Any:
    """The task's goal-conditioned policy, trained on goals that the benchmark does not use."""
    path = out / f"policy_{task.name}.zip"
    note = path.with_suffix(".json")
    if not note.is_file():
        goal = task.draw_goal(np.random.default_rng(0))
        problem = Problem(
            task.space, goal, task.evaluator, budget=_TRAINING_CALLS, features=task.features
        )
        begun = time.process_time()
        rng = np.random.default_rng(1)
        calls = train_goal_policy(
            problem, rng, task.draw_goal, path, steps=steps, horizon=task.horizon
        )
        cpu = round(time.process_time() - begun)
        record = {"task": task.name, "steps": steps, "training_calls": calls, "cpu_seconds": cpu}
        note.write_text(json.dumps(record))
    return load_policy(path)


def _once(path: Path, measure: Callable[[], Any]) -> None:
    if not path.is_file():
        path.write_text(json.dumps(measure(), indent=1))
