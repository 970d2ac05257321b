"""Step 6, the loss of a potential: energy per atom, forces, stress; missing labels are masked.

L = w_E mean |dE| / N  +  w_F mean_i |dF_i|  +  w_S mean huber(dS)

|dE| and the force vector's norm |dF_i| grow linearly, so a wild frame pulls no harder than a tame
one; huber(dS) is quadratic below 1 GPa. Units: eV/atom, eV/Å, GPa.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ase.units import GPa
from torch import Tensor
from torch.nn.functional import huber_loss

from qdgnn_ase.graph import AtomGraph


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the loss terms."""

    energy: float = 2.0
    """Per eV/atom."""
    forces: float = 1.0
    """Per eV/Å."""
    stress: float = 0.02
    """Per GPa."""


def masked_mean(values: Tensor, present: Tensor) -> Tensor:
    """Mean of ``values`` where ``present``; 0 with a gradient of 0 where nothing is."""
    kept = torch.where(present, values, torch.zeros_like(values))
    return kept.sum() / present.sum().clamp(min=1)


def potential_loss(
    output: dict[str, Tensor], targets: dict[str, Tensor], graph: AtomGraph, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss and its unweighted, detached parts (eV/atom, eV/Å, GPa).

    Args:
        output: ``energy`` (n_graphs,), ``forces`` (n_atoms, 3), ``stress`` (n_graphs, 3, 3).
        targets: The same keys; NaN = missing.
        graph: The batch.
        weights: Weights of the terms.
    """
    kind = output["forces"].dtype
    targets = targets | {name: targets[name].to(kind) for name in ("forces", "stress")}
    parts = {
        "energy": _energy(output["energy"], targets["energy"], graph.n_atoms),
        "forces": _forces(output["forces"], targets["forces"]),
        "stress": _stress(output["stress"], targets["stress"]),
    }
    total = sum(getattr(weights, name) * part.to(kind) for name, part in parts.items())
    return total, {name: part.detach() for name, part in parts.items()}


def _energy(predicted: Tensor, target: Tensor, n_atoms: Tensor) -> Tensor:
    present = torch.isfinite(target)
    error = (predicted - torch.where(present, target, predicted.detach())) / n_atoms
    return masked_mean(error.abs(), present)


def _forces(predicted: Tensor, target: Tensor) -> Tensor:
    present = torch.isfinite(target).all(dim=1)
    error = predicted - torch.where(present[:, None], target, predicted.detach())
    return masked_mean((error.square().sum(dim=1) + 1e-12).sqrt(), present)


def _stress(predicted: Tensor, target: Tensor) -> Tensor:
    present = torch.isfinite(target) & torch.isfinite(predicted)
    predicted, target = (torch.where(present, x, 0.0) / GPa for x in (predicted, target))
    return masked_mean(huber_loss(predicted, target, reduction="none"), present)
