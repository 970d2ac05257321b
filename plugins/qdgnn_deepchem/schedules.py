"""Learning-rate schedules as DeepChem means them.

DeepChem 2.8's `PolynomialDecay` and `LinearCosineDecay` hand PyTorch's `LambdaLR` the rate where it
wants a factor of the first rate: training runs at the square of the rate, in silence.
"""

from __future__ import annotations

import copy
from typing import Any

from deepchem.models.optimizers import (
    LearningRateSchedule,
    LinearCosineDecay,
    Optimizer,
    PolynomialDecay,
)
from torch.optim.lr_scheduler import LambdaLR


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


def repaired(rate: Any) -> Any:
    """The rate or schedule itself, or its repair; an optimiser with such a schedule as a copy."""
    if isinstance(rate, PolynomialDecay | LinearCosineDecay):
        return Repaired(rate)
    if isinstance(rate, Optimizer):
        rate = copy.copy(rate)
        rate.learning_rate = repaired(rate.learning_rate)
    return rate
