"""Benchmarks of qdgnn_ase beside other calculators; so far: faults on purpose.

``run_faults`` gives every case of ``all_cases()`` to every subject (ours, ASE's EMT, matgl's
M3GNet) and tells who gave a wrong answer in silence.
"""

from __future__ import annotations

from qdgnn_bench.faults import Case, NotApplicable, Result, Subject, score
from qdgnn_bench.run import all_cases, run_faults, summarise
from qdgnn_bench.subjects import emt, m3gnet, ours

__all__ = [
    "Case",
    "NotApplicable",
    "Result",
    "Subject",
    "all_cases",
    "emt",
    "m3gnet",
    "ours",
    "run_faults",
    "score",
    "summarise",
]
