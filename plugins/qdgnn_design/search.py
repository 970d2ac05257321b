"""Search without learning: random, hill climb, simulated annealing, genetic, cross-entropy.

All are functions ``(problem, rng)`` that propose until the budget is spent (`BudgetSpent`).
"""

from __future__ import annotations

from math import exp, isfinite

import numpy as np
from ase import Atoms
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_ase import scale_volume, size_ratio
from qdgnn_design.actions import SITE
from qdgnn_design.oxidation import OXIDATION
from qdgnn_design.problem import Outcome, Problem
from qdgnn_design.space import BECAME, Candidate
from qdgnn_design.targets import squash

Array = NDArray[np.float64]

HORIZON = 8
"""Actions from the start to a fresh candidate, at most, unless told otherwise."""


def random_search(problem: Problem, rng: Generator, horizon: int = HORIZON) -> None:
    """Walks of random length from the start, each end evaluated."""
    problem([Candidate(problem.space.start)])
    while True:
        problem([problem.space.walk(rng, int(rng.integers(1, horizon + 1)))])


def hill_climb(problem: Problem, rng: Generator, horizon: int = HORIZON) -> None:
    """First improvement among the neighbours; from a random place again at each maximum."""
    current = problem([Candidate(problem.space.start)])[0]
    while True:
        better = _first_better(problem, current, rng)
        if better is None:
            better = problem([problem.space.walk(rng, horizon)])[0]
        current = better


def annealing(
    problem: Problem, rng: Generator, hot: float = 1.0, cold: float = 0.02, horizon: int = HORIZON
) -> None:
    """Metropolis steps at a temperature, in squashed scores, that falls with the budget."""
    current = problem([problem.space.walk(rng, horizon)])[0]
    while True:
        temperature = hot * (cold / hot) ** (problem.spent / problem.budget)
        trial = problem([problem.space.step(current.candidate, rng)])[0]
        change = squash(trial.score) - squash(current.score)
        if not isfinite(current.score) or change >= 0 or rng.random() < exp(change / temperature):
            current = trial


def genetic(
    problem: Problem, rng: Generator, size: int = 16, horizon: int = HORIZON, cross: float = 0.6
) -> None:
    """Tournaments of three, crossover of sites, mutation by one action, the best survive."""
    walks = [problem.space.walk(rng, int(rng.integers(1, horizon + 1))) for _ in range(size)]
    population = problem([Candidate(problem.space.start), *walks])
    while True:
        children = [_child(problem, population, rng, cross) for _ in range(size // 2)]
        merged = {outcome.key: outcome for outcome in (*population, *problem(children))}
        population = sorted(merged.values(), key=lambda outcome: -outcome.score)[:size]


def cross_entropy(
    problem: Problem,
    rng: Generator,
    size: int = 16,
    elite: int = 5,
    smoothing: float = 0.6,
    horizon: int = HORIZON,
) -> None:
    """Sequences of actions from weights that move towards those of the best of each generation."""
    weights = np.ones(len(problem.space.actions))
    best: list[Outcome] = problem([Candidate(problem.space.start)])
    while True:
        batch = [_weighted_walk(problem, rng, weights, horizon) for _ in range(size)]
        best = sorted([*best, *problem(batch)], key=lambda outcome: -outcome.score)[:elite]
        counts = np.zeros(len(weights))
        names = {action.name: k for k, action in enumerate(problem.space.actions)}
        for entry in (entry for outcome in best for entry in outcome.candidate.history):
            counts[names[entry.partition(BECAME)[0]]] += len(weights) / (elite * horizon)
        weights = (1 - smoothing) * weights + smoothing * (0.02 + counts)


def neighbours(problem: Problem, candidate: Candidate, rng: Generator) -> list[Candidate]:
    """One candidate per allowed action, in random order."""
    allowed = np.flatnonzero(problem.space.mask(candidate.atoms))
    return [problem.space.apply(int(k), candidate, rng) for k in rng.permutation(allowed)]


def _first_better(problem: Problem, current: Outcome, rng: Generator) -> Outcome | None:
    allowed = np.flatnonzero(problem.space.mask(current.candidate.atoms))
    for index in rng.permutation(allowed):
        trial = problem([problem.space.apply(int(index), current.candidate, rng)])[0]
        if trial.score > current.score:
            return trial
    return None


def _child(problem: Problem, population: list[Outcome], rng: Generator, cross: float) -> Candidate:
    first, second = (_winner(population, rng) for _ in range(2))
    child = first.candidate
    if rng.random() < cross:
        child = _crossed(problem, first.candidate, second.candidate, rng)
    if child is first.candidate or rng.random() < 0.5:
        child = problem.space.step(child, rng)
    return child


def _winner(population: list[Outcome], rng: Generator, n: int = 3) -> Outcome:
    drawn = rng.choice(len(population), size=min(n, len(population)), replace=False)
    return max([population[int(k)] for k in drawn], key=lambda outcome: outcome.score)


def _crossed(problem: Problem, first: Candidate, second: Candidate, rng: Generator) -> Candidate:
    """Some slots of the second parent in the first; the first where sites or charges do not fit."""
    a, b = first.atoms, second.atoms
    site = a.get_array(SITE)
    if len(a) != len(b) or not np.array_equal(site, b.get_array(SITE)):
        return first
    slots = [slot for slot in problem.space.slots if rng.random() < 0.5]
    taken = np.isin(site, [k for slot in slots for k in slot])
    child: Atoms = a.copy()
    child.numbers[taken] = b.numbers[taken]
    child.arrays[OXIDATION][taken] = b.arrays[OXIDATION][taken]
    if abs(child.arrays[OXIDATION].sum() - a.arrays[OXIDATION].sum()) > 1e-6:
        return first
    if problem.space.config.rescale:
        child = scale_volume(child, size_ratio(child, a))
    return Candidate(child, (*first.history, "crossover"))


def _weighted_walk(problem: Problem, rng: Generator, weights: Array, horizon: int) -> Candidate:
    candidate = Candidate(problem.space.start)
    for _ in range(int(rng.integers(1, horizon + 1))):
        share = weights * problem.space.mask(candidate.atoms)
        if share.sum() == 0:
            break
        index = int(rng.choice(len(share), p=share / share.sum()))
        candidate = problem.space.apply(index, candidate, rng)
    return candidate
