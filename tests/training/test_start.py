"""Where a run starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qdgnn_ase.data.dataset import Sample
from qdgnn_ase.training.checkpoint import load_model, save_model
from qdgnn_ase.training.config import TrainConfig
from qdgnn_ase.training.start import _predictions, new_model, start_model, widened


def shifted(samples: list[Sample], ev_per_atom: float) -> list[Sample]:
    """The same labels in a method whose energies lie elsewhere."""
    return [
        Sample(
            s.graph,
            s.targets | {"energy": s.targets["energy"] + ev_per_atom * len(s.graph.numbers)},
        )
        for s in samples
    ]


def test_references_follow_the_new_labels(
    samples: list[Sample], config: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "first.safetensors"
    first = new_model(config, samples)
    save_model(path, first)
    moved = shifted(samples, 3.0)
    second = start_model(replace(config, init=str(path)), moved)
    n_atoms = np.array([len(s.graph.numbers) for s in moved])
    labels = np.array([float(s.targets["energy"]) for s in moved])
    error = (_predictions(second, moved, 10_000) - labels) / n_atoms
    assert np.abs(error).mean() < 0.2  # without the refit it would be 3
    for old, new in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(old, new)


def test_counts_and_shortest_distances_are_joined(
    samples: list[Sample], config: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "first.safetensors"
    first = new_model(config, samples[:12])
    save_model(path, first)
    second = start_model(replace(config, init=str(path)), samples[12:])
    both = [new_model(config, part) for part in (samples[:12], samples[12:])]
    assert bool((second.counts == torch.maximum(both[0].counts, both[1].counts)).all())
    for part in (samples[:12], samples[12:]):
        for sample in part:
            source, destination = sample.graph.numbers[sample.graph.edge_index]
            distance = sample.graph.edge_vectors().norm(dim=1).float()
            assert bool((distance >= second.shortest[source, destination] - 1e-5).all())


def test_a_second_stage_on_the_same_frames_changes_nothing(
    samples: list[Sample], config: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "first.safetensors"
    first = new_model(config, samples)
    save_model(path, first)
    second = start_model(replace(config, init=str(path)), samples)
    assert bool((second.counts == first.counts).all())
    torch.testing.assert_close(second.shortest, first.shortest)


def test_without_energies_the_references_stay(
    samples: list[Sample], config: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "first.safetensors"
    first = new_model(config, samples)
    save_model(path, first)
    blind = [Sample(s.graph, s.targets | {"energy": torch.tensor([torch.nan])}) for s in samples]
    second = start_model(replace(config, init=str(path)), blind)
    torch.testing.assert_close(second.element_energies, first.element_energies)
    with pytest.raises(ValueError, match="at least one energy"):
        start_model(config, blind)


def test_the_embedded_model_starts_a_run(samples: list[Sample], config: TrainConfig) -> None:
    default = load_model("default")[0]
    start = start_model(replace(config, init="default", model=default.config), samples)
    assert start.training
    assert bool((start.counts >= default.counts).all())


def test_other_architecture_is_refused(
    samples: list[Sample], config: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "first.safetensors"
    save_model(path, new_model(config, samples))
    other = replace(config, init=str(path), model=replace(config.model, n_vectors=8))
    with pytest.raises(ValueError, match="architecture of init"):
        start_model(other, samples)


@pytest.mark.parametrize(
    ("old", "new"), [("none", "t0"), ("t0", "t0_hoppings"), ("none", "t0_moments")]
)
def test_more_descriptors_start_with_the_same_energies(
    samples: list[Sample], config: TrainConfig, old: Any, new: Any
) -> None:
    first = new_model(replace(config, model=replace(config.model, quantum=old)), samples)
    wide = replace(config.model, quantum=new)
    second = widened(first, wide)
    assert second.config == wide
    energies = [_predictions(model, samples[:6], 10_000) for model in (first, second)]
    np.testing.assert_allclose(*energies, rtol=1e-6)
    with torch.no_grad():  # negative control: the new weights count
        for layer in second.trunk.layers:
            layer.pair_radial.weight += 0.1
        second.trunk.fusion.fuse.weight += 0.1
    changed = _predictions(second, samples[:6], 10_000)
    assert np.abs(changed - energies[0]).max() > 1e-5


@pytest.mark.parametrize(("old", "new"), [("t0", "none"), ("t0", "permuted"), ("t0_moments", "t0")])
def test_fewer_or_other_descriptors_are_refused(
    samples: list[Sample], config: TrainConfig, old: Any, new: Any
) -> None:
    first = new_model(replace(config, model=replace(config.model, quantum=old)), samples)
    with pytest.raises(ValueError, match="with more quantum descriptors"):
        widened(first, replace(config.model, quantum=new))
