"""The compiled step gives the numbers of the eager one."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

from qdgnn_ase.data.dataset import Sample, join
from qdgnn_ase.nn.compile import check_sizes
from qdgnn_ase.training.config import TrainConfig
from qdgnn_ase.training.potential import potential_objective
from qdgnn_ase.training.start import new_model
from qdgnn_ase.training.step import compiled_step, eager_step, example_batch


def test_example_batch_has_distinct_sizes(samples: list[Sample], config: TrainConfig) -> None:
    model = new_model(config, samples)
    check_sizes(model, example_batch(model, samples).graph)


def test_ambiguous_sizes_are_refused(samples: list[Sample], config: TrainConfig) -> None:
    model = new_model(config, samples)
    with pytest.raises(ValueError, match="must be distinct"):
        check_sizes(model, join(samples[:2]).graph)  # a batch of two: edge_index has two rows
    with pytest.raises(ValueError, match="at least two training samples"):
        example_batch(model, samples[:2])


def test_gradient_is_that_of_the_loss(samples: list[Sample], config: TrainConfig) -> None:
    model = new_model(config, samples).double()
    batch = join(samples[:5])
    batch = Sample(batch.graph.to(dtype=torch.float64), batch.targets)
    step = eager_step(model, potential_objective(config.loss))
    gradient = step(batch)[2]
    weight = next(iter(model.parameters()))
    index, h = tuple(torch.nonzero(gradient[0].abs() == gradient[0].abs().max())[0]), 1e-5
    losses = []
    for shift in (h, -h):
        with torch.no_grad():
            weight[index] += shift
        losses.append(float(step(batch)[0]))
        with torch.no_grad():
            weight[index] -= shift
    assert float(gradient[0][index]) == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("quantum", ["t0", "t0_moments"])
def test_compiled_equals_eager(
    samples: list[Sample],
    config: TrainConfig,
    quantum: Literal["t0", "t0_moments"],
) -> None:
    model = new_model(replace(config, model=replace(config.model, quantum=quantum)), samples)
    eager = eager_step(model, potential_objective(config.loss))
    compiled = compiled_step(model, potential_objective(config.loss), example_batch(model, samples))
    for batch in (join(samples[:9]), join(samples[4:17]), samples[0]):  # one structure: eager
        loss, parts, gradients = compiled(batch)
        wanted_loss, wanted_parts, wanted = eager(batch)
        assert float(loss) == pytest.approx(float(wanted_loss), rel=1e-5)
        assert set(parts) == set(wanted_parts)
        for got, want in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
