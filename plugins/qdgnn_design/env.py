"""Design as a Markov decision process, in gymnasium's interface.

State s_t: the structure, its properties, the goal and the steps left. Action: one of the space's,
with `action_masks()` for sb3-contrib's masked PPO. Reward: the rise of the squashed score (see
`qdgnn_design.targets`), plus 1 at a hit, which ends the episode; a rejected or failed structure
costs 1 and ends it too, whatever came before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from qdgnn_design.problem import Outcome, Problem
from qdgnn_design.search import HORIZON
from qdgnn_design.space import Candidate
from qdgnn_design.targets import Target, is_hit, score, squash

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

_BONUS = 1.0
_PENALTY = -1.0
_LIMIT = 10.0
"""Largest size of an entry of an observation."""

Goals = Callable[[np.random.Generator], Sequence[Target]]


class DesignEnv(gymnasium.Env[Array, np.int64]):  # type: ignore[misc] # gymnasium is untyped
    """From the start to a structure that meets the targets.

    Args:
        problem: Space, evaluator and budget; `BudgetSpent` passes through `step` and `reset`.
        horizon: Steps of an episode.
        goals: Draws the targets of an episode, in the order and with the names of the problem's;
            the problem's own if not given.
        observe: "space" encodes elements of the slots, composition and strain; "features" asks the
            problem's features, such as the model's embedding.
        walk: Random actions before an episode, at most, so that not all begin alike.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium's own

    def __init__(
        self,
        problem: Problem,
        *,
        horizon: int = HORIZON,
        goals: Goals | None = None,
        observe: str = "space",
        walk: int = 0,
    ) -> None:
        if observe not in ("space", "features"):
            raise ValueError(f"observe must be 'space' or 'features', got {observe!r}")
        self.problem, self.horizon, self.goals = problem, horizon, goals
        self.observe, self.walk, self.targets = observe, walk, problem.targets
        self._steps, self._score = 0, 0.0
        self.candidate = Candidate(problem.space.start)
        width = len(self._encode()) + 2 * len(self.targets) + 1
        self.observation_space = spaces.Box(-_LIMIT, _LIMIT, (width,), np.float32)
        self.action_space: Any = spaces.Discrete(len(problem.space.actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode at the start, with a goal of its own where goals are drawn."""
        super().reset(seed=seed)
        self.begin()
        return self.arrive(self.problem([self.candidate])[0])[0], {}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Make one action and evaluate what came of it; a masked action is a failed step."""
        if not self.action_masks()[action]:
            info = {"score": -np.inf, "reasons": ("masked",), "hit": False}
            return self._observation({}), _PENALTY, True, False, info
        self.propose(int(action))
        return self.arrive(self.problem([self.candidate])[0])

    def action_masks(self) -> Mask:
        """Actions allowed now, (n_actions,); all if none is, as a policy must choose one."""
        mask = self.problem.space.mask(self.candidate.atoms)
        return mask if mask.any() else ~mask

    def begin(self) -> None:
        """The part of `reset` before the evaluation."""
        self._steps = 0
        if self.goals is not None:
            self.targets = tuple(self.goals(self.np_random))
        length = int(self.np_random.integers(self.walk + 1))
        self.candidate = self.problem.space.walk(self.np_random, length)

    def propose(self, action: int) -> Candidate:
        """The part of `step` before the evaluation."""
        self._steps += 1
        if self.problem.space.mask(self.candidate.atoms).any():
            self.candidate = self.problem.space.apply(action, self.candidate, self.np_random)
        return self.candidate

    def arrive(self, outcome: Outcome) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """The part of `step` after the evaluation: observation, reward, ends, info."""
        known = outcome.values
        info = {"score": outcome.score, "reasons": outcome.reasons, "hit": False}
        if known is None:
            return self._observation({}), _PENALTY, True, False, info
        info["hit"] = is_hit(known.values, self.targets)
        new = squash(score(known.values, self.targets, known.std))
        reward = 0.0 if self._steps == 0 else new - self._score
        self._score = new
        hit = bool(info["hit"]) and self._steps > 0
        ended = not hit and self._steps >= self.horizon
        return self._observation(known.values), float(reward + _BONUS * hit), hit, ended, info

    def _encode(self) -> NDArray[np.float64]:
        if self.observe == "features":
            row: NDArray[np.float64] = self.problem.features([self.candidate])[0]
            return row
        return self.problem.space.encode(self.candidate.atoms)

    def _observation(self, values: dict[str, float]) -> Array:
        """Structure, signed distances to the goal, the goal itself, steps left."""
        goal = [np.arcsinh(t.center / t.tolerance) for t in self.targets]
        gap = [
            np.arcsinh((values.get(t.name, t.center) - t.center) / t.tolerance)
            for t in self.targets
        ]
        left = 1 - self._steps / self.horizon
        parts = np.concatenate([self._encode(), gap, goal, [left]])
        observation: Array = np.clip(parts, -_LIMIT, _LIMIT).astype(np.float32)
        return observation
