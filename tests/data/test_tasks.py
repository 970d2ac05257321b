"""Many computations: order, resumption, failures, processes and a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from qdgnn_ase import run_tasks


def counted(calls: list[int]) -> Callable[[int], dict[str, Any]]:
    def work(number: int) -> dict[str, Any]:
        calls.append(number)
        return {"square": number**2}

    return work


def items(n: int) -> list[tuple[str, int]]:
    return [(f"n{number}", number) for number in range(n)]


def square(number: int) -> dict[str, Any]:
    if number == 2:
        raise ArithmeticError("two")
    return {"square": number**2, "process": os.getpid()}


def test_rows_come_in_order_and_are_not_computed_again(tmp_path: Path) -> None:
    calls: list[int] = []
    seen: list[tuple[int, int]] = []
    output = tmp_path / "folder" / "rows.jsonl"
    run_tasks(counted(calls), items(2), output)
    rows = run_tasks(
        counted(calls), items(4), output, progress=lambda done, total, _: seen.append((done, total))
    )
    assert calls == [0, 1, 2, 3]
    assert seen == [(3, 4), (4, 4)]
    assert rows == [{"key": f"n{n}", "square": n**2} for n in range(4)]
    assert [row["key"] for row in run_tasks(counted(calls), reversed(items(3)), output)] == [
        "n2",
        "n1",
        "n0",
    ]
    assert len(calls) == 4


def test_failures_are_rows(tmp_path: Path) -> None:
    rows = run_tasks(square, items(4), tmp_path / "rows.jsonl")
    assert rows[2] == {"key": "n2", "failure": "ArithmeticError('two')"}
    assert rows[3]["square"] == 9


def test_half_a_line_is_computed_again(tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    run_tasks(counted([]), items(3), output)
    text = output.read_text()
    output.write_text(text[:-7])
    calls: list[int] = []
    run_tasks(counted(calls), items(3), output)
    assert calls == [2]
    assert output.read_text() == text


def test_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quick_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)  # the processes import it too
    work = import_module("quick_work").work
    rows = run_tasks(work, items(4), tmp_path / "rows.jsonl", jobs=2)
    assert [row["key"] for row in rows] == ["n0", "n1", "n2", "n3"]
    assert os.getpid() not in {row["process"] for row in rows}


@pytest.mark.parametrize(("jobs", "n"), [(0, 2), (-1, 2)])
def test_bad_jobs_are_refused(tmp_path: Path, jobs: int, n: int) -> None:
    with pytest.raises(ValueError, match="jobs must be >= 1"):
        run_tasks(square, items(n), tmp_path / "rows.jsonl", jobs=jobs)


def test_repeated_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'n0' twice"):
        run_tasks(square, [*items(2), ("n0", 5)], tmp_path / "rows.jsonl")


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[2])
from qdgnn_ase import run_tasks
from slow_work import work
if __name__ == "__main__":
    run_tasks(work, [(f"n{n}", n) for n in range(40)], sys.argv[1], jobs=2)
"""
WORK = """
import os, time
def work(number):
    time.sleep(0.05 if number < 4 else 30)
    return {"process": os.getpid()}
"""


@pytest.mark.slow
def test_kill_keeps_the_rows_and_leaves_no_worker(tmp_path: Path) -> None:
    (tmp_path / "slow_work.py").write_text(WORK)
    (tmp_path / "script.py").write_text(SCRIPT)
    output = tmp_path / "rows.jsonl"
    run = subprocess.Popen([sys.executable, tmp_path / "script.py", output, tmp_path])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if output.is_file() and len(output.read_text().splitlines()) == 4:
            break
        time.sleep(0.1)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert {row["key"] for row in rows} == {"n0", "n1", "n2", "n3"}
    run.send_signal(signal.SIGKILL)
    run.wait()
    workers = {row["process"] for row in rows}
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in workers):
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert len(output.read_text().splitlines()) == 4
