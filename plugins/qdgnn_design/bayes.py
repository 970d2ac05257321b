"""Bayesian optimisation and the hybrid.

A Gaussian process per target (botorch) models the *properties* over principal components of the
features; samples of its joint posterior are turned into scores, so the shape of the target counts.
The next batch maximises the expected improvement of the best score over those samples, greedily.
After a hit, ranges leave nothing to improve: then the next batch has the highest expected number of
further hits, and any of the ten best, or of the hits, take the place of the best.
Bayesian optimisation chooses from walks all over the space and changes of the best; the hybrid from
the neighbourhood of the best and from what a saved policy proposes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from qdgnn_design.policies import policy_proposals
from qdgnn_design.problem import Outcome, Problem
from qdgnn_design.search import HORIZON, neighbours
from qdgnn_design.space import Candidate
from qdgnn_design.targets import is_hit, score, squash

if TYPE_CHECKING:
    from botorch.models import SingleTaskGP

Array = NDArray[np.float64]
Pool = Callable[[list[Outcome]], list[Candidate]]

_COMPONENTS = 16
_SAMPLES = 64
_TOP = 10
"""Outcomes, at least, whose neighbourhood is searched after a hit."""
_MOST = 96
"""Candidates that compete for a batch, at most."""


def bayesian(problem: Problem, rng: Generator, *, horizon: int = HORIZON, batch: int = 4) -> None:
    """Gaussian processes over the whole space."""

    def pool(ranked: list[Outcome]) -> list[Candidate]:
        walks = [problem.space.walk(rng, int(rng.integers(1, horizon + 1))) for _ in range(128)]
        near = [problem.space.step(ranked[k % 4].candidate, rng) for k in range(64) if ranked]
        return walks + near

    _optimise(problem, rng, pool, initial=10, batch=batch, horizon=horizon)


def hybrid(
    problem: Problem,
    rng: Generator,
    policy: Any = None,
    *,
    horizon: int = HORIZON,
    batch: int = 2,
) -> None:
    """Local search and, if given, a policy propose; uncertainty and expected improvement choose."""

    def pool(ranked: list[Outcome]) -> list[Candidate]:
        best = [outcome.candidate for outcome in ranked[:3]]
        near = [n for c in best for n in neighbours(problem, c, rng)[:48]]
        far = [problem.space.walk(rng, int(rng.integers(1, horizon + 1))) for _ in range(24)]
        if policy is not None:
            starts = [outcome.candidate for outcome in ranked[:8]]
            far += policy_proposals(problem, rng, policy, starts, 24)
        return near + far

    _optimise(problem, rng, pool, initial=6, batch=batch, horizon=horizon)


def _optimise(
    problem: Problem, rng: Generator, pool: Pool, *, initial: int, batch: int, horizon: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        walks = [problem.space.walk(rng, horizon) for _ in range(initial - 1)]
        problem([Candidate(problem.space.start)])
        for walk in walks:
            problem([walk])
        while True:
            problem(_next_batch(problem, rng, pool, batch))


def _next_batch(problem: Problem, rng: Generator, pool: Pool, batch: int) -> list[Candidate]:
    known = [outcome for outcome in problem.outcomes if outcome.values is not None]
    ranked = sorted(known, key=lambda outcome: -outcome.score)
    if _wants_hits(problem):
        ranked = _among_the_best(ranked, rng, problem.n_hits)
    proposals = _fresh(problem, pool(ranked)) if ranked else []
    if len(proposals) <= batch or len(known) < 3:
        return [*proposals, problem.space.walk(rng, HORIZON)][:batch]
    proposals = [proposals[k] for k in rng.permutation(len(proposals))[:_MOST]]
    values = _posterior(problem, known, proposals)
    scores = _over_samples(lambda row: squash(score(row, problem.targets)), values, problem)
    if _wants_hits(problem):
        hits = _over_samples(lambda row: is_hit(row, problem.targets), values, problem)
        chosen = _likeliest(hits, scores, batch)
    else:
        chosen = _greedy(scores, squash(ranked[0].score), batch)
    return [proposals[k] for k in chosen]


def _wants_hits(problem: Problem) -> bool:
    """Whether all that is left to gain are further hits."""
    return problem.n_hits > 0 and all(target.goal == "range" for target in problem.targets)


def _among_the_best(ranked: list[Outcome], rng: Generator, n_hits: int) -> list[Outcome]:
    """As many of the best as there are hits, at least ten, in random order; then the others.

    The neighbourhood of one hit is soon known: a search around the same few wanders off.
    """
    n = min(len(ranked), max(_TOP, n_hits))
    return [ranked[k] for k in rng.permutation(n)] + ranked[n:]


def _fresh(problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
    """One of each structure that was not proposed before."""
    by_key = {problem.space.key(candidate.atoms): candidate for candidate in candidates}
    return [candidate for candidate in by_key.values() if not problem.is_known(candidate)]


def _over_samples(
    function: Callable[[dict[str, float]], float], values: Array, problem: Problem
) -> Array:
    """Function of the properties by name, (n_samples, n_candidates)."""
    names = [target.name for target in problem.targets]
    return np.array(
        [[function(dict(zip(names, row.tolist(), strict=True))) for row in s] for s in values],
        float,
    )


def _likeliest(hits: Array, scores: Array, batch: int) -> list[int]:
    """Indices with the largest shares of hits, (n_samples, n_candidates); the best mean if equal.

    The expected number of hits of a batch is the sum of these shares, however they depend on each
    other.
    """
    order = np.lexsort((-scores.mean(axis=0), -hits.mean(axis=0)))
    return [int(k) for k in order[:batch]]


def _greedy(scores: Array, best: float, batch: int) -> list[int]:
    """Indices that raise the expected best of (n_samples, n_candidates) most, one by one."""
    reached = np.full(len(scores), best if isfinite(best) else scores.min())
    chosen: list[int] = []
    for _ in range(min(batch, scores.shape[1])):
        gain = np.maximum(scores - reached[:, None], 0).mean(axis=0)
        gain += 1e-9 * scores.mean(axis=0)  # where no sample improves, the best mean
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        reached = np.maximum(reached, scores[:, chosen[-1]])
    return chosen


def _posterior(problem: Problem, known: Sequence[Outcome], proposals: list[Candidate]) -> Array:
    """Samples of the properties, (n_samples, n_candidates, n_targets)."""
    both = problem.features([*(outcome.candidate for outcome in known), *proposals])
    inputs = torch.tensor(_components(both))
    train, new = inputs[: len(known)], inputs[len(known) :]
    columns = []
    for target in problem.targets:
        values = [o.values.values[target.name] for o in known if o.values is not None]
        columns.append(_samples(train, torch.tensor(values, dtype=torch.float64), new))
    return np.stack(columns, axis=2)


def _components(features: Array) -> Array:
    """Leading principal components in units of the first one's spread."""
    centered = features - features.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centered, full_matrices=False)
    components: Array = (left * sizes)[:, :_COMPONENTS]
    components /= max(components[:, 0].std(), 1e-12)
    return components


def _samples(train: torch.Tensor, values: torch.Tensor, new: torch.Tensor) -> Array:
    if float(values.std()) < 1e-12:
        return np.full((_SAMPLES, len(new)), float(values[0]))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # scaling of the inputs
        samples = fit_process(train, values).posterior(new).rsample(torch.Size([_SAMPLES]))
    return np.asarray(samples[..., 0])


def fit_process(train: torch.Tensor, values: torch.Tensor) -> SingleTaskGP:
    """Gaussian process of values (n,) over inputs (n, n_components), float64."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.mlls import ExactMarginalLogLikelihood

    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # scaling of the inputs, retries of the fit
        # one length scale: 16 of them would be fitted to a dozen points, at ten times the cost
        kernel = ScaleKernel(MaternKernel(nu=2.5))
        model = SingleTaskGP(
            train, values[:, None], covar_module=kernel, outcome_transform=Standardize(m=1)
        )
        likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
        fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": 20}})
    return model
