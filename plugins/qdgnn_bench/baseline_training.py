"""One training loop for all baselines: a budget of CPU time, AdamW, warm-up and cosine decay.

Scaled labels, mean absolute error, masked; weights averaged over steps; of the averages at each
tenth of the budget the one with the lowest validation error is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from qdgnn_ase import AtomGraph, collate

_EVALUATIONS = 10
_WARMUP = 0.05
_CLIP = 10.0
_EMA = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Graphs and their scaled labels."""

    graphs: Sequence[AtomGraph]
    labels: Tensor
    """(n_structures, n_targets); NaN = missing."""

    def batch(self, indices: Sequence[int]) -> tuple[AtomGraph, Tensor]:
        """Collated graphs and their labels."""
        return collate([self.graphs[i] for i in indices]), self.labels[list(indices)]


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a run."""

    model: nn.Module
    val_error: float
    """Mean absolute error of the scaled targets on the validation fold."""
    epochs: float
    """Passes over the training fold."""
    cpu_seconds: float


def train(
    model: nn.Module,
    train: Examples,
    val: Examples,
    *,
    cpu_seconds: float,
    learning_rate: float,
    seed: int,
    batch_size: int = 64,
) -> Trained:
    """Train until the CPU time is spent.

    Raises:
        FloatingPointError: If the validation error was never finite.
    """
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=1e-5)
    average = AveragedModel(model, multi_avg_fn=_moving_average, use_buffers=True)
    best, best_state, steps, evaluations = math.inf, None, 0, 0
    started = process_time()
    for indices in _batches(len(train.graphs), batch_size, seed):
        share = (process_time() - started) / cpu_seconds
        if share * _EVALUATIONS >= evaluations + 1 or share >= 1:
            evaluations += 1
            error = _mean_error(predictions(average.module, val.graphs), val.labels)
            if error < best:
                best = error
                best_state = {k: v.clone() for k, v in average.module.state_dict().items()}
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _rate(share)
        _step(model, optimizer, *train.batch(indices))
        average.update_parameters(model)
        steps += 1
    if best_state is None:
        raise FloatingPointError(f"validation error must be finite, got NaN after {steps} steps")
    model.load_state_dict(best_state)
    return Trained(model, best, steps * batch_size / len(train.graphs), process_time() - started)


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, graph: AtomGraph, labels: Tensor
) -> None:
    model.train()
    known = torch.isfinite(labels)
    loss = (model(graph)[known] - labels[known]).abs().mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
    optimizer.step()


def predictions(model: nn.Module, graphs: Sequence[AtomGraph], size: int = 64) -> Tensor:
    """Scaled values (n_structures, n_targets)."""
    model.eval()
    with torch.no_grad():
        parts = [model(collate(graphs[k : k + size])) for k in range(0, len(graphs), size)]
    return torch.cat(parts)


def _mean_error(values: Tensor, labels: Tensor) -> float:
    """Mean over the targets of the mean absolute error where there is a label."""
    return float((values - labels).abs().nanmean(dim=0).nanmean())


def _batches(n: int, size: int, seed: int) -> Iterator[list[int]]:
    """Endless shuffled batches; the last ones of an epoch may be smaller."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(n).tolist()
        yield from (order[k : k + size] for k in range(0, n, size))


@torch.no_grad()
def _moving_average(average: Any, current: Any, n: Tensor | int) -> None:
    """Exponential moving average that forgets its start; counters are copied."""
    share = 1 - min(_EMA, (1 + int(n)) / (10 + int(n)))
    if average[0].is_floating_point():
        torch._foreach_lerp_(average, current, share)
    else:
        torch._foreach_copy_(average, current)


def _rate(share: float) -> float:
    """Linear warm-up, then cosine decay to 1 %."""
    if share < _WARMUP:
        return max(share / _WARMUP, 0.01)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (share - _WARMUP) / (1 - _WARMUP)))
