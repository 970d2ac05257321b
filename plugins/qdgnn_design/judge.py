"""What generated structures are worth to a model: the judge, and fine-tuning towards it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from ase import Atoms

from qdgnn_design.evaluate import Evaluator, Values
from qdgnn_design.filters import Verdict, geometry_residuals
from qdgnn_design.generator import Generator, sample
from qdgnn_design.prototype import Prototype
from qdgnn_design.targets import Target, is_hit, score, squash

_FINE_RATE = 2e-3
_INVALID = -10.0
"""Reward of a structure that is not valid or has no values."""
_ENTROPY = 0.3
"""Weight of -log p in the reward of fine-tuning: the decoder must not end at one structure."""


@dataclass(slots=True)
class Judge:
    """Values of structures from an evaluator, each structure once; counts the calls.

    Args:
        evaluator: Gives the values.
        targets: What is wanted.
    """

    evaluator: Evaluator
    targets: Sequence[Target]
    calls: int = 0
    _known: dict[str, Values | str] = field(default_factory=dict)

    def __call__(self, structures: Sequence[Atoms]) -> list[Values | str]:
        """Values or the reason why there are none; an invalid structure is not evaluated."""
        keys = [_key(atoms) for atoms in structures]
        fresh: dict[str, Atoms] = {}
        for key, atoms in zip(keys, structures, strict=True):
            if key in self._known or key in fresh:
                continue
            verdict = Verdict(geometry_residuals(atoms))
            if verdict.passed:
                fresh[key] = atoms
            else:
                self._known[key] = "; ".join(verdict.reasons)
        self.calls += len(fresh)
        self._known |= dict(zip(fresh, self.evaluator(list(fresh.values())), strict=True))
        return [self._known[key] for key in keys]

    def reward(self, value: Values | str) -> float:
        """Squashed score, 1 more for a hit."""
        if isinstance(value, str):
            return _INVALID
        hit = is_hit(value.values, self.targets)
        return max(squash(score(value.values, self.targets, value.std)) + hit, _INVALID)


def fine_tune(
    model: Generator, prototype: Prototype, judge: Judge, *, rounds: int, batch: int, seed: int
) -> list[float]:
    """Policy gradient (REINFORCE) on the decoder of species towards what the judge rewards.

    Args:
        model: Trained; changed in place.
        prototype: Its family.
        judge: Rewards.
        rounds: Steps of the optimiser.
        batch: Structures per round; `judge` counts the unique ones.
        seed: Of the samples.

    Returns:
        Mean reward of each round.
    """
    generator = torch.Generator().manual_seed(seed)
    wanted = np.array([target.center for target in judge.targets])
    optimizer = torch.optim.Adam(model.species.parameters(), _FINE_RATE)
    rewards = []
    for _ in range(rounds):
        species, geometry, log_chance = sample(model, wanted, batch, generator)
        found = judge(prototype.decode(species, geometry))
        reward = torch.tensor([judge.reward(value) for value in found])
        rewards.append(float(reward.mean()))
        reward = reward - _ENTROPY * log_chance.detach()
        advantage = (reward - reward.mean()) / (reward.std() + 1e-6)
        optimizer.zero_grad()
        (-(advantage * log_chance).mean()).backward()
        optimizer.step()
    return rewards


def _key(atoms: Atoms) -> str:
    cell, positions = np.round(atoms.cell.array, 4), np.round(atoms.positions, 4)
    return f"{atoms.symbols}{cell.tolist()}{positions.tolist()}"
