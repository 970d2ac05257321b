"""What glibc keeps of freed memory, seen from outside: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FREED = """
from pathlib import Path
import torch
from qdgnn_ase.nn.speed import keep_freed_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if {keep}:
    keep_freed_memory()
before = resident_mb()
blocks = [torch.ones(2**21) for _ in range(40)]  # 8 MiB each
blocks.append(torch.ones(2**24))  # 64 MiB, by mmap unless told otherwise
del blocks
print(resident_mb() - before)
"""


def kept_mb(*, keep: bool, **environment: str) -> float:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    result = subprocess.run(
        [sys.executable, "-c", FREED.format(keep=keep)],
        capture_output=True,
        text=True,
        check=True,
        env=clean | environment,
    )
    return float(result.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_freed_memory_is_kept_unless_the_environment_says_otherwise() -> None:
    assert kept_mb(keep=True) > 300
    assert kept_mb(keep=False) < 100
    assert kept_mb(keep=True, MALLOC_TRIM_THRESHOLD_="131072") < 100
