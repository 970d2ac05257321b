"""Contracts of a potential."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from torch import nn

from qdgnn_ase.graph import collate, from_atoms
from qdgnn_ase.nn.derivatives import energy_forces_stress, hessian
from qdgnn_ase.testing.common import (
    CROSSING,
    STEP,
    as_float64,
    central_difference,
    crossing_pair,
    cutoff_of,
    displacement_of,
    energy_of,
    evaluate_on,
    example_structures,
    forces_function,
    graph_of,
    random_components,
    require,
    require_close,
    require_same_energy,
    snapshot_of,
    strain_of,
    transformed,
)


def check_model(model: nn.Module, structures: Sequence[Atoms] | None = None) -> None:
    """Run every contract of a potential.

    Args:
        model: Potential; a float64 copy is checked.
        structures: Where to check it; 8, 12 and 1 atoms of Na, Cl, Al, O if not given.

    Raises:
        ContractError: With the first contract that is broken.
    """
    structures = example_structures() if structures is None else structures
    for together in (check_outputs, check_batch, check_unchanged):
        together(model, structures)
    for atoms in structures:
        for check in _PER_STRUCTURE:
            check(model, atoms)


def check_outputs(model: nn.Module, structures: Sequence[Atoms]) -> None:
    """Keys, shapes and finite values of a batch, in the model's own precision."""
    dtype = next(model.parameters()).dtype
    graph = collate([from_atoms(atoms, cutoff_of(model), dtype) for atoms in structures])
    output = energy_forces_stress(model, graph)
    n, g = len(graph.numbers), graph.n_graphs
    shapes = {"energy": (g,), "energies": (n,), "forces": (n, 3), "stress": (g, 3, 3)}
    for name, shape in shapes.items():
        require(name in output, f"key {name!r} in the output", sorted(output))
        require(tuple(output[name].shape) == shape, f"{name} {shape}", tuple(output[name].shape))
    for name in ("energy", "energies", "forces"):
        require(bool(torch.isfinite(output[name]).all()), f"finite {name}", output[name].tolist())
    expected = torch.isfinite(graph.volumes()).tolist()
    finite = torch.isfinite(output["stress"]).all(dim=2).all(dim=1).tolist()
    require(finite == expected, f"stress where there is a volume {expected}", finite)


def check_batch(model: nn.Module, structures: Sequence[Atoms]) -> None:
    """A batch gives what its structures give alone, to 1e-10 eV/atom."""
    model = as_float64(model)
    together = energy_forces_stress(
        model, collate([graph_of(model, atoms) for atoms in structures])
    )
    alone = [energy_forces_stress(model, graph_of(model, atoms)) for atoms in structures]
    sizes = torch.tensor([len(atoms) for atoms in structures])
    energy = torch.cat([single["energy"] for single in alone])
    require_close("energy of a batch", together["energy"] / sizes, energy / sizes, 1e-10, "eV/atom")
    for name, unit in (("energies", "eV"), ("forces", "eV/Å"), ("stress", "eV/Å^3")):
        expected = torch.cat([single[name] for single in alone])
        require_close(f"{name} of a batch", together[name], expected, 1e-9, unit)


def check_unchanged(model: nn.Module, structures: Sequence[Atoms]) -> None:
    """Evaluation changes neither the graph nor the weights."""
    model = as_float64(model)
    graph = collate([graph_of(model, atoms) for atoms in structures])
    before, state = snapshot_of(graph), copy.deepcopy(model.state_dict())
    energy_forces_stress(model, graph)
    after = snapshot_of(graph)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    weights = model.state_dict()
    changed += [k for k in state if not torch.equal(state[k].nan_to_num(), weights[k].nan_to_num())]
    require(not changed, "unchanged inputs and weights", f"changes of {changed}")
    require(not graph.positions.requires_grad, "positions without gradients", "requires_grad")


def check_permutation(model: nn.Module, atoms: Atoms) -> None:
    """Renumbering the atoms renumbers energies and forces, to 1e-8 eV/atom and eV/Å."""
    order = np.random.default_rng(0).permutation(len(atoms))
    model, label = as_float64(model), f"permutation of {atoms.symbols}"
    plain, permuted = evaluate_on(model, atoms), evaluate_on(model, atoms[order])
    require_close(label, permuted["energies"], plain["energies"][order], 1e-8, "eV")
    require_close(label, permuted["forces"], plain["forces"][order], 1e-8, "eV/Å")


def check_rotation(model: nn.Module, atoms: Atoms) -> None:
    """Rotation and inversion keep the energy and turn forces and stress, to 1e-8."""
    model, plain = as_float64(model), evaluate_on(as_float64(model), atoms)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    for matrix, name in ((turn * np.linalg.det(turn), "rotation"), (-np.eye(3), "inversion")):
        turned = evaluate_on(model, transformed(atoms, matrix))
        label = f"{name} of {atoms.symbols}"
        require_close(
            label, turned["energy"] / len(atoms), plain["energy"] / len(atoms), 1e-8, "eV/atom"
        )
        require_close(label, turned["forces"], plain["forces"] @ matrix, 1e-8, "eV/Å")
        require_close(label, turned["stress"], matrix.T @ plain["stress"] @ matrix, 1e-8, "eV/Å^3")


def check_translation(model: nn.Module, atoms: Atoms) -> None:
    """A shift of all atoms keeps the energy to 1e-8 eV/atom."""
    model, moved = as_float64(model), atoms.copy()
    moved.positions += np.array([3.319, -7.127, 11.773])
    require_same_energy(model, atoms, moved, "translation")


def check_wrap(model: nn.Module, atoms: Atoms) -> None:
    """Atoms in other cells and another basis of the lattice keep the energy to 1e-8 eV/atom."""
    model, moved = as_float64(model), atoms.copy()
    images = np.random.default_rng(0).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
    moved.positions += images @ atoms.cell.array
    require_same_energy(model, atoms, moved, "lattice wrap")
    periodic = np.flatnonzero(atoms.pbc)
    if len(periodic) > 1:
        moved.cell[periodic[1]] += 2 * moved.cell[periodic[0]]
        require_same_energy(model, atoms, moved, "other lattice basis")


def check_supercell(model: nn.Module, atoms: Atoms) -> None:
    """Repetition along the periodic axes keeps the energy per atom to 1e-8 eV/atom."""
    require_same_energy(as_float64(model), atoms, atoms * np.where(atoms.pbc, 2, 1), "supercell")


def check_net_force(model: nn.Module, atoms: Atoms) -> None:
    """The forces on the atoms of a structure add up to zero, to 1e-8 eV/Å."""
    net = evaluate_on(as_float64(model), atoms)["forces"].sum(axis=0)
    require_close(f"net force of {atoms.symbols}", net, np.zeros(3), 1e-8, "eV/Å")


def check_continuity(model: nn.Module, atoms: Atoms) -> None:
    """Energy, forces and Hessian do not jump when a pair crosses the cutoff.

    Two dimers of the structure's elements, an atom of each 1e-7 Å inside the cutoff of the other:
    with and without the edges of that pair the same positions must give the same values.
    """
    model, cutoff = as_float64(model), cutoff_of(model)
    cluster = crossing_pair(atoms, cutoff - CROSSING)
    graphs = [from_atoms(cluster, r, torch.float64) for r in (cutoff, cutoff - 2 * CROSSING)]
    inside, outside = (energy_forces_stress(model, graph) for graph in graphs)
    label = f"jump of {cluster.symbols} at the cutoff"
    require_close(f"energy, {label}", outside["energy"], inside["energy"], 1e-9, "eV")
    require_close(f"forces, {label}", outside["forces"], inside["forces"], 1e-7, "eV/Å")
    second = [hessian(model, graph) for graph in graphs]
    require_close(f"Hessian, {label}", second[1], second[0], 1e-4, "eV/Å^2")


def check_isolated(model: nn.Module, atoms: Atoms) -> None:
    """A lone atom feels no force; far fragments do not feel each other, to 1e-8 eV."""
    model = as_float64(model)
    lone, pair = atoms[:1], crossing_pair(atoms, 0.5 * cutoff_of(model))
    lone.pbc, lone.cell = False, None
    single = evaluate_on(model, lone)
    energy = single["energy"]
    require(bool(np.isfinite(energy).all()), f"finite energy of {lone.symbols}", energy)
    require_close(f"force on one {lone.symbols}", single["forces"], np.zeros((1, 3)), 1e-12, "eV/Å")
    lone.positions += 20 * cutoff_of(model)
    expected = energy + evaluate_on(model, pair)["energy"]
    got = evaluate_on(model, pair + lone)["energy"]
    require_close("energy of far fragments", got, expected, 1e-8, "eV")


def check_forces(
    model: nn.Module, atoms: Atoms, *, n_components: int = 6, tolerance: float = 1e-5
) -> None:
    """Forces are minus the finite differences of the energy, to 1e-5 eV/Å.

    Args:
        model: Potential.
        atoms: Structure.
        n_components: Components to check, drawn at random (with a fixed seed).
        tolerance: eV/Å.
    """
    model = as_float64(model)
    index = random_components(atoms, n_components)
    forces = evaluate_on(model, atoms)["forces"].reshape(-1)[index]
    numeric = [
        -central_difference(lambda x: energy_of(model, x), displacement_of(atoms, k)) for k in index
    ]
    require_close(f"forces on {atoms.symbols}", forces, np.array(numeric), tolerance, "eV/Å")


def check_stress(model: nn.Module, atoms: Atoms, *, tolerance: float = 1e-6) -> None:
    """Stress is dE/dstrain / volume, tension positive, to 1e-6 eV/Å^3; NaN without a volume."""
    model, stress = as_float64(model), evaluate_on(as_float64(model), atoms)["stress"][0]
    if atoms.cell.rank < 3:
        require(bool(np.isnan(stress).all()), "NaN stress without a volume", stress.tolist())
        return
    numeric = np.zeros((3, 3))
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        slope = central_difference(lambda x: energy_of(model, x), strain_of(atoms, i, j))
        numeric[i, j] = numeric[j, i] = slope / atoms.get_volume()
    require_close(f"stress of {atoms.symbols}", stress, numeric, tolerance, "eV/Å^3")


def check_hessian(model: nn.Module, atoms: Atoms, *, tolerance: float = 1e-5) -> None:
    """The Hessian is symmetric and minus the finite differences of the forces (eV/Å^2)."""
    model = as_float64(model)
    matrix = hessian(model, graph_of(model, atoms)).numpy()
    require_close(f"symmetry of the Hessian of {atoms.symbols}", matrix, matrix.T, 1e-8, "eV/Å^2")
    index = random_components(atoms, 4)
    forces = forces_function(model)
    # third derivatives jump at the cutoff: a smaller step keeps that small
    numeric = [-central_difference(forces, displacement_of(atoms, k), 0.1 * STEP) for k in index]
    require_close(
        f"Hessian of {atoms.symbols}", matrix[index], np.array(numeric), tolerance, "eV/Å^2"
    )


_PER_STRUCTURE = (
    check_permutation,
    check_rotation,
    check_translation,
    check_wrap,
    check_supercell,
    check_net_force,
    check_continuity,
    check_isolated,
    check_forces,
    check_stress,
)
