"""Speed of the surrogate and the valid share of proposals, for the design benchmark."""

from __future__ import annotations

import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from ase import Atoms

from qdgnn_ase import Predictor, rattle, tight_binding
from qdgnn_design.bench_tasks import ANIONS, CATIONS, double_perovskite
from qdgnn_design.evaluate import surrogate
from qdgnn_design.oxidation import smact_valid
from qdgnn_design.problem import Problem
from qdgnn_design.space import DesignSpace, SpaceConfig
from qdgnn_design.targets import Target

Row = dict[str, Any]
_BATCH = 128


def speed(n: int = 2048, processes: int = 2) -> Row:
    """Evaluations per minute of distinct 20-atom cells, in batches, with their graphs.

    Args:
        n: Cells of each process.
        processes: That work at the same time, one thread each.
    """
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_evaluate, [n] * processes, range(processes)))
    wall = max(part["end"] for part in parts) - min(part["begin"] for part in parts)
    cells = _cells(16, 0)
    clock = time.process_time()
    for atoms in cells:
        tight_binding(atoms)
    return {
        "structures": n * processes,
        "atoms": len(cells[0]),
        "processes": processes,
        "per_cpu_minute": 60 * n * processes / sum(part["cpu"] for part in parts),
        "per_minute": 60 * n * processes / wall,
        "t1_cpu_ms": 1e3 * (time.process_time() - clock) / len(cells),
        "memory_growth_mb": max(part["growth_mb"] for part in parts),
    }


def _evaluate(n: int, seed: int) -> Row:
    """Times of n cells in this process, and what its peak of memory grew by after the first."""
    torch.set_num_threads(1)
    predictor, cells = Predictor(), _cells(n, seed)
    predictor(cells[:_BATCH])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin, clock = time.monotonic(), time.process_time()
    for start in range(0, n, _BATCH):
        predictor(cells[start : start + _BATCH])
    return {
        "begin": begin,
        "end": time.monotonic(),
        "cpu": time.process_time() - clock,
        "growth_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
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


def _cells(n: int, seed: int) -> list[Atoms]:
    """Distinct 20-atom double perovskites, rattled by 0.02 Å."""
    rng = np.random.default_rng([3, seed])
    return [rattle(double_perovskite() * (2, 1, 1), rng, 0.02) for _ in range(n)]
