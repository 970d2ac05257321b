"""DeepChem's optimisers with clipped gradients, and its schedules as it means them.

DeepChem 2.8's `PolynomialDecay` and `LinearCosineDecay` hand PyTorch's `LambdaLR` the rate where it
wants a factor of the first rate: training runs at the square of the rate, in silence.
"""

from __future__ import annotations

from typing import Any

from deepchem.models.optimizers import (
    LearningRateSchedule,
    LinearCosineDecay,
    Optimizer,
    PolynomialDecay,
)
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

CLIP = 1.0
"""Largest norm of a step's gradient. A network of vectors multiplies features with each other: at
high rates one wild batch throws it off for good."""


class Repaired(LearningRateSchedule):  # type: ignore[misc]  # DeepChem has no types
    """One of the two, at the rate that it says.

    Args:
        schedule: Schedule of DeepChem.
    """

    def __init__(self, schedule: PolynomialDecay | LinearCosineDecay) -> None:
        self.schedule = schedule
        self.initial_rate = schedule.initial_rate

    def _create_pytorch_schedule(self, optimizer: Any) -> LambdaLR:
        (rate,) = set(self.schedule._create_pytorch_schedule(optimizer).lr_lambdas)
        return LambdaLR(optimizer, lambda step: rate(step) / self.initial_rate)


class Clipped(Optimizer):  # type: ignore[misc]  # DeepChem has no types
    """An optimiser whose steps see gradients of norm `CLIP` at most, its schedule repaired.

    Args:
        optimizer: Optimiser of DeepChem.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        rate = optimizer.learning_rate
        wrong = isinstance(rate, PolynomialDecay | LinearCosineDecay)
        super().__init__(Repaired(rate) if wrong else rate)
        self.optimizer = optimizer

    def _create_pytorch_optimizer(self, params: Any) -> Any:
        made = self.optimizer._create_pytorch_optimizer(params)
        made.register_step_pre_hook(_clip)
        return made


def _clip(optimizer: Any, *_: Any) -> None:
    clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], CLIP)
