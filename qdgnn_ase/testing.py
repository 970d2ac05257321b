"""Contracts as code: what every potential, ASE calculator and descriptor table must fulfil.

A potential is an ``nn.Module``, ``(AtomGraph, edge_vector=None) -> {"energy", "energies", ...}``,
with ``config.cutoff`` in Å. ``check_model``, ``check_calculator`` and ``check_descriptor`` run all
checks of their kind; each single check is public too. All raise :class:`ContractError`, say what
was expected and what came out, need no test framework, and leave their arguments as they are.

Potentials are checked on a float64 copy. Tolerances are absolute and carry their unit in the
message. Finite differences have an error of fourth order in ``STEP``.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from numpy.typing import ArrayLike, NDArray
from torch import nn

from qdgnn_ase.graph import AtomGraph, collate, from_atoms
from qdgnn_ase.nn.derivatives import energy_forces_stress, hessian

__all__ = [
    "STEP",
    "ContractError",
    "check_atoms_unchanged",
    "check_batch",
    "check_cache",
    "check_calculator",
    "check_calculator_forces",
    "check_calculator_stress",
    "check_continuity",
    "check_copies",
    "check_descriptor",
    "check_forces",
    "check_hessian",
    "check_isolated",
    "check_model",
    "check_net_force",
    "check_no_cell",
    "check_outputs",
    "check_permutation",
    "check_results",
    "check_rotation",
    "check_stress",
    "check_supercell",
    "check_translation",
    "check_unchanged",
    "check_wrap",
    "example_structures",
]

Array = NDArray[np.float64]

STEP = 1e-3
"""Finite-difference step, Å for positions and 1 for strain."""

_STENCIL = ((1, 8.0 / 12.0), (-1, -8.0 / 12.0), (2, -1.0 / 12.0), (-2, 1.0 / 12.0))
"""Central first derivative of fourth order: (multiple of the step, weight)."""

_CROSSING = 1e-7
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


# --- potentials ----------------------------------------------------------------------------------


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
    graph = collate([from_atoms(atoms, _cutoff(model), dtype) for atoms in structures])
    output = energy_forces_stress(model, graph)
    n, g = len(graph.numbers), graph.n_graphs
    shapes = {"energy": (g,), "energies": (n,), "forces": (n, 3), "stress": (g, 3, 3)}
    for name, shape in shapes.items():
        _require(name in output, f"key {name!r} in the output", sorted(output))
        _require(tuple(output[name].shape) == shape, f"{name} {shape}", tuple(output[name].shape))
    for name in ("energy", "energies", "forces"):
        _require(bool(torch.isfinite(output[name]).all()), f"finite {name}", output[name].tolist())
    expected = torch.isfinite(graph.volumes()).tolist()
    finite = torch.isfinite(output["stress"]).all(dim=2).all(dim=1).tolist()
    _require(finite == expected, f"stress where there is a volume {expected}", finite)


def check_batch(model: nn.Module, structures: Sequence[Atoms]) -> None:
    """A batch gives what its structures give alone, to 1e-10 eV/atom."""
    model = _float64(model)
    together = energy_forces_stress(model, collate([_graph(model, atoms) for atoms in structures]))
    alone = [energy_forces_stress(model, _graph(model, atoms)) for atoms in structures]
    sizes = torch.tensor([len(atoms) for atoms in structures])
    energy = torch.cat([single["energy"] for single in alone])
    _close("energy of a batch", together["energy"] / sizes, energy / sizes, 1e-10, "eV/atom")
    for name, unit in (("energies", "eV"), ("forces", "eV/Å"), ("stress", "eV/Å^3")):
        expected = torch.cat([single[name] for single in alone])
        _close(f"{name} of a batch", together[name], expected, 1e-9, unit)


def check_unchanged(model: nn.Module, structures: Sequence[Atoms]) -> None:
    """Evaluation changes neither the graph nor the weights."""
    model = _float64(model)
    graph = collate([_graph(model, atoms) for atoms in structures])
    before, state = _snapshot(graph), copy.deepcopy(model.state_dict())
    energy_forces_stress(model, graph)
    after = _snapshot(graph)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    weights = model.state_dict()
    changed += [k for k in state if not torch.equal(state[k].nan_to_num(), weights[k].nan_to_num())]
    _require(not changed, "unchanged inputs and weights", f"changes of {changed}")
    _require(not graph.positions.requires_grad, "positions without gradients", "requires_grad")


def check_permutation(model: nn.Module, atoms: Atoms) -> None:
    """Renumbering the atoms renumbers energies and forces, to 1e-8 eV/atom and eV/Å."""
    order = np.random.default_rng(0).permutation(len(atoms))
    model, label = _float64(model), f"permutation of {atoms.symbols}"
    plain, permuted = _evaluate(model, atoms), _evaluate(model, atoms[order])
    _close(label, permuted["energies"], plain["energies"][order], 1e-8, "eV")
    _close(label, permuted["forces"], plain["forces"][order], 1e-8, "eV/Å")


def check_rotation(model: nn.Module, atoms: Atoms) -> None:
    """Rotation and inversion keep the energy and turn forces and stress, to 1e-8."""
    model, plain = _float64(model), _evaluate(_float64(model), atoms)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    for matrix, name in ((turn * np.linalg.det(turn), "rotation"), (-np.eye(3), "inversion")):
        turned = _evaluate(model, _transformed(atoms, matrix))
        label = f"{name} of {atoms.symbols}"
        _close(label, turned["energy"] / len(atoms), plain["energy"] / len(atoms), 1e-8, "eV/atom")
        _close(label, turned["forces"], plain["forces"] @ matrix, 1e-8, "eV/Å")
        _close(label, turned["stress"], matrix.T @ plain["stress"] @ matrix, 1e-8, "eV/Å^3")


def check_translation(model: nn.Module, atoms: Atoms) -> None:
    """A shift of all atoms keeps the energy to 1e-8 eV/atom."""
    model, moved = _float64(model), atoms.copy()
    moved.positions += np.array([3.319, -7.127, 11.773])
    _same_energy(model, atoms, moved, "translation")


def check_wrap(model: nn.Module, atoms: Atoms) -> None:
    """Atoms in other cells and another basis of the lattice keep the energy to 1e-8 eV/atom."""
    model, moved = _float64(model), atoms.copy()
    images = np.random.default_rng(0).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
    moved.positions += images @ atoms.cell.array
    _same_energy(model, atoms, moved, "lattice wrap")
    periodic = np.flatnonzero(atoms.pbc)
    if len(periodic) > 1:
        moved.cell[periodic[1]] += 2 * moved.cell[periodic[0]]
        _same_energy(model, atoms, moved, "other lattice basis")


def check_supercell(model: nn.Module, atoms: Atoms) -> None:
    """Repetition along the periodic axes keeps the energy per atom to 1e-8 eV/atom."""
    _same_energy(_float64(model), atoms, atoms * np.where(atoms.pbc, 2, 1), "supercell")


def check_net_force(model: nn.Module, atoms: Atoms) -> None:
    """The forces on the atoms of a structure add up to zero, to 1e-8 eV/Å."""
    net = _evaluate(_float64(model), atoms)["forces"].sum(axis=0)
    _close(f"net force of {atoms.symbols}", net, np.zeros(3), 1e-8, "eV/Å")


def check_continuity(model: nn.Module, atoms: Atoms) -> None:
    """Energy, forces and Hessian do not jump when a pair crosses the cutoff.

    Two dimers of the structure's elements, an atom of each 1e-7 Å inside the cutoff of the other:
    with and without the edges of that pair the same positions must give the same values.
    """
    model, cutoff = _float64(model), _cutoff(model)
    cluster = _crossing_pair(atoms, cutoff - _CROSSING)
    graphs = [from_atoms(cluster, r, torch.float64) for r in (cutoff, cutoff - 2 * _CROSSING)]
    inside, outside = (energy_forces_stress(model, graph) for graph in graphs)
    label = f"jump of {cluster.symbols} at the cutoff"
    _close(f"energy, {label}", outside["energy"], inside["energy"], 1e-9, "eV")
    _close(f"forces, {label}", outside["forces"], inside["forces"], 1e-7, "eV/Å")
    second = [hessian(model, graph) for graph in graphs]
    _close(f"Hessian, {label}", second[1], second[0], 1e-4, "eV/Å^2")


def check_isolated(model: nn.Module, atoms: Atoms) -> None:
    """A lone atom feels no force; far fragments do not feel each other, to 1e-8 eV."""
    model = _float64(model)
    lone, pair = atoms[:1], _crossing_pair(atoms, 0.5 * _cutoff(model))
    lone.pbc, lone.cell = False, None
    single = _evaluate(model, lone)
    energy = single["energy"]
    _require(bool(np.isfinite(energy).all()), f"finite energy of {lone.symbols}", energy)
    _close(f"force on one {lone.symbols}", single["forces"], np.zeros((1, 3)), 1e-12, "eV/Å")
    lone.positions += 20 * _cutoff(model)
    expected = energy + _evaluate(model, pair)["energy"]
    got = _evaluate(model, pair + lone)["energy"]
    _close("energy of far fragments", got, expected, 1e-8, "eV")


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
    model = _float64(model)
    index = _components(atoms, n_components)
    forces = _evaluate(model, atoms)["forces"].reshape(-1)[index]
    numeric = [-_difference(lambda x: _energy(model, x), _displace(atoms, k)) for k in index]
    _close(f"forces on {atoms.symbols}", forces, np.array(numeric), tolerance, "eV/Å")


def check_stress(model: nn.Module, atoms: Atoms, *, tolerance: float = 1e-6) -> None:
    """Stress is dE/dstrain / volume, tension positive, to 1e-6 eV/Å^3; NaN without a volume."""
    model, stress = _float64(model), _evaluate(_float64(model), atoms)["stress"][0]
    if atoms.cell.rank < 3:
        _require(bool(np.isnan(stress).all()), "NaN stress without a volume", stress.tolist())
        return
    numeric = np.zeros((3, 3))
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        slope = _difference(lambda x: _energy(model, x), _strain(atoms, i, j))
        numeric[i, j] = numeric[j, i] = slope / atoms.get_volume()
    _close(f"stress of {atoms.symbols}", stress, numeric, tolerance, "eV/Å^3")


def check_hessian(model: nn.Module, atoms: Atoms, *, tolerance: float = 1e-5) -> None:
    """The Hessian is symmetric and minus the finite differences of the forces (eV/Å^2)."""
    model = _float64(model)
    matrix = hessian(model, _graph(model, atoms)).numpy()
    _close(f"symmetry of the Hessian of {atoms.symbols}", matrix, matrix.T, 1e-8, "eV/Å^2")
    index = _components(atoms, 4)
    forces = _forces_of(model)
    # third derivatives jump at the cutoff: a smaller step keeps that small
    numeric = [-_difference(forces, _displace(atoms, k), 0.1 * STEP) for k in index]
    _close(f"Hessian of {atoms.symbols}", matrix[index], np.array(numeric), tolerance, "eV/Å^2")


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


# --- ASE calculators -----------------------------------------------------------------------------


def check_calculator(
    calculator: Any,
    atoms: Atoms | None = None,
    *,
    step: float = 1e-4,
    forces_tolerance: float = 1e-5,
    stress_tolerance: float = 1e-6,
) -> None:
    """Run every contract of an ASE calculator.

    Args:
        calculator: ASE calculator; stress is checked if it implements it.
        atoms: Periodic structure with forces and stress; strained, rattled Cu4 if not given.
        step: Finite-difference step; a float32 calculator needs about 1e-2 and wider tolerances.
        forces_tolerance: eV/Å.
        stress_tolerance: eV/Å^3.

    Raises:
        ContractError: With the first contract that is broken.
    """
    atoms = _copper() if atoms is None else atoms
    for check in (check_results, check_atoms_unchanged, check_cache, check_copies):
        check(calculator, atoms)
    check_calculator_forces(calculator, atoms, step=step, tolerance=forces_tolerance)
    if _has_stress(calculator):
        check_calculator_stress(calculator, atoms, step=step, tolerance=stress_tolerance)
        check_no_cell(calculator, atoms)


def check_results(calculator: Any, atoms: Atoms) -> None:
    """Energies are Python floats; forces (n_atoms, 3) and stress (6,) are float64 arrays."""
    atoms = _attached(atoms, calculator)
    for force_consistent in (False, True):
        energy = atoms.get_potential_energy(force_consistent=force_consistent)
        good = isinstance(energy, float) and bool(np.isfinite(energy))
        _require(good, "a finite float energy", repr(energy))
    arrays: dict[str, tuple[Any, tuple[int, ...]]]
    arrays = {"forces": (atoms.get_forces(apply_constraint=False), (len(atoms), 3))}
    if _has_stress(calculator):
        arrays["stress"] = (atoms.get_stress(apply_constraint=False), (6,))
    for name, (value, shape) in arrays.items():
        got = (type(value).__name__, getattr(value, "dtype", None), getattr(value, "shape", None))
        _require(got == ("ndarray", np.float64, shape), f"{name} float64 array {shape}", got)
        _require(bool(np.isfinite(value).all()), f"finite {name}", value.tolist())


def check_atoms_unchanged(calculator: Any, atoms: Atoms) -> None:
    """A calculation changes nothing in the Atoms object."""
    atoms = _attached(atoms, calculator)
    before = copy.deepcopy(atoms.todict())
    atoms.get_potential_energy()
    atoms.get_forces()
    after = atoms.todict()
    _require(before.keys() == after.keys(), f"keys {sorted(before)}", sorted(after))
    changed = [name for name in before if not _equal(before[name], after[name])]
    _require(not changed, "unchanged atoms", f"changes of {changed}")


def check_cache(calculator: Any, atoms: Atoms) -> None:
    """Known results are kept, returned as copies, and dropped when the structure changes."""
    atoms = _attached(atoms, calculator)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    names = ["energy", "forces"]
    _require(not calculator.calculation_required(atoms, names), "kept results", "a recalculation")
    expected, forces[:] = forces.copy(), 1e3
    _close("forces after the caller wrote into them", atoms.get_forces(), expected, 0.0, "eV/Å")
    atoms.positions[0] += 0.05
    _require(calculator.calculation_required(atoms, names), "a recalculation", "stale results")
    _require(atoms.get_potential_energy() != energy, "another energy for a moved atom", energy)
    atoms.positions[0] -= 0.05
    _close("energy of the atom moved back", atoms.get_potential_energy(), energy, 1e-4, "eV")


def check_copies(calculator: Any, atoms: Atoms) -> None:
    """copy, deepcopy and pickle give calculators with the same energy."""
    energy = _attached(atoms, calculator).get_potential_energy()
    copies: dict[str, Callable[[Any], Any]] = {
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda x: pickle.loads(pickle.dumps(x)),  # noqa: S301, we made the bytes
    }
    for name, duplicate in copies.items():
        try:
            other = duplicate(calculator)
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise ContractError(
                f"expected a calculator that survives {name}, got {error!r}"
            ) from error
        other.reset()
        got = _attached(atoms, other).get_potential_energy()
        _close(f"energy of a calculator made by {name}", got, energy, 1e-6, "eV")


def check_calculator_forces(
    calculator: Any, atoms: Atoms, *, step: float = 1e-4, tolerance: float = 1e-5
) -> None:
    """Forces of up to 4 atoms are minus the finite differences of the energy."""
    atoms = _attached(atoms, calculator)
    forces = atoms.get_forces(apply_constraint=False)[:4]
    numeric = calculate_numerical_forces(
        atoms, eps=step, iatoms=range(len(forces)), force_consistent=True
    )
    _close(f"forces on {atoms.symbols}", forces, numeric, tolerance, "eV/Å")


def check_calculator_stress(
    calculator: Any, atoms: Atoms, *, step: float = 1e-4, tolerance: float = 1e-6
) -> None:
    """Stress is dE/dstrain / volume in ASE's order and sign."""
    atoms = _attached(atoms, calculator)
    stress = atoms.get_stress(apply_constraint=False)
    numeric = calculate_numerical_stress(atoms, eps=step, force_consistent=True)
    _close(f"stress of {atoms.symbols}", stress, numeric, tolerance, "eV/Å^3")


def check_no_cell(calculator: Any, atoms: Atoms) -> None:
    """Without a cell energy and forces are there, stress raises PropertyNotImplementedError."""
    cluster = _attached(Atoms(atoms.numbers, atoms.positions), calculator)
    forces = cluster.get_forces()
    _require(bool(np.isfinite(forces).all()), "finite forces without a cell", forces.tolist())
    try:
        stress = cluster.get_stress()
    except PropertyNotImplementedError:
        return
    raise ContractError(f"expected PropertyNotImplementedError without a cell, got stress {stress}")


# --- descriptor tables ---------------------------------------------------------------------------


def check_descriptor(table: ArrayLike) -> None:
    """A table of element features: 95 rows by atomic number, row 0 NaN, columns standardised.

    Raises:
        ContractError: With the first contract that is broken.
    """
    values = np.asarray(table, dtype=np.float64)
    _require(values.ndim == 2 and len(values) == 95, "a table of 95 rows", values.shape)
    _require(bool(np.isnan(values[0]).all()), "NaN in row 0, which is no element", values[0])
    rows, columns = np.nonzero(~np.isfinite(values[1:]))
    bad = list(zip(rows + 1, columns, strict=True))[:10]
    _require(not bad, "finite features", f"NaN or inf at (Z, column) {bad}")
    zero, one = np.zeros(values.shape[1]), np.ones(values.shape[1])
    _close("mean of the columns", values[1:].mean(axis=0), zero, 1e-6, "")
    _close("standard deviation of the columns", values[1:].std(axis=0), one, 1e-6, "")


# --- helpers -------------------------------------------------------------------------------------


def _require(condition: bool, expected: str, got: object) -> None:
    if not condition:
        raise ContractError(f"expected {expected}, got {got}")


def _close(what: str, got: ArrayLike, expected: ArrayLike, tolerance: float, unit: str) -> None:
    """Largest deviation at most ``tolerance``; NaN is equal to NaN and to nothing else."""
    a, b = (np.asarray(x.detach() if isinstance(x, torch.Tensor) else x) for x in (got, expected))
    _require(a.shape == b.shape, f"{what} of shape {b.shape}", a.shape)
    error = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
    if not (error <= tolerance).all():
        worst = np.unravel_index(np.argmax(np.nan_to_num(error, nan=np.inf)), error.shape)
        raise ContractError(
            f"{what}: expected {b[worst]:.10g} within {tolerance:g} {unit}, got {a[worst]:.10g}"
            f" (largest of {error.size} deviations: {error[worst]:.3g})"
        )


def _same_energy(model: nn.Module, atoms: Atoms, other: Atoms, what: str) -> None:
    expected, got = _energy(model, atoms) / len(atoms), _energy(model, other) / len(other)
    _close(f"energy after {what} of {atoms.symbols}", got, expected, 1e-8, "eV/atom")


def _cutoff(model: nn.Module) -> float:
    return float(cast("Any", model).config.cutoff)


def _float64(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double().eval()


def _graph(model: nn.Module, atoms: Atoms) -> AtomGraph:
    return from_atoms(atoms, _cutoff(model), torch.float64)


def _energy(model: nn.Module, atoms: Atoms) -> float:
    with torch.no_grad():
        return float(model(_graph(model, atoms))["energy"].item())


def _evaluate(model: nn.Module, atoms: Atoms) -> dict[str, Array]:
    output = energy_forces_stress(model, _graph(model, atoms))
    return {name: value.detach().numpy() for name, value in output.items()}


def _forces_of(model: nn.Module) -> Callable[[Atoms], Array]:
    return lambda atoms: _evaluate(model, atoms)["forces"].reshape(-1)


def _snapshot(graph: AtomGraph) -> dict[str, torch.Tensor]:
    return {field.name: getattr(graph, field.name).clone() for field in fields(graph)}


def _transformed(atoms: Atoms, matrix: Array) -> Atoms:
    """Positions and cell times a 3x3 matrix from the right."""
    result = atoms.copy()
    result.positions = atoms.positions @ matrix
    result.cell = atoms.cell.array @ matrix
    return result


def _displace(atoms: Atoms, component: int) -> Callable[[float], Atoms]:
    def moved(amount: float) -> Atoms:
        result = atoms.copy()
        result.positions[component // 3, component % 3] += amount
        return result

    return moved


def _strain(atoms: Atoms, i: int, j: int) -> Callable[[float], Atoms]:
    def strained(amount: float) -> Atoms:
        strain = np.eye(3)
        strain[i, j] += 0.5 * amount
        strain[j, i] += 0.5 * amount
        return _transformed(atoms, strain)

    return strained


def _difference(
    function: Callable[[Atoms], Any], along: Callable[[float], Atoms], step: float = STEP
) -> Any:
    """Derivative of function(along(amount)) at amount 0, fourth order in the step."""
    return sum(weight * function(along(k * step)) for k, weight in _STENCIL) / step


def _components(atoms: Atoms, n: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(3 * len(atoms))[:n]


def _crossing_pair(atoms: Atoms, distance: float) -> Atoms:
    """Two dimers of the structure's elements; their inner atoms are at ``distance`` (Å)."""
    numbers = np.resize(atoms.numbers, 4)
    axis = np.array([0.48, 0.6, 0.64])
    inner = np.array([np.zeros(3), distance * axis / np.linalg.norm(axis)])
    outer = inner + np.array([[-1.9, 0.3, -0.6], [1.2, 1.9, -0.2]])
    return Atoms(numbers, np.concatenate([inner, outer]))


def _copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    return _transformed(atoms, np.array([[1.03, 0.02, 0.0], [0.02, 0.98, 0.01], [0.0, 0.01, 1.0]]))


def _attached(atoms: Atoms, calculator: Any) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms


def _has_stress(calculator: Any) -> bool:
    return "stress" in calculator.implemented_properties


def _equal(a: Any, b: Any) -> bool:
    return a is b or bool(np.all(np.asarray(a == b)))
