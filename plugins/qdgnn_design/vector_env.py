"""Many episodes at once, their structures evaluated in one batch (stable-baselines3's VecEnv)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import Env
from stable_baselines3.common.vec_env import VecEnv

from qdgnn_design.env import DesignEnv


class BatchedDesignEnv(VecEnv):  # type: ignore[misc] # the library is untyped
    """`DesignEnv`s that share one problem.

    Args:
        envs: Environments of one problem.
    """

    def __init__(self, envs: Sequence[DesignEnv]) -> None:
        self.envs = list(envs)
        self._problem = envs[0].problem
        self._actions: Any = None
        self.render_mode = None
        super().__init__(len(envs), envs[0].observation_space, envs[0].action_space)

    def reset(self) -> Any:
        """Begin an episode in each environment."""
        for env, seed in zip(self.envs, self._seeds, strict=True):
            Env.reset(env, seed=seed)
        self._reset_seeds()
        return self._begin(self.envs)

    def step_async(self, actions: Any) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Make them all; episodes that ended begin anew."""
        proposed = [env.propose(int(a)) for env, a in zip(self.envs, self._actions, strict=True)]
        outcomes = self._problem(proposed)
        rows = [env.arrive(outcome) for env, outcome in zip(self.envs, outcomes, strict=True)]
        observations = np.stack([row[0] for row in rows])
        ended = [row[2] or row[3] for row in rows]
        infos = [
            row[4]
            | {"TimeLimit.truncated": row[3]}
            | ({"terminal_observation": row[0]} if end else {})
            for row, end in zip(rows, ended, strict=True)
        ]
        finished = [k for k, end in enumerate(ended) if end]
        if finished:
            observations[finished] = self._begin([self.envs[k] for k in finished])
        rewards = np.array([row[1] for row in rows], np.float32)
        return observations, rewards, np.array(ended), infos

    def close(self) -> None:
        """Nothing is held."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Attribute of each environment."""
        return [getattr(env, attr_name) for env in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of each environment."""
        for env in self._chosen(indices):
            setattr(env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each environment."""
        chosen = self._chosen(indices)
        return [getattr(env, method_name)(*method_args, **method_kwargs) for env in chosen]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """None is."""
        return [False] * len(self._chosen(indices))

    def _begin(self, envs: Sequence[DesignEnv]) -> Any:
        for env in envs:
            env.begin()
        outcomes = self._problem([env.candidate for env in envs])
        return np.stack([e.arrive(o)[0] for e, o in zip(envs, outcomes, strict=True)])

    def _chosen(self, indices: Any) -> list[DesignEnv]:
        return [self.envs[k] for k in self._get_indices(indices)]
