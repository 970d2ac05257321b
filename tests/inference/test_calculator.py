"""QDGNNCalculator keeps ASE's contract: units, shapes, types, errors, no side effects."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import (
    CalculationFailed,
    InputError,
    PropertyNotImplementedError,
    all_changes,
)
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.outputs import all_outputs
from numpy.testing import assert_allclose

from qdgnn_ase import QDGNN, ExtrapolationWarning, QDGNNCalculator, save_model


@pytest.fixture
def calculator(model: QDGNN) -> QDGNNCalculator:
    return QDGNNCalculator(model, device="cpu")


@pytest.fixture
def calculator64(model: QDGNN) -> QDGNNCalculator:
    return QDGNNCalculator(model, device="cpu", dtype="float64")


def rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.1, seed=3)
    return atoms


def slab() -> Atoms:
    atoms = fcc111("Al", (1, 2, 2), vacuum=4.0)
    atoms.pbc = (True, True, False)
    return rattled(atoms)


STRUCTURES = {
    "crystal": lambda: rattled(bulk("NaCl", "rocksalt", a=5.6, cubic=True)),
    "small cell": lambda: bulk("Cu"),
    "slab": slab,
    "molecule": lambda: rattled(molecule("CH3CH2OH")),
    "molecule in a box": lambda: rattled(molecule("H2O", vacuum=3.0)),
    "lone atom": lambda: Atoms("Ar"),
    "wire": lambda: Atoms("Au", cell=[0, 0, 2.6], pbc=(False, False, True)),
}


@pytest.fixture(params=list(STRUCTURES))
def atoms(request: pytest.FixtureRequest) -> Atoms:
    return STRUCTURES[request.param]()


def test_implemented_properties(calculator: QDGNNCalculator) -> None:
    names = QDGNNCalculator.implemented_properties
    assert {"energy", "free_energy", "energies", "forces", "stress"} == set(names)
    assert set(names) <= set(all_outputs)


def test_results_of_every_kind_of_structure(calculator: QDGNNCalculator, atoms: Atoms) -> None:
    atoms.calc = calculator
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert type(energy) is float
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert forces.shape == (len(atoms), 3)
    assert forces.dtype == np.float64
    assert np.isfinite(forces).all()
    assert_allclose(forces.sum(axis=0), 0, atol=1e-4)
    energies = atoms.get_potential_energies()
    assert energies.shape == (len(atoms),)
    assert energies.dtype == np.float64
    assert_allclose(energies.sum(), energy, rtol=1e-6)
    assert type(calculator.results["free_energy"]) is float


def test_stress_where_there_is_a_volume(calculator: QDGNNCalculator, atoms: Atoms) -> None:
    atoms.calc = calculator
    if atoms.cell.rank == 3:
        assert atoms.get_stress().shape == (6,)
        assert atoms.get_stress().dtype == np.float64
        assert atoms.get_stress(voigt=False).shape == (3, 3)
    else:
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()
        assert "stress" not in calculator.results
        assert np.isfinite(atoms.get_potential_energy())


def test_forces_and_stress_are_derivatives(calculator64: QDGNNCalculator) -> None:
    forces = calculator64.predict_batch([STRUCTURES["crystal"]()])[0]["forces"]
    assert 0.1 < np.abs(forces).max() < 10  # the tolerances below mean something
    for name in ("crystal", "slab", "molecule"):
        atoms = STRUCTURES[name]()
        atoms.calc = calculator64
        assert_allclose(calculate_numerical_forces(atoms, eps=1e-4), atoms.get_forces(), atol=1e-6)
    atoms = STRUCTURES["crystal"]()
    atoms.calc = calculator64
    assert_allclose(calculate_numerical_stress(atoms, eps=1e-5), atoms.get_stress(), atol=1e-7)


def test_lone_atom_has_no_force(calculator: QDGNNCalculator) -> None:
    atoms = Atoms("Ar", calculator=calculator)
    assert not atoms.get_forces().any()


def test_float64_agrees_with_float32(
    calculator: QDGNNCalculator, calculator64: QDGNNCalculator, atoms: Atoms
) -> None:
    single, double = (c.predict_batch([atoms])[0] for c in (calculator, calculator64))
    assert single.keys() == double.keys()
    for name, value in double.items():
        assert_allclose(single[name], value, rtol=1e-5, atol=2e-4, err_msg=name)
        assert not np.array_equal(single["forces"], double["forces"]) or len(atoms) == 1


def test_unknown_dtype() -> None:
    with pytest.raises(ValueError, match=r"dtype must be one of \['float32', 'float64'\], got"):
        QDGNNCalculator(dtype="float16")  # type: ignore[arg-type]


def test_unknown_model() -> None:
    with pytest.raises(FileNotFoundError, match="model must be a checkpoint file or one of"):
        QDGNNCalculator("nonexistent")


def test_model_from_a_file(model: QDGNN, calculator: QDGNNCalculator, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", model)
    atoms = STRUCTURES["crystal"]()
    expected = calculator.get_potential_energy(atoms)
    for path in (tmp_path / "m.safetensors", str(tmp_path / "m.safetensors")):
        assert QDGNNCalculator(path, device="cpu").get_potential_energy(atoms) == expected


@pytest.mark.parametrize("copied", ["pickle", "deepcopy"])
def test_copies_give_the_same_numbers(calculator: QDGNNCalculator, copied: str) -> None:
    atoms = STRUCTURES["crystal"]()
    energy = calculator.get_potential_energy(atoms)
    twin = (
        pickle.loads(pickle.dumps(calculator))  # noqa: S301  our own bytes
        if copied == "pickle"
        else copy.deepcopy(calculator)
    )
    assert twin.get_potential_energy(atoms) == energy
    atoms.positions[0] += 0.1
    assert twin.get_potential_energy(atoms) == calculator.get_potential_energy(atoms) != energy
    assert twin.todict() == calculator.todict()


def test_atoms_with_calculator_are_copied(calculator: QDGNNCalculator) -> None:
    atoms = STRUCTURES["crystal"]()
    atoms.calc = calculator
    twin = copy.deepcopy(atoms)
    assert twin.get_potential_energy() == atoms.get_potential_energy()
    assert atoms.copy().calc is None


def test_todict_is_json(calculator: QDGNNCalculator, model: QDGNN) -> None:
    assert json.loads(json.dumps(calculator.todict())) == {
        "model": "QDGNN instance",
        "device": "cpu",
        "dtype": "float32",
    }
    by_path = QDGNNCalculator(Path("default"), device="cpu").todict()
    assert json.loads(json.dumps(by_path))["model"] == "default"


def test_model_instance_is_copied(model: QDGNN) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    calculator = QDGNNCalculator(model, device="cpu", dtype="float64")
    calculator.get_potential_energy(bulk("Cu"))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype, name
        assert torch.equal(value.nan_to_num(7.0), before[name].nan_to_num(7.0)), name


def test_later_changes_of_the_model_do_not_reach_the_calculator(model: QDGNN) -> None:
    own = copy.deepcopy(model)
    calculator = QDGNNCalculator(own, device="cpu")
    energy = calculator.get_potential_energy(bulk("Cu"))
    own.element_energies += 1.0
    assert calculator.predict_batch([bulk("Cu")])[0]["energy"] == energy


def snapshot(atoms: Atoms) -> dict[str, Any]:
    arrays = {name: value.copy() for name, value in atoms.arrays.items()}
    return {**arrays, "cell": atoms.cell.array.copy(), "pbc": atoms.pbc.copy()}


def shown(atoms: Atoms) -> str:
    return f"{atoms.info} {atoms.constraints} {atoms.calc}"


def test_atoms_are_not_altered(calculator: QDGNNCalculator, atoms: Atoms) -> None:
    atoms.positions += 100.0  # far outside of the cell: wrapped inside, not here
    before, text = snapshot(atoms), shown(atoms)
    calculator.calculate(atoms)
    calculator.predict_batch([atoms])
    calculator.get_descriptors(atoms)
    after = snapshot(atoms)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert np.array_equal(value, after[name]), name
    assert shown(atoms) == text


def test_results_are_the_callers_own(calculator: QDGNNCalculator) -> None:
    atoms = STRUCTURES["crystal"]()
    atoms.calc = calculator
    forces = atoms.get_forces()
    forces[:] = 0.0
    assert atoms.get_forces().any()


def test_predict_batch_equals_singles(calculator64: QDGNNCalculator) -> None:
    structures = [build() for build in STRUCTURES.values()]
    for max_edges in (1, 100, 10**6):
        batch = calculator64.predict_batch(structures, max_edges=max_edges)
        assert len(batch) == len(structures)
        for atoms, got in zip(structures, batch, strict=True):
            single = calculator64.predict_batch([atoms])[0]
            assert got.keys() == single.keys()
            for name, value in single.items():
                assert_allclose(got[name], value, rtol=1e-10, atol=1e-10, err_msg=name)


def test_predict_batch_of_nothing(calculator: QDGNNCalculator) -> None:
    assert calculator.predict_batch([]) == []


def test_predict_batch_leaves_results_alone(calculator: QDGNNCalculator) -> None:
    atoms = STRUCTURES["crystal"]()
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    calculator.predict_batch([bulk("Cu")])
    assert calculator.results["energy"] == energy
    assert len(calculator.results["forces"]) == len(atoms)


def test_descriptors(calculator: QDGNNCalculator) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    descriptors = calculator.get_descriptors(atoms)
    assert descriptors.shape == (8, calculator.model.config.hidden)
    assert descriptors.dtype == np.float64
    for symbol in ("Na", "Cl"):  # equivalent atoms look alike
        rows = descriptors[atoms.symbols == symbol]
        assert_allclose(rows, np.tile(rows[0], (4, 1)), atol=1e-4)
    assert np.abs(descriptors[0] - descriptors[1]).max() > 1e-3


@pytest.mark.parametrize("name", ["small cell", "molecule in a box", "slab"])
def test_hessian_is_the_derivative_of_the_forces(calculator64: QDGNNCalculator, name: str) -> None:
    atoms, step = STRUCTURES[name](), 1e-4
    hessian = calculator64.get_hessian(atoms)
    n = 3 * len(atoms)
    assert hessian.shape == (n, n)
    assert_allclose(hessian, hessian.T, atol=1e-8)
    moved = []
    for index in range(n):
        for sign in (1, -1):
            moved.append(atoms.copy())
            moved[-1].positions.reshape(-1)[index] += sign * step
    forces = [result["forces"].reshape(-1) for result in calculator64.predict_batch(moved)]
    numeric = [-(forces[2 * k] - forces[2 * k + 1]) / (2 * step) for k in range(n)]
    assert_allclose(hessian, numeric, atol=1e-5)


def test_hessian_leaves_no_trace(calculator: QDGNNCalculator) -> None:
    calculator.get_hessian(bulk("Cu"))
    assert all(parameter.grad is None for parameter in calculator.model.parameters())


def test_moved_atoms_are_computed_again(calculator: QDGNNCalculator) -> None:
    atoms = STRUCTURES["crystal"]()
    atoms.calc = calculator
    first = atoms.get_potential_energy()
    atoms.positions[0] += [0.1, 0, 0]
    second = atoms.get_potential_energy()
    atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
    third = atoms.get_potential_energy()
    atoms.symbols[0] = "K"
    fourth = atoms.get_potential_energy()
    atoms.pbc = False
    assert len({first, second, third, fourth, atoms.get_potential_energy()}) == 5


def test_charges_and_moments_do_not_trigger_a_calculation(
    calculator: QDGNNCalculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = STRUCTURES["crystal"]()
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    monkeypatch.setattr(calculator, "predict_batch", lambda *_: pytest.fail("computed again"))
    atoms.set_initial_magnetic_moments([1.0] * 8)
    atoms.set_initial_charges([0.5] * 8)
    assert atoms.get_potential_energy() == energy
    assert atoms.get_forces().shape == (8, 3)


def test_structures_that_cannot_be_computed(calculator: QDGNNCalculator) -> None:
    crystal = STRUCTURES["crystal"]()
    crystal.positions[1] = np.nan
    double = Atoms("H2", [[0, 0, 0], [0, 0, 0.01]])
    cases = {
        "at least one atom": Atoms(),
        "positions must be finite": crystal,
        "at least 0.3 Å apart": double,
        r"atomic numbers must lie in 1..94, got \[95\]": Atoms("Am"),
        "atomic numbers must lie in 1..118": Atoms("X"),
        "cell vector 0 must be longer": Atoms("H", pbc=True),
    }
    for message, atoms in cases.items():
        atoms.calc = calculator
        with pytest.raises(InputError, match=message):
            atoms.get_potential_energy()
        assert "energy" not in calculator.results  # nothing of an earlier structure is left


def test_failure_leaves_no_old_results(calculator: QDGNNCalculator) -> None:
    good = STRUCTURES["crystal"]()
    good.calc = calculator
    good.get_potential_energy()
    bad = good.copy()
    bad.positions[0] = np.inf
    with pytest.raises(InputError):
        calculator.calculate(bad, ["energy"], all_changes)
    assert not calculator.results


def test_numbers_that_are_not_finite(model: QDGNN) -> None:
    broken = copy.deepcopy(model)
    broken.energy_scale.fill_(torch.inf)
    with pytest.raises(CalculationFailed, match="energy and forces must be finite"):
        QDGNNCalculator(broken, device="cpu").get_potential_energy(bulk("Cu"))


def test_unseen_elements_warn_once(model: QDGNN) -> None:
    narrow = copy.deepcopy(model)
    narrow.counts.zero_()
    narrow.counts[29] = 10
    calculator = QDGNNCalculator(narrow, device="cpu")
    calculator.get_potential_energy(bulk("Cu"))
    with pytest.warns(ExtrapolationWarning, match="elements not in the training data: Al, Ag"):
        calculator.get_potential_energy(Atoms("CuAgAl", [[0, 0, 0], [0, 0, 3], [0, 3, 0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calculator.get_potential_energy(bulk("Al"))


def test_short_distances_warn_once(model: QDGNN) -> None:
    careful = copy.deepcopy(model)
    careful.shortest[29, 29] = 2.2
    calculator = QDGNNCalculator(careful, device="cpu")
    calculator.get_potential_energy(bulk("Cu", a=3.6))
    with pytest.warns(ExtrapolationWarning, match=r"Cu-Cu at 2\.00 Å is below .* 2\.20 Å"):
        calculator.get_potential_energy(Atoms("Cu2", [[0, 0, 0], [0, 0, 2.0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calculator.get_potential_energy(Atoms("Cu2", [[0, 0, 0], [0, 0, 1.9]]))


def test_extxyz_keeps_results(calculator: QDGNNCalculator, tmp_path: Path) -> None:
    atoms = STRUCTURES["crystal"]()
    atoms.calc = calculator
    atoms.get_potential_energy()
    ase.io.write(tmp_path / "a.extxyz", atoms)
    again = ase.io.read(tmp_path / "a.extxyz")
    assert_allclose(again.get_potential_energy(), atoms.get_potential_energy())
    assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-7)
    assert_allclose(again.get_stress(), atoms.get_stress(), atol=1e-7)
    assert_allclose(again.get_potential_energies(), atoms.get_potential_energies(), atol=1e-7)


@pytest.mark.parametrize("name", ["a.traj", "a.json"])
def test_other_writers_keep_results(calculator: QDGNNCalculator, tmp_path: Path, name: str) -> None:
    atoms = STRUCTURES["crystal"]()
    atoms.calc = calculator
    atoms.get_potential_energy()
    ase.io.write(tmp_path / name, atoms)
    again = ase.io.read(tmp_path / name)
    assert_allclose(again.get_potential_energy(), atoms.get_potential_energy())
    assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-7)


def test_database_row(calculator: QDGNNCalculator, tmp_path: Path) -> None:
    atoms = STRUCTURES["crystal"]()
    atoms.calc = calculator
    atoms.get_potential_energy()
    with ase.db.connect(tmp_path / "a.db") as database:
        row = database.get(database.write(atoms))
    assert row.calculator == "qdgnn"
    assert row.energy == atoms.get_potential_energy()
    assert_allclose(row.forces, atoms.get_forces())
    assert_allclose(row.stress, atoms.get_stress())
    assert row.calculator_parameters["dtype"] == "float32"


def test_get_properties(calculator: QDGNNCalculator) -> None:
    """ASE's newer interface refuses results that it does not know."""
    atoms = STRUCTURES["crystal"]()
    properties = calculator.calculate_properties(atoms, ["energy", "forces", "stress"])
    assert properties["forces"].shape == (8, 3)
    assert {"energy", "free_energy", "energies", "forces", "stress"} <= set(properties)
    atoms.calc = calculator
    atoms.get_potential_energy()
    assert calculator.export_properties()["energy"] == atoms.get_potential_energy()


def test_two_calculators_do_not_disturb_each_other(model: QDGNN) -> None:
    other = copy.deepcopy(model)
    other.element_energies += 1.0
    first, second = QDGNNCalculator(model, device="cpu"), QDGNNCalculator(other, device="cpu")
    atoms = bulk("Cu")
    energy = first.get_potential_energy(atoms)
    assert second.get_potential_energy(atoms) == pytest.approx(energy + 1.0, abs=1e-5)
    assert first.predict_batch([atoms])[0]["energy"] == energy


GLOBALS = """
import os
environment = dict(os.environ)
import numpy as np, torch
torch.set_num_threads(3)
def state():
    return {
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch numbers": hash(tuple(torch.get_rng_state().tolist())),
        "numpy numbers": hash(str(np.random.get_state())),
        "numpy errors": str(np.geterr()),
    }
before = state()
from ase.build import bulk
from qdgnn_ase import QDGNNCalculator
calculator = QDGNNCalculator(dtype="float64", device="cpu")
atoms = bulk("NaCl", "rocksalt", a=5.6)
atoms.calc = calculator
atoms.get_stress()
calculator.get_hessian(atoms)
calculator.get_descriptors(atoms)
calculator.predict_batch([atoms.repeat(4)])  # large enough for DGL
assert state() == before, (before, state())
changed = dict(set(os.environ.items()) ^ set(environment.items()))
assert changed in ({}, {"DGLBACKEND": "pytorch"}), changed
"""


def test_no_global_state_is_changed(tmp_path: Path) -> None:
    """In a fresh process, so that the first import counts too."""
    result = subprocess.run(
        [sys.executable, "-c", GLOBALS], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())


def test_gradient_mode_does_not_matter(calculator: QDGNNCalculator) -> None:
    atoms = STRUCTURES["crystal"]()
    expected = calculator.predict_batch([atoms])[0]["forces"]
    with torch.no_grad():
        assert_allclose(calculator.predict_batch([atoms])[0]["forces"], expected, atol=1e-6)
    with torch.inference_mode():
        assert_allclose(calculator.predict_batch([atoms])[0]["forces"], expected, atol=1e-6)
    assert torch.is_grad_enabled()


def test_default_dtype_does_not_matter(calculator: QDGNNCalculator) -> None:
    atoms = STRUCTURES["crystal"]()
    expected = calculator.predict_batch([atoms])[0]
    torch.set_default_dtype(torch.float64)
    try:
        got = calculator.predict_batch([atoms])[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert_allclose(got["forces"], expected["forces"], atol=1e-6)


def test_many_calculations_do_not_pile_up_memory(calculator: QDGNNCalculator) -> None:
    atoms = STRUCTURES["crystal"]()
    atoms.calc = calculator
    counts = []
    for step in range(6):
        atoms.positions[0, 0] += 0.01
        atoms.get_forces()
        gc.collect()
        if step >= 2:
            counts.append(sum(type(thing) is torch.Tensor for thing in gc.get_objects()))
    assert len(set(counts)) == 1, counts


def test_embedded_model_computes(tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.calc = QDGNNCalculator()
    assert np.isfinite(atoms.get_potential_energy())
    assert atoms.calc.todict()["model"] == "default"
