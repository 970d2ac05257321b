"""Loss and gradient of one batch, eager or compiled.

The compiled step holds energy, forces, loss and its gradient in one program (``nn.compile``). On
one CPU core it is about 3 times as fast as the eager step, after a minute of work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from qdgnn_ase.data.dataset import Sample, join
from qdgnn_ase.nn.compile import check_sizes, compile_traced, graph_of, graph_tensors
from qdgnn_ase.nn.derivatives import energy_forces_stress
from qdgnn_ase.training.losses import LossWeights, potential_loss

Step = Callable[[Sample], tuple[Tensor, dict[str, Tensor], list[Tensor]]]
"""Batch -> loss, unweighted parts, gradient for each parameter."""

_TARGETS = ("energy", "forces", "stress")


def eager_step(model: nn.Module, weights: LossWeights) -> Step:
    """Step that works everywhere."""
    parameters = list(model.parameters())

    def step(batch: Sample) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        output = energy_forces_stress(model, batch.graph, training=True)
        loss, parts = potential_loss(output, batch.targets, batch.graph, weights)
        return loss.detach(), parts, list(torch.autograd.grad(loss, parameters))

    return step


def compiled_step(model: nn.Module, weights: LossWeights, example: Sample) -> Step:
    """The same step as one compiled program; needs a C++ compiler.

    Args:
        model: Its parameters are read at each call.
        weights: Weights of the loss.
        example: A batch to trace with; its sizes are symbolic afterwards. Sizes that equal a width
            of the model would be taken for that width.

    Raises:
        ValueError: If a size of ``example`` equals a width of the model or another size.
    """
    names = [name for name, _ in model.named_parameters()]
    buffers = dict(model.named_buffers())
    eager = eager_step(model, weights)
    check_sizes(model, example.graph)

    def flat(values: list[Tensor], graph: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
        state = dict(zip(names, values, strict=True)) | buffers
        batch = graph_of(graph)
        output = energy_forces_stress(
            lambda g, r: functional_call(model, state, (g, r)), batch, training=True
        )
        loss, parts = potential_loss(
            output, dict(zip(_TARGETS, targets, strict=True)), batch, weights
        )
        return [loss, *parts.values(), *torch.autograd.grad(loss, values)]

    program = compile_traced(flat, *_arguments(model, example))

    def step(batch: Sample) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        if batch.graph.n_graphs < 2:  # sizes 0 and 1 are never symbolic: would compile once more
            return eager(batch)
        with torch.no_grad():
            loss, *rest = program(*_arguments(model, batch))
        n = len(_TARGETS)
        return loss, dict(zip(_TARGETS, rest[:n], strict=True)), rest[n:]

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
    return parameters, graph_tensors(batch.graph), [batch.targets[name] for name in _TARGETS]
