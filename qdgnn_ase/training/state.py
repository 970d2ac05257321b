"""Everything a run needs to go on: weights, their average, optimiser, schedule."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from qdgnn_ase.training.checkpoint import FORMAT, load_tensors, save_tensors
from qdgnn_ase.training.config import RunConfig
from qdgnn_ase.training.history import History

log = logging.getLogger(__name__)

_Tensors = tuple[Tensor, ...] | list[Tensor]

MAX_LEFT_OUT = 3
"""Batches in a row without a finite gradient that end a run."""


class TrainState:
    """Model, averaged model, AdamW and its learning-rate schedule.

    Args:
        model: Weights to start from.
        config: Run.
        steps: Optimiser steps of the whole run; the schedule ends there.
    """

    def __init__(self, model: nn.Module, config: RunConfig, steps: int) -> None:
        self.model = model
        self.clip = config.clip
        self._left_out = 0
        self.average = AveragedModel(model, multi_avg_fn=_moving_average(config.ema))
        self.optimizer = torch.optim.AdamW(
            model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        warmup = max(1, round(config.warmup * steps))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _rate(step, warmup, steps)
        )

    def step(self, loss: Tensor, gradients: Sequence[Tensor]) -> None:
        """One optimiser step with the gradient of each parameter.

        A batch whose loss or gradient is not finite is left out with a logged warning.

        Raises:
            FloatingPointError: At the third such batch in a row; the weights are kept.
        """
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            self._leave_out(loss, norm)
            return
        self._left_out = 0
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)

    def _leave_out(self, loss: Tensor, norm: Tensor) -> None:
        self._left_out += 1
        text = f"loss and gradient must be finite, got {loss.item()} and {norm.item()}"
        if self._left_out == MAX_LEFT_OUT:
            raise FloatingPointError(
                f"{text}; lower learning_rate or clip, or look for wild frames (max_force)"
            )
        log.warning("%s: batch left out", text)

    def averaged_model(self) -> nn.Module:
        """The model with the averaged weights."""
        return self.average.module

    def save(self, path: Path, history: History, files: list[dict[str, Any]]) -> None:
        """Write the state, the curve so far and what the data was, atomically."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
        steps = self.schedule.last_epoch
        save_tensors(path, tensors, {"history": history, "steps": steps, "files": files})

    def restore(self, path: Path, files: list[dict[str, Any]]) -> History:
        """Take over a saved state; returns its curve.

        Raises:
            ValueError: If the data files are not those of the saved run.
        """
        tensors, document = load_tensors(path)
        if document["format"] < FORMAT:
            raise ValueError(
                f"{path} must have format {FORMAT} to go on from, got {document['format']}; "
                "start a new run with init = its best.safetensors"
            )
        if document["files"] != files:
            raise ValueError(
                f"data files must be those that {path} was trained on, {document['files']}, "
                f"got {files}; choose another folder, or bring the files back"
            )
        self.model.load_state_dict(_below(tensors, "model."))
        self.average.load_state_dict(_below(tensors, "average."))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(tensors, "optimizer.").items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.schedule.last_epoch = document["steps"]
        for group, base, rate in zip(
            groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True
        ):
            group["lr"] = base * rate(document["steps"])
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        history: History = document["history"]
        return history


def _moving_average(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Exponential moving average that forgets its start: decay min(decay, (1 + n) / (10 + n))."""

    @torch.no_grad()
    def update(average: _Tensors, current: _Tensors, n: Tensor | int) -> None:
        now = min(decay, (1 + int(n)) / (10 + int(n)))
        torch._foreach_lerp_(average, current, 1 - now)

    return update


def _rate(step: int, warmup: int, steps: int) -> float:
    """Linear warm-up, then cosine decay to 0.01."""
    if step < warmup:
        return (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - warmup))
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * share))


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
