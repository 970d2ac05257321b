"""The model that a run starts from: untrained, or the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qdgnn_ase.data.dataset import Sample, batch_indices, join
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.repulsion import join_shortest, shortest_distances
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.quantum.references import composition_matrix, fit_element_energies
from qdgnn_ase.training.checkpoint import load_model
from qdgnn_ase.training.config import TrainConfig

Array = NDArray[np.float64]

_WIDER = ("none", "t0", "t0_hoppings", "t0_moments")
"""Each has the descriptors of those before it, and more."""


def start_model(config: TrainConfig, samples: Sequence[Sample]) -> QDGNN:
    """Model with references, scale, shortest distances and counts of the samples.

    With ``config.init`` the weights are the checkpoint's, its references are shifted by a fit of
    what is left of the samples' energies (samples without energies leave them), and its shortest
    distances are joined with the samples'. Of each element's count the larger one stays: stages
    often share frames, a sum would count them twice.

    Raises:
        ValueError: If no sample has an energy and there is no checkpoint, or its architecture is
            another one.
    """
    return continued_model(config, samples) if config.init else new_model(config, samples)


def new_model(config: TrainConfig, samples: Sequence[Sample]) -> QDGNN:
    """Untrained model; the energy scale is the mean energy per atom beyond the references."""
    graphs = [sample.graph for sample in samples]
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        n_atoms = sum(len(graph.numbers) for graph in graphs)
        neighbors = sum(graph.n_edges for graph in graphs) / n_atoms
        model = QDGNN(config.model, neighbors=max(1.0, neighbors))
    composition, energies = _energies(samples)
    references = fit_element_energies(composition, energies)
    residual = (energies - composition @ references) / composition.sum(axis=1)
    model.element_energies.copy_(torch.as_tensor(references))
    model.energy_scale.fill_(max(float(np.abs(residual).mean()), 1e-3))
    model.counts.copy_(_counts(samples))
    model.shortest.copy_(shortest_distances(graphs))
    return model


def continued_model(config: TrainConfig, samples: Sequence[Sample]) -> QDGNN:
    """The checkpoint ``config.init`` with references that fit the samples.

    Samples without any energy leave the references as they are.
    """
    model = widened(load_model(str(config.init))[0], config.model)
    counts = _counts(samples)
    known = _with_energy(samples)
    if known:
        composition, energies = _energies(known)
        left = energies - _predictions(model, known, config.max_edges)
        shift = torch.as_tensor(fit_element_energies(composition, left))
        model.element_energies += torch.where(_counts(known) > 0, shift, torch.zeros_like(shift))
    shortest = shortest_distances([sample.graph for sample in samples])
    model.shortest.copy_(join_shortest((model.shortest, model.counts), (shortest, counts)))
    model.counts.copy_(torch.maximum(model.counts, counts))
    return model.train()


def widened(model: QDGNN, config: QDGNNConfig) -> QDGNN:
    """The model with the quantum descriptors of ``config``, new ones with weights of zero.

    Its energies are those of ``model`` until it is trained.

    Raises:
        ValueError: If anything but the descriptors differs, or some would be lost.
    """
    if model.config == config:
        return model
    old, new = model.config.quantum, config.quantum
    more = old in _WIDER and new in _WIDER and _WIDER.index(old) < _WIDER.index(new)
    if not more or replace(model.config, quantum=new) != config:
        raise ValueError(
            f"model must be the architecture of init, {model.config}, or that with more quantum "
            f"descriptors, got {config}"
        )
    wider = QDGNN(config, neighbors=model.neighbors)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in wider.named_parameters():
            columns = slice(weights[name].shape[-1])  # new descriptors are the last columns
            weight.zero_()
            weight[..., columns] = weights[name]
        for name, buffer in model.named_buffers():
            if name != "trunk.quantum":
                wider.get_buffer(name).copy_(buffer)
    return wider


def _with_energy(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if bool(torch.isfinite(sample.targets["energy"]))]


def _energies(samples: Sequence[Sample]) -> tuple[Array, Array]:
    """Composition (n, 95) and energies (n,) in eV of the samples that have one."""
    known = _with_energy(samples)
    if not known:
        raise ValueError("the train fold must hold at least one energy, got none: no references")
    energies = np.array([sample.targets["energy"].item() for sample in known])
    return composition_matrix([sample.graph.numbers.numpy() for sample in known]), energies


def _predictions(model: QDGNN, samples: Sequence[Sample], max_edges: int) -> Array:
    """Energies in eV of the samples that have a label, (n,)."""
    known = _with_energy(samples)
    sizes = [sample.graph.n_edges for sample in known]
    with torch.no_grad():
        parts = [
            model(join([known[index] for index in batch]).graph)["energy"]
            for batch in batch_indices(sizes, max_edges)
        ]
    energies: Array = torch.cat(parts).numpy()
    return energies


def _counts(samples: Sequence[Sample]) -> Tensor:
    """Atoms of each element, (95,) int64."""
    return torch.bincount(torch.cat([sample.graph.numbers for sample in samples]), minlength=95)
