"""What the contracts share: the error, comparisons, moved and strained structures."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from numpy.typing import ArrayLike, NDArray
from torch import nn

from qdgnn_ase.graph import AtomGraph, from_atoms
from qdgnn_ase.nn.derivatives import energy_forces_stress

Array = NDArray[np.float64]

STEP = 1e-3
"""Finite-difference step, Å for positions and 1 for strain."""

STENCIL = ((1, 8.0 / 12.0), (-1, -8.0 / 12.0), (2, -1.0 / 12.0), (-2, 1.0 / 12.0))
"""Central first derivative of fourth order: (multiple of the step, weight)."""

CROSSING = 1e-7
"""Å. How far inside the cutoff a pair is when its edges are dropped."""


class ContractError(AssertionError):
    """A contract is broken; the message says what was expected and what came out."""


def example_structures() -> list[Atoms]:
    """A crystal with 8, a slab without third cell vector with 12 and a lone atom, rattled."""
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    slab = fcc111("Al", (2, 2, 3), a=4.05)
    slab.cell[2] = 0.0
    crystal.rattle(0.1, seed=1)
    slab.rattle(0.1, seed=2)
    return [crystal, slab, Atoms("O")]


def require(condition: bool, expected: str, got: object) -> None:
    """Raise ContractError unless the condition holds."""
    if not condition:
        raise ContractError(f"expected {expected}, got {got}")


def require_close(
    what: str, got: ArrayLike, expected: ArrayLike, tolerance: float, unit: str
) -> None:
    """Largest deviation at most ``tolerance``; NaN is equal to NaN and to nothing else."""
    a, b = (np.asarray(x.detach() if isinstance(x, torch.Tensor) else x) for x in (got, expected))
    require(a.shape == b.shape, f"{what} of shape {b.shape}", a.shape)
    error = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
    if not (error <= tolerance).all():
        worst = np.unravel_index(np.argmax(np.nan_to_num(error, nan=np.inf)), error.shape)
        raise ContractError(
            f"{what}: expected {b[worst]:.10g} within {tolerance:g} {unit}, got {a[worst]:.10g}"
            f" (largest of {error.size} deviations: {error[worst]:.3g})"
        )


def require_same_energy(model: nn.Module, atoms: Atoms, other: Atoms, what: str) -> None:
    """Both structures have the same energy per atom."""
    expected, got = energy_of(model, atoms) / len(atoms), energy_of(model, other) / len(other)
    require_close(f"energy after {what} of {atoms.symbols}", got, expected, 1e-8, "eV/atom")


def cutoff_of(model: nn.Module) -> float:
    """Cutoff of a potential in Å."""
    return float(cast("Any", model).config.cutoff)


def as_float64(model: nn.Module) -> nn.Module:
    """Copy of a potential in float64."""
    return copy.deepcopy(model).double().eval()


def graph_of(model: nn.Module, atoms: Atoms) -> AtomGraph:
    """Graph of a structure as the potential wants it, in float64."""
    return from_atoms(atoms, cutoff_of(model), torch.float64)


def energy_of(model: nn.Module, atoms: Atoms) -> float:
    """Energy in eV."""
    with torch.no_grad():
        return float(model(graph_of(model, atoms))["energy"].item())


def evaluate_on(model: nn.Module, atoms: Atoms) -> dict[str, Array]:
    """Energy, forces, stress and the rest of the output as arrays."""
    output = energy_forces_stress(model, graph_of(model, atoms))
    return {name: value.detach().numpy() for name, value in output.items()}


def forces_function(model: nn.Module) -> Callable[[Atoms], Array]:
    """Function from a structure to its forces, flat."""
    return lambda atoms: evaluate_on(model, atoms)["forces"].reshape(-1)


def snapshot_of(graph: AtomGraph) -> dict[str, torch.Tensor]:
    """Copies of all tensors of a graph."""
    return {name: value.clone() for name, value in graph.tensors().items()}


def transformed(atoms: Atoms, matrix: Array) -> Atoms:
    """Positions and cell times a 3x3 matrix from the right."""
    result = atoms.copy()
    result.positions = atoms.positions @ matrix
    result.cell = atoms.cell.array @ matrix
    return result


def displacement_of(atoms: Atoms, component: int) -> Callable[[float], Atoms]:
    """Function from an amount in Å to the structure with one coordinate moved by it."""

    def moved(amount: float) -> Atoms:
        result = atoms.copy()
        result.positions[component // 3, component % 3] += amount
        return result

    return moved


def strain_of(atoms: Atoms, i: int, j: int) -> Callable[[float], Atoms]:
    """Function from an amount to the structure under that symmetric strain."""

    def strained(amount: float) -> Atoms:
        strain = np.eye(3)
        strain[i, j] += 0.5 * amount
        strain[j, i] += 0.5 * amount
        return transformed(atoms, strain)

    return strained


def central_difference(
    function: Callable[[Atoms], Any], along: Callable[[float], Atoms], step: float = STEP
) -> Any:
    """Derivative of function(along(amount)) at amount 0, fourth order in the step."""
    return sum(weight * function(along(k * step)) for k, weight in STENCIL) / step


def random_components(atoms: Atoms, n: int) -> NDArray[np.int64]:
    """Up to n of the 3 * n_atoms coordinates, in a fixed random order."""
    return np.random.default_rng(0).permutation(3 * len(atoms))[:n]


def crossing_pair(atoms: Atoms, distance: float) -> Atoms:
    """Two dimers of the structure's elements; their inner atoms are at ``distance`` (Å)."""
    numbers = np.resize(atoms.numbers, 4)
    axis = np.array([0.48, 0.6, 0.64])
    inner = np.array([np.zeros(3), distance * axis / np.linalg.norm(axis)])
    outer = inner + np.array([[-1.9, 0.3, -0.6], [1.2, 1.9, -0.2]])
    return Atoms(numbers, np.concatenate([inner, outer]))


def strained_copper() -> Atoms:
    """Conventional copper cell, rattled and strained."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    return transformed(atoms, np.array([[1.03, 0.02, 0.0], [0.02, 0.98, 0.01], [0.0, 0.01, 1.0]]))


def with_calculator(atoms: Atoms, calculator: Any) -> Atoms:
    """Copy of a structure with the calculator attached."""
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms


def has_stress(calculator: Any) -> bool:
    """Whether the calculator says that it gives stress."""
    return "stress" in calculator.implemented_properties


def is_equal(a: Any, b: Any) -> bool:
    """Equality of arrays or anything else."""
    return a is b or bool(np.all(np.asarray(a == b)))
