"""Compiled programs: one flat graph with symbolic sizes, traced through the derivatives.

``torch.compile`` refuses double backward and breaks at ``autograd.grad``, so the work is done in
two moves: ``make_fx`` traces a function, derivatives included, into one graph, which is then
compiled by inductor. Sizes 0 and 1 are never symbolic, and a size that equals a width of the model
would be taken for that width: trace with an example that :func:`check_sizes` accepts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from ase import Atoms
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from qdgnn_ase.graph import AtomGraph, collate, from_atoms
from qdgnn_ase.nn.derivatives import energy_forces_stress
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.speed import tune_process
from qdgnn_ase.quantum.atomic import N_ELEMENTS

_OUTPUTS = ("energy", "energies", "forces", "stress")

Program = Callable[..., list[Tensor]]


class CompilationWarning(RuntimeWarning):
    """A program could not be compiled; the eager one gives the same numbers, more slowly."""


def compile_traced(function: Program, *arguments: Any) -> Program:
    """``function`` as one compiled program; needs a C++ compiler.

    Args:
        function: Takes lists of tensors, returns a list of tensors; may call ``autograd.grad``.
        *arguments: Example to trace with; its sizes are symbolic afterwards.
    """
    trace = make_fx(
        lambda *inputs: function(*inputs), tracing_mode="symbolic", _allow_non_fake_inputs=True
    )
    # loops that inductor (torch 2.13) spreads over threads write beyond their buffers now and then:
    # the heap was damaged after a few training steps; the matrix products still use all threads
    program: Program = torch.compile(trace(*arguments), dynamic=True, options={"cpp.threads": 1})
    return program


def graph_tensors(graph: AtomGraph) -> list[Tensor]:
    """The tensors of a graph in the order that :func:`graph_of` takes."""
    return list(graph.tensors().values())


def graph_of(tensors: Sequence[Tensor], like: AtomGraph) -> AtomGraph:
    """Inverse of :func:`graph_tensors` for a graph with the fields of ``like``."""
    return AtomGraph(**dict(zip(like.tensors(), tensors, strict=True)))


def check_sizes(model: nn.Module, graph: AtomGraph) -> None:
    """Raise ValueError unless the sizes of a batch differ from each other and from all widths."""
    sizes = [graph.n_graphs, graph.numbers.shape[0], graph.n_edges]
    widths = {1, 2, 3} | {size for row in model.state_dict().values() for size in row.shape}
    if graph.occupancies is not None:
        widths |= {graph.occupancies.shape[1], N_ELEMENTS}
    if graph.conditions is not None:
        widths.add(graph.conditions.shape[1])
    if len(set(sizes)) < len(sizes) or widths & set(sizes):
        raise ValueError(
            f"sizes of the traced batch must be distinct and none of {sorted(widths)}, got {sizes}"
        )


class CompiledPotential:
    """``energy_forces_stress`` of one model, compiled at the first call, in a tuned process.

    Where that fails (no C++ compiler), one ``CompilationWarning`` and the eager numbers. Copies and
    pickles hold the model and compile for themselves.

    Args:
        model: A ``QDGNN`` whose weights do not change any more.
    """

    def __init__(self, model: QDGNN) -> None:
        self.model = model
        self._program: Program | None = None
        self._failed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledPotential, (self.model,)

    def __call__(self, graph: AtomGraph) -> dict[str, Tensor]:
        """Energy, energies, forces and stress as ``energy_forces_stress`` gives them."""
        if self._program is None and not self._failed:
            self._compile(graph)
        if self._program is None or graph.n_edges < 2 or graph.occupancies is not None:
            return energy_forces_stress(self.model, graph)
        with torch.no_grad():
            rows = self._program(self._state(), graph_tensors(_padded(graph)))
        energy, energies, forces, stress = rows
        return dict(
            zip(_OUTPUTS, (energy[:-1], energies[:-1], forces[:-1], stress[:-1]), strict=True)
        )

    def _compile(self, graph: AtomGraph) -> None:
        tune_process()
        like = _example(self.model, graph)
        example = graph_tensors(like)

        def flat(state: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
            named = dict(zip(self.model.state_dict(), state, strict=True))
            output = energy_forces_stress(
                lambda g, r: functional_call(self.model, named, (g, r)), graph_of(tensors, like)
            )
            return [output[name] for name in _OUTPUTS]

        try:
            program = compile_traced(flat, self._state(), example)
            with torch.no_grad():
                program(self._state(), example)  # inductor works at the first call
        except Exception as error:  # inductor and the compiler fail in many ways
            self._failed = True
            warnings.warn(
                f"fast mode could not compile the potential and goes on without: {error!r:.200}; "
                "it needs a C++ compiler (g++ or clang++)",
                CompilationWarning,
                stacklevel=2,
            )
        else:
            self._program = program

    def _state(self) -> list[Tensor]:
        return list(self.model.state_dict().values())


def _padded(graph: AtomGraph) -> AtomGraph:
    """The batch and a lone atom: a batch of one would be a size of its own."""
    last = graph.numbers[-1:]
    return AtomGraph(
        numbers=torch.cat([graph.numbers, last]),
        positions=torch.cat([graph.positions, torch.zeros_like(graph.positions[:1])]),
        cell=torch.cat([graph.cell, torch.zeros_like(graph.cell[:1])]),
        edge_index=graph.edge_index,
        edge_shift=graph.edge_shift,
        batch=torch.cat([graph.batch, graph.batch[-1:] + 1]),
        pbc=torch.cat([graph.pbc, torch.zeros_like(graph.pbc[:1])]),
        n_atoms=torch.cat([graph.n_atoms, torch.ones_like(graph.n_atoms[:1])]),
    )


def _example(model: QDGNN, graph: AtomGraph) -> AtomGraph:
    """A small batch of sizes that :func:`check_sizes` accepts, like ``graph`` else."""
    cutoff = model.config.cutoff
    chain = Atoms("He3", [[0.6 * cutoff * k, 0, 0] for k in range(3)])
    one = from_atoms(chain, cutoff, graph.positions.dtype).to(graph.positions.device)
    n = 4
    while True:
        example = collate([one] * n)  # n graphs, 3 n atoms, 4 n edges
        try:
            check_sizes(model, example)
        except ValueError:
            n += 1
            continue
        return example
