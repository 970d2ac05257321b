"""Loss and gradient of one batch, eager or compiled.

An objective takes a forward pass, a graph and targets to a loss. The compiled step holds forward
pass, loss and gradient in one program (``nn.compile``). On one CPU core it is about 3 times as fast
as the eager step, after a minute of work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from qdgnn_ase.data.dataset import Sample, Targets, join
from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.compile import check_sizes, compile_traced, graph_of, graph_tensors

Step = Callable[[Sample], tuple[Tensor, dict[str, Tensor], list[Tensor]]]
"""Batch -> loss, unweighted parts, gradient for each parameter."""
Objective = Callable[[Callable[..., Any], AtomGraph, Targets], tuple[Tensor, dict[str, Tensor]]]
"""Forward pass, graph, targets -> loss and its unweighted, detached parts."""


def make_step(
    model: nn.Module, objective: Objective, samples: Sequence[Sample], *, compiled: bool
) -> Step:
    """Eager or compiled step."""
    if not compiled:
        return eager_step(model, objective)
    return compiled_step(model, objective, example_batch(model, samples))


def eager_step(model: nn.Module, objective: Objective) -> Step:
    """Step that works everywhere."""
    parameters = list(model.parameters())

    def step(batch: Sample) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        loss, parts = objective(model, batch.graph, batch.targets)
        return loss.detach(), parts, list(torch.autograd.grad(loss, parameters))

    return step


def compiled_step(model: nn.Module, objective: Objective, example: Sample) -> Step:
    """The same step as one compiled program; needs a C++ compiler.

    Args:
        model: Its parameters are read at each call.
        objective: The loss.
        example: A batch to trace with; its sizes are symbolic afterwards. Sizes that equal a width
            of the model would be taken for that width.

    Raises:
        ValueError: If a size of ``example`` equals a width of the model or another size.
    """
    names = [name for name, _ in model.named_parameters()]
    buffers = dict(model.named_buffers())
    target_names = list(example.targets)
    part_names: list[str] = []
    eager = eager_step(model, objective)
    check_sizes(model, example.graph)

    def flat(values: list[Tensor], graph: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
        state = dict(zip(names, values, strict=True)) | buffers
        loss, parts = objective(
            lambda *inputs: functional_call(model, state, inputs),
            graph_of(graph, example.graph),
            dict(zip(target_names, targets, strict=True)),
        )
        part_names[:] = parts
        return [loss, *parts.values(), *torch.autograd.grad(loss, values)]

    program = compile_traced(flat, *_arguments(model, example))

    def step(batch: Sample) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        if batch.graph.n_graphs < 2:  # sizes 0 and 1 are never symbolic: would compile once more
            return eager(batch)
        with torch.no_grad():
            loss, *rest = program(*_arguments(model, batch))
        n = len(part_names)
        return loss, dict(zip(part_names, rest[:n], strict=True)), rest[n:]

    return step


def example_batch(model: nn.Module, samples: Sequence[Sample]) -> Sample:
    """A batch of the first few samples that :func:`check_sizes` accepts."""
    for n in range(2, len(samples) + 1):
        batch = join(samples[:n])
        try:
            check_sizes(model, batch.graph)
        except ValueError:
            continue
        return batch
    raise ValueError("a compiled step needs at least two training samples of distinct sizes")


def _arguments(model: nn.Module, batch: Sample) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    parameters = [parameter.detach().requires_grad_(True) for parameter in model.parameters()]
    return parameters, graph_tensors(batch.graph), list(batch.targets.values())
