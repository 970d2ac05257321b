"""The methods by name; each is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

from numpy.random import Generator

from qdgnn_design.problem import BudgetSpent, Problem

Method = Callable[[Problem, Generator], None]

_HOME = {
    "random": "search.random_search",
    "hill-climb": "search.hill_climb",
    "annealing": "search.annealing",
    "genetic": "search.genetic",
    "cross-entropy": "search.cross_entropy",
    "bayes": "bayes.bayesian",
    "reinforce": "policies.reinforce",
    "ppo": "policies.masked_ppo",
    "goal": "policies.policy_search",
    "hybrid": "bayes.hybrid",
}
METHODS = tuple(_HOME)
"""Names for `method`."""


def method(name: str, **options: Any) -> Method:
    """A method with options of its own, such as ``policy`` for "goal" and "hybrid".

    Raises:
        ValueError: If there is none of that name.
        ImportError: If a library of the extra ``design`` is missing.
    """
    if name not in _HOME:
        raise ValueError(f"method must be one of {list(METHODS)}, got {name!r}")
    module, function = _HOME[name].split(".")
    try:
        found: Method = getattr(import_module(f"qdgnn_design.{module}"), function)
    except ImportError as error:
        raise ImportError(
            f"method {name!r} needs {error.name}: pip install 'qdgnn-ase[design]'"
        ) from error
    return partial(found, **options) if options else found


def optimise(problem: Problem, run: Method, rng: Generator) -> Problem:
    """Run a method until the budget is spent; the problem then holds all outcomes."""
    with suppress(BudgetSpent):
        run(problem, rng)
    return problem
