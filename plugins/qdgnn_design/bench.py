"""`qdgnn bench-design`: every method on equal budgets of unique evaluations.

Each run ends at the first candidate that meets all targets, or with its budget; how many runs have
hit after 50, 100 and 200 evaluations follows from that one number. Runs are kept line by line, so
the benchmark goes on where it was killed.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms
from rich.console import Console

from qdgnn_ase import Predictor, rattle
from qdgnn_design.bench_report import markdown, plot
from qdgnn_design.bench_tasks import (
    ANIONS,
    CATIONS,
    Task,
    double_perovskite,
    emt_task,
    perovskite_task,
)
from qdgnn_design.evaluate import surrogate
from qdgnn_design.methods import METHODS, method, optimise
from qdgnn_design.oxidation import smact_valid
from qdgnn_design.policies import load_policy, train_goal_policy
from qdgnn_design.problem import Problem
from qdgnn_design.space import DesignSpace, SpaceConfig
from qdgnn_design.targets import Target

Row = dict[str, Any]

BUDGETS = (50, 100, 200)
_WITH_POLICY = "hybrid+policy"
_TRAINING_CALLS = 100_000
"""Bound of the training calls; training ends by its steps."""


@click.command("bench-design")
@click.option("--output", "-o", "out", type=Path, required=True, help="Folder; resumed.")
@click.option("--task", "names", multiple=True, type=click.Choice(["EMT-fcc8", "perovskite"]))
@click.option("--methods", default=",".join([*METHODS, _WITH_POLICY]), show_default=True)
@click.option("--goals", default=20, show_default=True, help="Targets of the alloy.")
@click.option("--seeds", default=5, show_default=True, help="Runs per target.")
@click.option("--perovskite-goals", default=10, show_default=True)
@click.option("--perovskite-seeds", default=3, show_default=True)
@click.option("--training-steps", default=20_000, show_default=True, help="Of the goal policy.")
@click.option("--report-only", is_flag=True, help="Make the tables from the runs that exist.")
def bench(
    out: Path,
    names: tuple[str, ...],
    methods: str,
    goals: int,
    seeds: int,
    perovskite_goals: int,
    perovskite_seeds: int,
    training_steps: int,
    report_only: bool,
) -> None:
    """Calls to a hit of all methods on two tasks; writes design.json, .md and .png."""
    console = Console(markup=False)
    out.mkdir(parents=True, exist_ok=True)
    sizes = {"EMT-fcc8": (goals, seeds), "perovskite": (perovskite_goals, perovskite_seeds)}
    makers: dict[str, Callable[[Predictor], Task]] = {
        "EMT-fcc8": emt_task,
        "perovskite": perovskite_task,
    }
    predictor = Predictor()
    if not report_only:
        for name in names or tuple(makers):
            task = makers[name](predictor)
            for row in run_task(task, methods.split(","), *sizes[name], training_steps, out):
                console.print(f"{row['task']} {row['method']}: {row['calls'] or 'no hit'}")
        _once(out / "speed.json", lambda: speed(predictor))
        _once(out / "valid.json", lambda: valid_shares(predictor))
    document = summary(out)
    if not document["runs"]:
        raise click.UsageError(f"{out} must hold runs to report, got none; leave --report-only out")
    (out / "design.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "design.md").write_text(markdown(document))
    plot(document, out / "design.png")
    console.print(markdown(document), soft_wrap=True)


def run_task(
    task: Task, methods: list[str], n_goals: int, n_seeds: int, training_steps: int, out: Path
) -> Iterator[Row]:
    """Runs that are not in ``out`` yet; goals first, so that an early end is fair to all."""
    path = out / "runs.jsonl"
    _cut_half_line(path)
    done = {_run_key(row) for row in _lines(path)}
    goals = [task.draw_goal(np.random.default_rng([7, k])) for k in range(n_goals)]
    policy: Any = None
    for seed in range(n_seeds):
        for k, goal in enumerate(goals):
            for name in methods:
                head = {"task": task.name, "method": name, "goal": k, "seed": seed}
                if _run_key(head) in done:
                    continue
                if name in ("goal", _WITH_POLICY) and policy is None:
                    policy = _policy(task, training_steps, out)
                row = head | run_one(task, goal, name, seed, policy)
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                yield row


def run_one(task: Task, goal: tuple[Target, ...], name: str, seed: int, policy: Any) -> Row:
    """One method, one goal, one seed."""
    options: dict[str, Any] = {"horizon": task.horizon}
    if name in ("goal", _WITH_POLICY):
        options["policy"] = policy
    problem = Problem(
        task.space,
        goal,
        task.evaluator,
        budget=max(BUDGETS),
        features=task.features,
        stop_at_hit=True,
    )
    begun = time.process_time()
    search = method("hybrid" if name == _WITH_POLICY else name, **options)
    optimise(problem, search, np.random.default_rng([11, seed]))
    return {
        "calls": next((outcome.call for outcome in problem.outcomes if outcome.hit), None),
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
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, one thread",
        "budgets": list(BUDGETS),
        "policies": policies,
        "runs": _lines(out / "runs.jsonl"),
        **extras,
    }


def speed(predictor: Predictor, n: int = 1024) -> Row:
    """Evaluations per minute of distinct 20-atom cells, in batches, with their graphs."""
    cells = _cells(n)
    predictor(cells[:64])
    begun, clock = time.process_time(), time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for start in range(0, n, 128):
        predictor(cells[start : start + 128])
    cpu, wall = time.process_time() - begun, time.perf_counter() - clock
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "structures": n,
        "atoms": len(cells[0]),
        "per_cpu_minute": 60 * n / cpu,
        "per_minute": 60 * n / wall,
        "peak_memory_growth_mb": (after - before) / 1024,
    }


def valid_shares(predictor: Predictor, n: int = 500) -> list[Row]:
    """Share of proposals, by random walks of six actions, that pass the checks.

    The checks are neutrality and distances (the filter's), a finite evaluation, and smact's own
    search for oxidation states, which knows nothing of the actions' bookkeeping.
    """
    families = ("substitute", "pair", "aliovalent", "swap", "strain")
    starts = {
        "perovskite": double_perovskite(),
        "perovskite 2x2x1": double_perovskite() * (2, 2, 1),
    }
    rows = []
    for name, start in starts.items():
        config = SpaceConfig(elements=(*CATIONS, *ANIONS), families=families)
        space = DesignSpace(start, config)
        gap = Target(name="band_gap", low=1.0, high=1.0)
        problem = Problem(space, [gap], surrogate(predictor), budget=n + 1)
        rng = np.random.default_rng(5)
        walks = [space.walk(rng, 6) for _ in range(n)]
        outcomes = [outcome for k in range(0, n, 50) for outcome in problem(walks[k : k + 50])]
        rows.append(
            {
                "start": name,
                "proposed": n,
                "unique": problem.spent,
                "valid": sum(outcome.values is not None for outcome in outcomes) / n,
                "smact": sum(smact_valid(walk.atoms) for walk in walks) / n,
            }
        )
    return rows


def _cells(n: int) -> list[Atoms]:
    """Distinct 20-atom double perovskites, rattled by 0.02 Å."""
    rng = np.random.default_rng(3)
    return [rattle(double_perovskite() * (2, 1, 1), rng, 0.02) for _ in range(n)]


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


def _run_key(row: Row) -> tuple[str, str, int, int]:
    return row["task"], row["method"], row["goal"], row["seed"]


def _cut_half_line(path: Path) -> None:
    """The next row would go on in it."""
    if path.is_file():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def _lines(path: Path) -> list[Row]:
    """Complete lines of a file; a half one at the end is left out."""
    if not path.is_file():
        return []
    content = path.read_text()
    return [json.loads(line) for line in content[: content.rfind("\n") + 1].splitlines()]
