"""The contracts see what they should see: every check passes a good case and fails a broken one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from torch import Tensor, nn

from qdgnn_ase import testing
from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn import attention, radial
from qdgnn_ase.nn.attention import LOGIT_BOUND
from qdgnn_ase.nn.derivatives import energy_forces_stress, hessian
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.segment import Edges
from qdgnn_ase.quantum.atomic import atomic_features, permuted_features
from qdgnn_ase.testing import ContractError

Output = dict[str, Tensor]
Term = Callable[[AtomGraph, Tensor], Tensor]


class Plus(nn.Module):
    """A potential with another energy per atom (n_atoms,) added."""

    def __init__(self, model: QDGNN, term: Term) -> None:
        super().__init__()
        self.model, self.term, self.config = model, term, model.config

    def forward(self, graph: AtomGraph, edge_vector: Tensor | None = None) -> Output:
        vector = graph.edge_vectors() if edge_vector is None else edge_vector
        output: Output = self.model(graph, vector)
        energies = output["energies"] + self.term(graph, vector)
        energy = energies.new_zeros(graph.n_graphs).index_add(0, graph.batch, energies)
        return output | {"energies": energies, "energy": energy}


def to_atoms(graph: AtomGraph, values: Tensor) -> Tensor:
    """Sum values (n_edges,) over the edges into each atom, by weights that end at 4.5 Å."""
    d = graph.edge_vectors().norm(dim=1)
    values = values * radial.envelope(d, 4.5)
    return values.new_zeros(len(graph.numbers)).index_add(0, graph.edge_index[1], values)


def absolute_components(graph: AtomGraph, vector: Tensor) -> Tensor:
    return 0.1 * to_atoms(graph, vector[:, 0].abs())


def odd_components(graph: AtomGraph, vector: Tensor) -> Tensor:
    """A pseudoscalar of each atom's neighbours: kept by rotation, turned by inversion."""
    columns = [
        to_atoms(graph, v) for k in (1, 2, 3) for v in (vector * vector.norm(dim=1)[:, None] ** k).T
    ]
    return torch.linalg.det(torch.stack(columns, dim=1).view(-1, 3, 3)) * 1e-3


def absolute_positions(graph: AtomGraph, _: Tensor) -> Tensor:
    return 0.01 * graph.positions[:, 2]


def numbering(graph: AtomGraph, _: Tensor) -> Tensor:
    return 0.01 * torch.arange(len(graph.numbers), dtype=torch.float64)


def mean_over_atoms(graph: AtomGraph, _: Tensor) -> Tensor:
    return 1.0 / graph.n_atoms[graph.batch].double() ** 2


def mean_over_batch(graph: AtomGraph, _: Tensor) -> Tensor:
    return graph.numbers.double() * 1e-3 / graph.n_graphs


def hard_cutoff(graph: AtomGraph, vector: Tensor) -> Tensor:
    count = torch.bincount(graph.edge_index[1], minlength=len(graph.numbers))
    return 0.001 * count.double() + 0.0 * vector.sum()


def write_to_positions(graph: AtomGraph, _: Tensor) -> Tensor:
    graph.positions.mul_(1.01)
    return torch.zeros(len(graph.numbers), dtype=torch.float64)


def name_of(value: object) -> str:
    """Test id of a function or class; nothing of a message."""
    return getattr(value, "__name__", "")


BROKEN: list[tuple[Term, Callable[[nn.Module, Any], None], str]] = [
    (absolute_components, testing.check_rotation, "rotation of"),
    (odd_components, testing.check_rotation, "inversion of"),
    (absolute_positions, testing.check_translation, "energy after translation"),
    (numbering, testing.check_permutation, "permutation of"),
    (numbering, testing.check_supercell, "energy after supercell"),
    (mean_over_atoms, testing.check_supercell, "energy after supercell"),
    (mean_over_atoms, testing.check_isolated, "energy of far fragments"),
    (absolute_positions, testing.check_forces, "forces on .*: expected .* within 1e-05 eV/Å, got"),
    (hard_cutoff, testing.check_continuity, "energy, jump"),
]


@pytest.mark.parametrize(("term", "check", "message"), BROKEN, ids=name_of)
def test_broken_potentials_fail(
    model64: QDGNN,
    structures: dict[str, Atoms],
    term: Term,
    check: Callable[[nn.Module, Atoms], None],
    message: str,
) -> None:
    check(model64, structures["perovskite"])
    broken = Plus(model64, term)
    with pytest.raises(ContractError, match=message):
        check(broken, structures["perovskite"])
    with pytest.raises(ContractError):
        testing.check_model(broken, [structures["perovskite"], structures["water"]])


def test_broken_batch_fails(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    with pytest.raises(ContractError, match=r"energy of a batch: .* within 1e-10 eV/atom"):
        testing.check_batch(Plus(model64, mean_over_batch), list(structures.values())[:3])


def test_mutated_graph_fails(model64: QDGNN, structures: dict[str, Atoms]) -> None:
    with pytest.raises(ContractError, match=r"unchanged inputs .* got changes of \['positions'\]"):
        testing.check_unchanged(Plus(model64, write_to_positions), [structures["water"]])


def replace_derivatives(monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    for room in ("common", "model"):
        monkeypatch.setattr(f"qdgnn_ase.testing.{room}.energy_forces_stress", function)


def test_flipped_stress_fails(
    model64: QDGNN, structures: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = energy_forces_stress

    def flipped(*args: Any, **kwargs: Any) -> Output:
        output = right(*args, **kwargs)
        return output | {"stress": -output["stress"]}

    replace_derivatives(monkeypatch, flipped)
    with pytest.raises(ContractError, match=r"stress of SrTiO3: expected .* eV/Å\^3, got"):
        testing.check_stress(model64, structures["perovskite"])
    with pytest.raises(ContractError, match="stress of SrTiO3"):
        testing.check_model(model64, [structures["perovskite"]])


def test_net_force_fails(
    model64: QDGNN, structures: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = energy_forces_stress

    def pushed(*args: Any, **kwargs: Any) -> Output:
        output = right(*args, **kwargs)
        return output | {"forces": output["forces"] + 1e-6}

    replace_derivatives(monkeypatch, pushed)
    with pytest.raises(ContractError, match="net force of"):
        testing.check_net_force(model64, structures["water"])


def test_wrong_hessian_fails(
    model64: QDGNN, structures: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = hessian
    for change, message in ((0.01, "Hessian of"), (torch.linspace(0, 1, 9), "symmetry of")):
        wrong = lambda *args, x=change: right(*args) + x  # noqa: E731
        monkeypatch.setattr("qdgnn_ase.testing.model.hessian", wrong)
        with pytest.raises(ContractError, match=message):
            testing.check_hessian(model64, structures["water"])


def no_envelope(distance: Tensor, cutoff: Tensor | float) -> Tensor:
    return torch.ones_like(distance)


def cosine(distance: Tensor, cutoff: Tensor | float) -> Tensor:
    return 0.5 * (1.0 + torch.cos(torch.pi * (distance / cutoff).clamp(max=1.0)))


@pytest.mark.parametrize(("function", "message"), [(no_envelope, "energy,"), (cosine, "Hessian,")])
def test_other_envelopes_fail(
    model64: QDGNN,
    structures: dict[str, Atoms],
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[[Tensor, float], Tensor],
    message: str,
) -> None:
    """Without an envelope the energy jumps; a cosine leaves a jump in the Hessian alone."""
    testing.check_continuity(model64, structures["perovskite"])
    monkeypatch.setattr(radial, "envelope", function)
    with pytest.raises(ContractError, match=message):
        testing.check_continuity(model64, structures["perovskite"])


def outside_weights(logits: Tensor, fc: Tensor, edges: Edges) -> Tensor:
    weight = torch.exp(LOGIT_BOUND * torch.tanh(logits / LOGIT_BOUND))
    return weight * fc / (1.0 + edges.sum(weight)).index_select(0, edges.destination)


def test_envelope_outside_the_normalisation_fails(
    model64: QDGNN, structures: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "attention_weights", outside_weights)
    with pytest.raises(ContractError, match="energy, jump of"):
        testing.check_continuity(model64, structures["perovskite"])


class Lennard(LennardJones):
    """A correct calculator to break."""

    def __init__(self) -> None:
        super().__init__(sigma=2.3, epsilon=0.4, rc=6.0, smooth=True)


class FlippedStress(Lennard):
    def calculate(
        self, atoms: Any = None, properties: Any = None, changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        if "stress" in self.results:
            self.results["stress"] *= -1


class VoigtOrder(Lennard):
    def calculate(
        self, atoms: Any = None, properties: Any = None, changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        if "stress" in self.results:
            self.results["stress"] = self.results["stress"][[0, 1, 2, 5, 4, 3]]


class ZeroStress(Lennard):
    def calculate(
        self, atoms: Any = None, properties: Any = None, changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        self.results.setdefault("stress", np.zeros(6))


class SoftForces(Lennard):
    def calculate(
        self, atoms: Any = None, properties: Any = None, changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        self.results["forces"] *= 0.999


class SinglePrecision(Lennard):
    def calculate(
        self, atoms: Any = None, properties: Any = None, changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        self.results["forces"] = self.results["forces"].astype(np.float32)


class ArrayEnergy(Lennard):
    def calculate(
        self, atoms: Any = None, properties: Any = None, changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        self.results["energy"] = np.array([self.results["energy"]])


class Wrapping(Lennard):
    def get_property(self, name: str, atoms: Any = None, allow_calculation: bool = True) -> Any:
        atoms.positions += 1e-9
        return super().get_property(name, atoms, allow_calculation)


class Noting(Lennard):
    def get_property(self, name: str, atoms: Any = None, allow_calculation: bool = True) -> Any:
        atoms.info["computed"] = True
        return super().get_property(name, atoms, allow_calculation)


class Stale(Lennard):
    ignored_changes = frozenset({"positions"})


class Forgetful(Lennard):
    def check_state(self, atoms: Any, tol: float = 1e-15) -> list[str]:
        return list(all_changes)


class Unpicklable(Lennard):
    def __init__(self) -> None:
        super().__init__()
        self.callback = lambda: None


CALCULATOR_CHECKS = [
    testing.check_results,
    testing.check_atoms_unchanged,
    testing.check_cache,
    testing.check_calculator_forces,
    testing.check_calculator_stress,
    testing.check_no_cell,
]
BROKEN_CALCULATORS = [
    (FlippedStress, r"stress of Cu4: expected .* within 1e-06 eV/Å\^3, got"),
    (VoigtOrder, "stress of Cu4"),
    (ZeroStress, "expected PropertyNotImplementedError without a cell, got stress"),
    (SoftForces, "forces on Cu4: expected .* within 1e-05 eV/Å, got"),
    (SinglePrecision, r"expected forces float64 array \(4, 3\), got .*float32"),
    (ArrayEnergy, "expected a finite float energy, got array"),
    (Wrapping, r"expected unchanged atoms, got changes of \['positions'\]"),
    (Noting, "got .*info"),
    (Stale, "expected a recalculation, got stale results"),
    (Forgetful, "expected kept results, got a recalculation"),
    (Unpicklable, "expected a calculator that survives pickle, got AttributeError"),
]


def test_good_calculator_passes() -> None:
    testing.check_calculator(Lennard())


def test_emt_passes_all_but_pickle() -> None:
    atoms = bulk("Au", cubic=True)
    atoms.rattle(0.1, seed=1)
    for check in CALCULATOR_CHECKS:
        check(EMT(), atoms)
    with pytest.raises(ContractError, match="expected a calculator that survives pickle, got"):
        testing.check_calculator(EMT(), atoms)


@pytest.mark.parametrize(("calculator", "message"), BROKEN_CALCULATORS, ids=name_of)
def test_broken_calculators_fail(calculator: Callable[[], Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        testing.check_calculator(calculator())


def test_calculator_check_leaves_the_atoms_alone(structures: dict[str, Atoms]) -> None:
    atoms = structures["fcc"]
    before = atoms.copy()
    testing.check_calculator(Lennard(), atoms)
    assert atoms == before
    assert atoms.calc is None


def test_model_check_leaves_the_model_alone(model64: QDGNN) -> None:
    model = model64.float()
    testing.check_forces(model, Atoms("H2", [[0, 0, 0], [0, 0, 0.8]]))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_descriptors() -> None:
    testing.check_descriptor(atomic_features())
    testing.check_descriptor(permuted_features(seed=0))


def holes(table: np.ndarray) -> np.ndarray:
    table[26, 3] = np.nan
    return table


def zero_row(table: np.ndarray) -> np.ndarray:
    table[0] = 0.0
    return table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (holes, r"expected finite features, got NaN or inf at \(Z, column\) \[\(26, 3\)\]"),
        (zero_row, "expected NaN in row 0"),
        (lambda table: table[:-1], r"expected a table of 95 rows, got \(94, 19\)"),
        (lambda table: table + 0.1, "mean of the columns"),
        (lambda table: table * 2.0, "standard deviation of the columns"),
    ],
)
def test_broken_descriptors_fail(change: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        testing.check_descriptor(change(atomic_features().copy()))


def test_needs_no_test_framework() -> None:
    code = "import sys, qdgnn_ase.testing; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
