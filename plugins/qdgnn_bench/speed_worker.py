"""One subject at one size in a process of its own: its memory is its own, its times too."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator

from qdgnn_ase import QDGNNCalculator, from_atoms, load_model, tune_process
from qdgnn_bench.speed_cells import speed_cell

Row = dict[str, Any]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_STEP = 1e-3
"""Å, by which every atom moves between two calls: no cache of the calculator can serve."""


@dataclass(frozen=True)
class Contender:
    """Who computes, and how; plain data that a new process can take."""

    name: str
    """qdgnn, chgnet or m3gnet."""
    tuned: bool = False
    """Ours with ``fast=True``, the others in a process tuned by the same switches."""
    path: str = "default"
    """Ours: model; m3gnet: model folder, or "" for random weights."""

    @property
    def mode(self) -> str:
        """Name of the mode in tables."""
        return "tuned" if self.tuned else "default"

    def calculator(self) -> Calculator:
        """The ASE calculator, on the CPU."""
        if self.name == "qdgnn":
            return QDGNNCalculator(self.path, device="cpu", fast=self.tuned)
        if self.tuned:
            tune_process()
        if self.name == "chgnet":
            from qdgnn_matgl import load_chgnet

            return load_chgnet()
        if self.path:
            from qdgnn_matgl import load_m3gnet

            return load_m3gnet(self.path)
        from qdgnn_bench.subjects import m3gnet

        return m3gnet().calculator()


class Worker:
    """A process with one contender and one structure that answers calls.

    Args:
        contender: Who computes.
        n_atoms: Size, see ``speed_cell``.
    """

    def __init__(self, contender: Contender, n_atoms: int) -> None:
        self._pipe, end = get_context("spawn").Pipe()
        self._process = get_context("spawn").Process(
            target=_serve, args=(contender, n_atoms, end), daemon=True
        )
        with one_thread():
            self._process.start()
        end.close()

    def ask(self, question: str) -> Row:
        """Answer to "call" (seconds of one call), "memory" (MB) or "shares" (ms, FLOPs).

        Raises:
            RuntimeError: If the process failed; the message tells why.
        """
        try:
            self._pipe.send(question)
            answer: Row | str = self._pipe.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError("the process of the benchmark died; out of memory?") from error
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for BLAS and OpenMP in processes that start inside."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _serve(contender: Contender, n_atoms: int, pipe: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answers: dict[str, Callable[[], Row]] | None = None
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return  # closed by the other side
        try:
            answers = answers or _answers(contender, n_atoms)
            pipe.send(answers[question]())
        except Exception as error:  # handed over: the other side raises
            pipe.send(f"{contender.name}, {n_atoms} atoms: {error!r}")


def _answers(contender: Contender, n_atoms: int) -> dict[str, Callable[[], Row]]:
    atoms, generator = speed_cell(n_atoms), np.random.default_rng(0)
    atoms.calc = contender.calculator()
    start = _start_peak()
    return {
        "call": lambda: _call(atoms, generator),
        "memory": lambda: {"memory_mb": status_mb("VmHWM") - start},
        "shares": lambda: _shares(contender, atoms),
    }


def _call(atoms: Atoms, generator: np.random.Generator) -> Row:
    atoms.positions += generator.normal(scale=_STEP, size=atoms.positions.shape)
    cpu, wall = time.process_time(), time.perf_counter()
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def _start_peak() -> float:
    """Memory of the process now, MB; its peak counts from here (Linux, elsewhere NaN)."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")
    return status_mb("VmRSS")


def status_mb(name: str) -> float:
    """Memory of this process in MB as Linux counts it, e.g. VmHWM; NaN on other systems."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    kilobytes = [float(line.split()[1]) for line in lines if line.startswith(f"{name}:")]
    return kilobytes[0] / 1024 if kilobytes else float("nan")


def _shares(contender: Contender, atoms: Atoms) -> Row:
    """CPU ms of graph, forward and backward pass of ours (eager), and the FLOPs of its GEMMs."""
    from torch.utils.flop_counter import FlopCounterMode

    model = load_model(contender.path)[0].eval().requires_grad_(False)
    graph = from_atoms(atoms, model.config.cutoff)
    vector = graph.edge_vectors().requires_grad_(True)

    def forward() -> torch.Tensor:
        energy: torch.Tensor = model(graph, vector.clone())["energy"].sum()
        return energy

    def both() -> None:
        torch.autograd.grad(forward(), vector)

    with FlopCounterMode(display=False, custom_mapping=_ONEDNN_FLOPS) as counter:
        both()
    build_ms = _cpu_ms(lambda: from_atoms(atoms, model.config.cutoff))
    forward_ms = _cpu_ms(forward)
    return {
        "edges": graph.n_edges,
        "graph_ms": build_ms,
        "forward_ms": forward_ms,
        "backward_ms": _cpu_ms(both) - forward_ms,
        "gemm_flops": counter.get_total_flops(),
        "gemm_flops_per_s": _gemm_rate(),
    }


def _linear_flops(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """FLOPs of x W^T from the shapes."""
    return 2 * x[0] * weight[0] * weight[1]


_ONEDNN_FLOPS = (
    {torch.ops.mkldnn._linear_pointwise: _linear_flops}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise")
    else {}
)
"""What torch's counter does not know: the products of `qdgnn_ase.nn.linear`."""


def _gemm_rate(n: int = 1024) -> float:
    """FLOP/s of a float32 matrix product by the faster of torch's libraries."""
    a, b = torch.rand(n, n), torch.rand(n, n)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # oneDNN in place of MKL
    try:
        return 2 * n**3 / (1e-3 * _cpu_ms(lambda: a @ b))
    finally:
        torch.set_float32_matmul_precision(before)


def _cpu_ms(function: Callable[[], object], repeats: int = 5) -> float:
    """Least CPU time of a few calls after a first one."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1e3 * min(times)
