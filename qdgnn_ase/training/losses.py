"""Step 6, the losses; missing labels are masked.

Potential: energy per atom, forces, stress

L = w_E mean |dE| / N  +  w_F mean_i |dF_i|  +  w_S mean huber(dS)

|dE| and the force vector's norm |dF_i| grow linearly, so a wild frame pulls no harder than a tame
one; huber(dS) is quadratic below 1 GPa. Units: eV/atom, eV/Å, GPa.

Properties: every member m of the M heads of target p learns the structures of its bag

L = sum_p w_p mean 2 rho_m(y_p - y_pm)  +  beta sum_p w_p mean max(0, y_p,min - y_pm)
    +  gamma mean_uv (W_uv - W'_uv)^2

in scaled units. rho_m(e) = max(t_m e, (t_m - 1) e) is the loss of quantile regression (Koenker and
Bassett, Econometrica 46, 33 (1978)) at the level t_m = (m - 1/2) / M: those in the middle are near
the median, which has the least absolute error, and all of them spread where labels are hard to
tell. For a probability the first term is the cross entropy of its logit; a label that is an upper
bound costs only what is above it.
The second term, for values below the bound, stands for properties that are learned as they are and
of the whole structure (band gap): a logarithm and a mean over atoms less the composition's part
have none. The third, off by default, makes the trunk a graph autoencoder: what its features say of
the edges, W'_uv = sigmoid(h_u . h_v / sqrt(width)), the inner-product decoder of Kipf and Welling
(arXiv:1611.07308), against the edges' weights, W_uv = f_c(d_uv).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from ase.units import GPa
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss, relu

from qdgnn_ase.graph import AtomGraph, envelope
from qdgnn_ase.properties import Property
from qdgnn_ase.training.scaler import Scaler, center


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


def edge_loss(atoms: Tensor, graph: AtomGraph, cutoff: float) -> Tensor:
    """Mean of (W_uv - W'_uv)^2 over the edges, (); 0 without edges.

    Args:
        atoms: (n_atoms, width), features h of the atoms.
        graph: The batch.
        cutoff: Å, of its edges.
    """
    source, destination = graph.edge_index
    products = atoms.index_select(0, source) * atoms.index_select(0, destination)
    decoded = torch.sigmoid(products.sum(dim=1) / atoms.shape[1] ** 0.5)
    weights = envelope(graph.edge_vectors().norm(dim=1), cutoff)
    loss: Tensor = (weights - decoded).square().sum() / max(1, source.shape[0])
    return loss


def property_loss(
    values: Tensor,
    labels: Tensor,
    bag: Tensor,
    scaler: Scaler,
    weights: Mapping[str, float],
    beta: float = 0.1,
    censored: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss and its unweighted, detached parts in the targets' units (log10 of it, nats).

    Args:
        values: (n_graphs, n_targets, n_members), scaled.
        labels: (n_graphs, n_targets), scaled; NaN = missing.
        bag: (n_graphs, n_members), 1 where a member learns from a structure; or (n_graphs,
            n_targets, n_members), the weight with which it learns from each label.
        scaler: Widths and kinds of the targets.
        weights: Weight of each target's error in its unit.
        beta: Weight of the penalty for values below the bound of a property.
        censored: (n_graphs, n_targets) bool, where the label is an upper bound.
    """
    total, parts = values.new_zeros(()), {}
    bag = (bag if bag.ndim == 3 else bag[:, None]).expand_as(values)
    for k, row in enumerate(scaler.properties):
        label, value = labels[:, k, None], values[:, k]
        weight = torch.isfinite(label).to(values.dtype) * bag[:, k]
        error = _error(value, torch.nan_to_num(label), row, _column(censored, k))
        loss = (error * weight).sum() / weight.sum().clamp(min=1e-6) * scaler.width[k]
        total = total + weights[row.name] * loss
        if row.scale == "linear" and row.lower > -torch.inf and row.pooling == "structure":
            lowest = (row.lower - scaler.mean[k]) / scaler.width[k]
            total = total + beta * weights[row.name] * scaler.width[k] * relu(lowest - value).mean()
        parts[row.name] = loss.detach()
    return total, parts


def property_errors(
    values: Tensor, labels: Tensor, scaler: Scaler, censored: Tensor | None = None
) -> dict[str, float]:
    """What validation compares: a mean absolute error, or the Brier score of a probability.

    Errors are of the members' center, in the target's unit (log10 of it), and of the mean of the
    members' probabilities. The cross entropy, which a probability is trained with, has no bound: a
    few confident mistakes would outweigh all other targets.

    Args:
        values: (n_graphs, n_targets, n_members), scaled.
        labels: (n_graphs, n_targets), scaled; NaN = missing.
        scaler: Targets and widths.
        censored: (n_graphs, n_targets) bool: the label is an upper bound.
    """
    errors = {}
    for k, row in enumerate(scaler.properties):
        present = torch.isfinite(labels[:, k])
        if row.scale == "probability":
            error = (values[:, k].sigmoid().mean(dim=1) - labels[:, k]).square()
        else:
            value, label = center(values[:, k], row)[:, None], labels[:, k, None]
            error = _error(value, label, row, _column(censored, k)) * scaler.width[k]
        errors[row.name] = float(error[present].mean()) if bool(present.any()) else 0.0
    return errors


def _column(table: Tensor | None, k: int) -> Tensor | None:
    return None if table is None else table[:, k, None]


def _error(value: Tensor, label: Tensor, row: Property, censored: Tensor | None) -> Tensor:
    """Of each member (n_graphs, n_members); of a single one |value - label|."""
    if row.scale == "probability":
        expanded = label.expand_as(value)
        return binary_cross_entropy_with_logits(value, expanded, reduction="none")
    error = value - label
    if censored is not None:
        error = torch.where(censored, relu(error), error)
    n_members = value.shape[1]
    level = (torch.arange(n_members, dtype=value.dtype, device=value.device) + 0.5) / n_members
    return 2 * torch.maximum((1 - level) * error, -level * error)
