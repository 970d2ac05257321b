"""Speed of the surrogate and the valid share of proposals, for the design benchmark."""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
from ase import Atoms

from qdgnn_ase import Predictor, rattle
from qdgnn_design.bench_tasks import ANIONS, CATIONS, double_perovskite
from qdgnn_design.evaluate import surrogate
from qdgnn_design.oxidation import smact_valid
from qdgnn_design.problem import Problem
from qdgnn_design.space import DesignSpace, SpaceConfig
from qdgnn_design.targets import Target

Row = dict[str, Any]


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
