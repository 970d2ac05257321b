"""Methods that learn a policy: REINFORCE, masked PPO, goal-conditioned masked PPO.

REINFORCE follows grad J = E[grad log pi (R - b)] with the running mean return as baseline b and an
entropy bonus: the loss is -J - beta H. PPO is sb3-contrib's with masks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import nn
from torch.distributions import Categorical

from qdgnn_design.env import DesignEnv, Goals
from qdgnn_design.problem import BudgetSpent, Problem
from qdgnn_design.search import HORIZON
from qdgnn_design.space import Candidate


def reinforce(
    problem: Problem,
    rng: Generator,
    *,
    horizon: int = HORIZON,
    batch: int = 4,
    learning_rate: float = 3e-3,
    entropy: float = 0.02,
) -> None:
    """Policy gradient with baseline and entropy bonus, from scratch, on the spot."""
    env = DesignEnv(problem, horizon=horizon)
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        policy = _network(env)
        optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate)
        env.reset(seed=int(rng.integers(2**31)))
        returns: deque[float] = deque(maxlen=32)
        while True:
            loss = torch.zeros(())
            for _ in range(batch):
                log_probability, entropies, total = _episode(env, policy)
                baseline = float(np.mean(returns)) if returns else total
                loss = loss - (total - baseline) * log_probability - entropy * entropies
                returns.append(total)
            optimizer.zero_grad(set_to_none=True)
            (loss / batch).backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()


def _network(env: DesignEnv) -> nn.Sequential:
    width = env.observation_space.shape[0]
    return nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, int(env.action_space.n)))


def _episode(env: DesignEnv, policy: nn.Module) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Sum of log probabilities, sum of entropies, sum of rewards."""
    observation, _ = env.reset()
    log_probability = entropies = torch.zeros(())
    total, ended = 0.0, False
    while not ended:
        logits = policy(torch.as_tensor(observation))
        logits = logits.masked_fill(~torch.as_tensor(env.action_masks()), -1e9)
        distribution = Categorical(logits=logits)
        action = distribution.sample()
        observation, reward, hit, truncated, _ = env.step(np.int64(action.item()))
        log_probability = log_probability + distribution.log_prob(action)
        entropies = entropies + distribution.entropy()
        total, ended = total + reward, hit or truncated
    return log_probability, entropies, total


def masked_ppo(problem: Problem, rng: Generator, *, horizon: int = HORIZON) -> None:
    """PPO with masks from scratch, trained on the budget itself."""
    model = _ppo([DesignEnv(problem, horizon=horizon) for _ in range(4)], rng, n_steps=16)
    while True:
        model.learn(10_000, reset_num_timesteps=False)


def train_goal_policy(
    problem: Problem,
    rng: Generator,
    goals: Goals,
    path: Path,
    *,
    steps: int = 20_000,
    horizon: int = HORIZON,
    walk: int = HORIZON,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Train goal-conditioned masked PPO on drawn goals and save it.

    Args:
        problem: Its budget bounds the training calls.
        rng: Seeds.
        goals: Draws the targets of an episode.
        path: Policy, a zip file.
        steps: Environment steps.
        horizon: Steps of an episode.
        walk: Random actions before an episode, at most.
        progress: Called with the steps made.

    Returns:
        Unique evaluations that training cost.
    """
    from stable_baselines3.common.callbacks import ConvertCallback

    envs = [DesignEnv(problem, horizon=horizon, goals=goals, walk=walk) for _ in range(16)]
    model = _ppo(envs, rng, n_steps=64)

    def report(values: dict[str, Any], _: dict[str, Any]) -> bool:
        if progress is not None:
            progress(values["self"].num_timesteps)
        return True

    with suppress(BudgetSpent):
        model.learn(steps, callback=ConvertCallback(report))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    model.save(beside)
    beside.replace(path)
    return problem.spent


def load_policy(path: Path) -> Any:
    """A policy that `train_goal_policy` saved. The file is unpickled: only load your own.

    Raises:
        FileNotFoundError: If there is none.
    """
    from sb3_contrib import MaskablePPO

    if not path.is_file():
        raise FileNotFoundError(f"a saved policy must be at {path}; train one with method 'goal'")
    return MaskablePPO.load(path, device="cpu")


def policy_search(
    problem: Problem,
    rng: Generator,
    policy: Any,
    *,
    horizon: int = HORIZON,
    greedy_share: float = 0.2,
) -> None:
    """Episodes of a saved policy; some from the start, some from walks, some greedy.

    Raises:
        ValueError: If the policy was made for another space or other targets.
    """
    env = DesignEnv(problem, horizon=horizon)
    check_policy(policy, env)
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        while True:
            greedy, ended = bool(rng.random() < greedy_share), False
            while not ended:
                masks = env.action_masks()
                action, _ = policy.predict(observation, action_masks=masks, deterministic=greedy)
                observation, _, hit, truncated, _ = env.step(action)
                ended = hit or truncated
            env.walk = horizon - env.walk  # from the start and from elsewhere in turn
            observation, _ = env.reset()


def policy_proposals(
    problem: Problem, rng: Generator, policy: Any, starts: list[Candidate], n: int
) -> list[Candidate]:
    """``n`` candidates one sampled action away from candidates that are evaluated."""
    env = DesignEnv(problem)
    check_policy(policy, env)
    proposals = []
    for k in range(n):
        env.candidate = starts[k % len(starts)]
        observation = env.arrive(problem([env.candidate])[0])[0]
        action, _ = policy.predict(observation, action_masks=env.action_masks())
        if problem.space.mask(env.candidate.atoms)[action]:
            proposals.append(problem.space.apply(int(action), env.candidate, rng))
    return proposals


def check_policy(policy: Any, env: DesignEnv) -> None:
    """Refuse a policy of another space or other targets."""
    ours = env.observation_space.shape, int(env.action_space.n)
    theirs = policy.observation_space.shape, int(policy.action_space.n)
    if ours != theirs:
        raise ValueError(
            f"the policy must be trained for this start, elements and number of targets "
            f"(observations, actions: {ours}), got {theirs}"
        )


def _ppo(envs: list[DesignEnv], rng: Generator, n_steps: int) -> Any:
    from sb3_contrib import MaskablePPO

    from qdgnn_design.vector_env import BatchedDesignEnv

    return MaskablePPO(
        "MlpPolicy",
        BatchedDesignEnv(envs),
        n_steps=n_steps,
        batch_size=64,
        n_epochs=5,
        learning_rate=1e-3,
        gamma=0.95,
        ent_coef=0.01,
        seed=int(rng.integers(2**31)),
        device="cpu",
        policy_kwargs={"net_arch": [128, 128]},
    )
