"""Forces, stress and Hessian as derivatives of one energy.

All come from dE/dr of the edge vectors r_ij: a strain eps maps every edge to r (1 + eps), so
dE/deps = sum_ij r_ij (dE/dr_ij)^T, symmetric because the energy is rotation invariant, and
F_k = -sum over edges of dE/dr_ij dr_ij/dx_k. Sign and order as in ASE: stress = (1/V) dE/deps,
tension positive, eV/Å^3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.segment import segment_sum

EnergyModel = Callable[[AtomGraph, Tensor], dict[str, Tensor]]
"""``(graph, edge_vector) -> {"energy": (n_graphs,), ...}``; a ``QDGNN`` is one."""


def energy_forces_stress(
    model: EnergyModel, graph: AtomGraph, *, training: bool = False
) -> dict[str, Tensor]:
    """Energy and its first derivatives.

    Args:
        model: ``(graph, edge_vector) -> {"energy", "energies", ...}``.
        graph: Batch of structures.
        training: Keep the graph of the derivatives, so that a loss on them can be differentiated.

    Returns:
        The model's output and ``forces`` (n_atoms, 3) eV/Å, ``stress`` (n_graphs, 3, 3) eV/Å^3,
        NaN for a structure without volume.
    """
    vector = graph.edge_vectors()
    if not vector.requires_grad:
        vector = vector.detach().requires_grad_(True)
    output: dict[str, Tensor] = model(graph, vector)
    (gradient,) = torch.autograd.grad(
        output["energy"].sum(), vector, create_graph=training, materialize_grads=True
    )
    source, destination = graph.edge_index
    n = graph.numbers.shape[0]
    forces = segment_sum(gradient, destination, n) - segment_sum(gradient, source, n)
    if graph.n_graphs == 1:
        strain = (vector.T @ gradient)[None]
    else:
        virial = segment_sum(vector[:, :, None] * gradient[:, None, :], destination, n)
        strain = segment_sum(virial, graph.batch, graph.n_graphs)
    volume = graph.volumes()[:, None, None]
    stress = 0.5 * (strain + strain.mT) / volume.nan_to_num(1.0)
    stress = stress.masked_fill(volume.isnan(), torch.nan)  # NaN / volume has NaN gradients too
    return {**output, "forces": forces, "stress": stress}


def hessian(model: EnergyModel, graph: AtomGraph) -> Tensor:
    """Second derivatives of the energy, (3 * n_atoms, 3 * n_atoms), eV/Å^2.

    Row 3 * i + a is -dF/dx_ia; one backward pass per row, memory linear in the edges.

    Raises:
        ValueError: If ``graph`` holds more than one structure.
    """
    if graph.n_graphs != 1:
        raise ValueError(f"hessian takes one structure, got a batch of {graph.n_graphs}")
    positions = graph.positions.detach().requires_grad_(True)
    moved = dataclasses.replace(graph, positions=positions)
    forces = energy_forces_stress(model, moved, training=True)["forces"].reshape(-1)
    rows = [
        torch.autograd.grad(-force, positions, retain_graph=True, materialize_grads=True)[0]
        for force in forces
    ]
    return torch.stack([row.reshape(-1) for row in rows]).detach()
