"""Materials design: from a starting structure and targets to candidates that meet them.

    space = DesignSpace(start, SpaceConfig(elements=("Br", "Cl")))
    targets = [parse_target("band_gap=1.3")]
    problem = Problem(space, targets, surrogate(Predictor(), targets), budget=100)
    optimise(problem, method("hill-climb"), numpy.random.default_rng(0))
    print(problem.best)

`design` does all of it with a log, a filter and reports; so does the command `qdgnn design`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdgnn_design.env import DesignEnv
    from qdgnn_design.evaluate import Values, from_functions, surrogate
    from qdgnn_design.filters import Residual, Verdict, elastic_matrix
    from qdgnn_design.hull import energy_above_hull
    from qdgnn_design.methods import METHODS, method, optimise
    from qdgnn_design.oxidation import with_oxidation
    from qdgnn_design.pareto import hypervolume, pareto_front
    from qdgnn_design.problem import BudgetSpent, EvaluationLog, Outcome, Problem
    from qdgnn_design.run import DesignConfig, DesignResult, design
    from qdgnn_design.space import Candidate, DesignSpace, SpaceConfig
    from qdgnn_design.targets import Target, parse_target

_HOME = {
    "BudgetSpent": "problem",
    "Candidate": "space",
    "DesignConfig": "run",
    "DesignEnv": "env",
    "DesignResult": "run",
    "DesignSpace": "space",
    "EvaluationLog": "problem",
    "METHODS": "methods",
    "Outcome": "problem",
    "Problem": "problem",
    "Residual": "filters",
    "SpaceConfig": "space",
    "Target": "targets",
    "Values": "evaluate",
    "Verdict": "filters",
    "design": "run",
    "elastic_matrix": "filters",
    "energy_above_hull": "hull",
    "from_functions": "evaluate",
    "hypervolume": "pareto",
    "method": "methods",
    "optimise": "methods",
    "pareto_front": "pareto",
    "parse_target": "targets",
    "surrogate": "evaluate",
    "with_oxidation": "oxidation",
}

__all__ = [
    "METHODS",
    "BudgetSpent",
    "Candidate",
    "DesignConfig",
    "DesignEnv",
    "DesignResult",
    "DesignSpace",
    "EvaluationLog",
    "Outcome",
    "Problem",
    "Residual",
    "SpaceConfig",
    "Target",
    "Values",
    "Verdict",
    "design",
    "elastic_matrix",
    "energy_above_hull",
    "from_functions",
    "hypervolume",
    "method",
    "optimise",
    "pareto_front",
    "parse_target",
    "surrogate",
    "with_oxidation",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
