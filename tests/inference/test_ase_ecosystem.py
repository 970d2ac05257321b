"""Scripts that people write already: relaxation, NEB, barostats, pymatgen, phonopy.

What is asserted holds for any smooth potential; the one used here has random weights.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import add_adsorbate, bulk, fcc100
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.io.trajectory import Trajectory
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.md.velocitydistribution import thermalize_momenta
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from numpy.testing import assert_allclose
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase import QDGNN, QDGNNCalculator

pytestmark = pytest.mark.filterwarnings("ignore::qdgnn_ase.ExtrapolationWarning")


@pytest.fixture(autouse=True)
def hard_cores(model: QDGNN) -> None:
    """Repulsion below 2.4 Å keeps cells of the random potential from collapsing."""
    model.shortest.fill_(2.4)


@pytest.fixture
def calculator(model: QDGNN) -> QDGNNCalculator:
    return QDGNNCalculator(model, device="cpu")


@pytest.fixture
def calculator64(model: QDGNN) -> QDGNNCalculator:
    return QDGNNCalculator(model, device="cpu", dtype="float64")


def distorted_rocksalt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.8, cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.03, 0], [0, 1.02, 0], [0, 0, 0.98]], scale_atoms=True)
    atoms.rattle(0.08, seed=1)
    return atoms


@pytest.mark.parametrize("optimizer", [FIRE, BFGS])
def test_cell_relaxation_lowers_the_energy(calculator: QDGNNCalculator, optimizer: Any) -> None:
    atoms = distorted_rocksalt()
    atoms.calc = calculator
    energy, volume = atoms.get_potential_energy(), atoms.get_volume()
    optimizer(FrechetCellFilter(atoms), logfile=None).run(fmax=0.02, steps=8)
    assert atoms.get_potential_energy() < energy - 0.1
    assert abs(atoms.get_volume() - volume) > 0.01


def test_trajectory_holds_results(calculator: QDGNNCalculator, tmp_path: Path) -> None:
    atoms = distorted_rocksalt()
    atoms.calc = calculator
    with FIRE(atoms, logfile=None, trajectory=str(tmp_path / "a.traj")) as optimizer:
        optimizer.run(fmax=1e-9, steps=3)
    with Trajectory(str(tmp_path / "a.traj")) as frames:
        assert len(frames) == 4
        last = frames[-1]
    assert_allclose(last.get_potential_energy(), atoms.get_potential_energy())
    assert_allclose(last.get_forces(), atoms.get_forces())
    assert_allclose(last.get_stress(), atoms.get_stress())


def test_constraints_hold(calculator: QDGNNCalculator) -> None:
    atoms = distorted_rocksalt()
    atoms.set_constraint(FixAtoms([0, 3]))
    atoms.calc = calculator
    start = atoms.positions.copy()
    FIRE(atoms, logfile=None).run(fmax=1e-9, steps=3)
    moved = np.abs(atoms.positions - start).max(axis=1) > 0
    assert moved.tolist() == [k not in (0, 3) for k in range(8)]
    assert not atoms.get_forces()[[0, 3]].any()


def adatom_path() -> list[Atoms]:
    """Five images of an adatom that hops between two hollow sites; mirror-symmetric."""
    first = fcc100("Al", (2, 2, 2), vacuum=5.0)
    add_adsorbate(first, "Al", 1.7, "hollow")
    first.set_constraint(FixAtoms([atom.index for atom in first if atom.tag > 0]))
    last = first.copy()
    last.positions[-1] += first.cell[0] / 2
    return [first, *(first.copy() for _ in range(3)), last]


def hop(images: list[Atoms], **options: Any) -> list[Atoms]:
    band = NEB(images, method="improvedtangent", **options)
    band.interpolate(mic=True)
    FIRE(band, logfile=None).run(fmax=0.01, steps=6)
    return images


def test_neb_with_a_shared_calculator(calculator64: QDGNNCalculator) -> None:
    shared, separate = adatom_path(), adatom_path()
    for image in shared:
        image.calc = calculator64
    for image in separate:
        image.calc = QDGNNCalculator(calculator64.model, device="cpu", dtype="float64")
    hop(shared, allow_shared_calculator=True)
    hop(separate)
    for one, other in zip(shared, separate, strict=True):
        assert_allclose(one.positions, other.positions, atol=1e-10)
        energy = calculator64.get_potential_energy(one)
        assert_allclose(energy, other.get_potential_energy(), atol=1e-8)
    energies = [image.get_potential_energy() for image in separate]
    assert_allclose(energies, energies[::-1], atol=1e-6)  # the path is its own mirror image


@pytest.mark.parametrize("barostat", [MTKNPT, IsotropicMTKNPT])
def test_barostats(calculator: QDGNNCalculator, barostat: Any) -> None:
    atoms = distorted_rocksalt()
    atoms.calc = calculator
    thermalize_momenta(atoms, 300, rng=np.random.default_rng(0))
    start, angles = atoms.get_volume(), atoms.cell.angles()
    dynamics = barostat(
        atoms,
        1.0 * units.fs,
        temperature_K=300,
        pressure_au=1.0 * units.GPa,
        tdamp=50 * units.fs,
        pdamp=200 * units.fs,
    )
    dynamics.run(8)
    assert atoms.get_volume() != start
    assert np.isfinite(atoms.get_total_energy())
    assert 0 < atoms.get_temperature() < 3000
    if barostat is IsotropicMTKNPT:
        assert_allclose(atoms.cell.angles(), angles)


def test_ase_lists_the_calculator() -> None:
    command = [str(Path(sys.executable).parent / "ase"), "info", "--plugins"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    own = text[text.index("qdgnn_ase 0") :]
    assert own.split("CalculatorPlugin")[1].split()[1].rstrip(",") == "qdgnn"


def test_pymatgen_relaxes_a_structure(calculator: QDGNNCalculator) -> None:
    start = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.9), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    start.perturb(0.05)
    relaxed = start.relax(calculator=calculator, fmax=0.05, steps=8)
    assert relaxed.composition == start.composition
    energies = [
        calculator.get_potential_energy(structure.to_ase_atoms()) for structure in (start, relaxed)
    ]
    assert energies[1] < energies[0]
    assert relaxed.volume != start.volume
    assert relaxed.calc is calculator  # pymatgen hands on calculator and results
    fixed = start.relax(calculator=calculator, relax_cell=False, fmax=0.05, steps=5)
    assert_allclose(fixed.lattice.matrix, start.lattice.matrix, atol=1e-10)


def test_pymatgen_calculates(calculator64: QDGNNCalculator) -> None:
    atoms = distorted_rocksalt()
    done = AseAtomsAdaptor.get_structure(atoms).calculate(calculator=calculator64)
    assert done is calculator64
    (expected,) = calculator64.predict_batch([atoms])
    assert done.results["energy"] == pytest.approx(expected["energy"])
    assert_allclose(done.results["forces"], expected["forces"], atol=1e-8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of matcalc's libraries
def test_pymatgen_calculates_properties_with_matcalc(calculator64: QDGNNCalculator) -> None:
    """C11 of the stress-strain fit is the derivative of the stress."""
    if find_spec("matcalc") is None:
        pytest.skip("matcalc is not installed")
    from qdgnn_bench.moduli import load_matcalc

    load_matcalc()  # the first import would ask the network
    salt = AseAtomsAdaptor.get_structure(bulk("NaCl", "rocksalt", a=5.8))
    result = salt.calc_property(
        "elasticity",
        calculator=calculator64,
        norm_strains=(-2e-3, 2e-3),
        shear_strains=(-2e-3, 2e-3),
        relax_structure=False,
        r2_min=-1,
    )
    stresses = []
    for strain in (-2e-3, 2e-3):
        atoms = bulk("NaCl", "rocksalt", a=5.8)
        atoms.set_cell(atoms.cell.array * [1 + strain, 1, 1], scale_atoms=True)
        atoms.calc = calculator64
        stresses.append(atoms.get_stress()[0])
    slope = (stresses[1] - stresses[0]) / 4e-3
    assert result["_units"]["elastic_tensor"] == "eV/A^3"
    assert_allclose(result["elastic_tensor"].voigt[0, 0], slope, rtol=0.02)


def test_pymatgen_relaxes_a_molecule(calculator: QDGNNCalculator) -> None:
    start = Molecule(["O", "H", "H"], [[0, 0, 0], [0, 0.85, 0.6], [0, -0.85, 0.6]])
    relaxed = start.relax(calculator=calculator, steps=5)
    assert relaxed.composition == start.composition
    assert not np.allclose(relaxed.cart_coords, start.cart_coords)


phonopy = pytest.importorskip("phonopy")


def phonon() -> Any:
    """Rock salt in a 2x2x2 supercell of the primitive cell, with displacements."""
    from phonopy.structure.atoms import PhonopyAtoms

    atoms = bulk("NaCl", "rocksalt", a=5.6)
    cell = PhonopyAtoms(
        symbols=list(atoms.symbols), cell=atoms.cell.array, scaled_positions=[[0] * 3, [0.5] * 3]
    )
    result = phonopy.Phonopy(cell, supercell_matrix=[2, 2, 2], primitive_matrix="P")
    result.generate_displacements(distance=0.01)
    return result


def to_ase(cell: Any) -> Atoms:
    return Atoms(cell.symbols, cell=cell.cell, positions=cell.positions, pbc=True)


def test_phonopy_by_mlp_equals_displacements_by_hand(calculator64: QDGNNCalculator) -> None:
    from qdgnn_phonons import CalculatorMLP

    automatic, by_hand = phonon(), phonon()
    automatic.mlp = CalculatorMLP(calculator64)
    automatic.evaluate_mlp()
    automatic.produce_force_constants()
    by_hand.forces = [
        calculator64.predict_batch([to_ase(cell)])[0]["forces"]
        for cell in by_hand.supercells_with_displacements
    ]
    by_hand.produce_force_constants()
    assert np.abs(by_hand.force_constants).max() > 0.1
    assert_allclose(automatic.force_constants, by_hand.force_constants, atol=1e-9)


def test_phonopy_force_constants_are_the_hessian(calculator64: QDGNNCalculator) -> None:
    """Two independent ways: displacements with symmetry, and automatic differentiation."""
    from qdgnn_phonons import CalculatorMLP

    finite = phonon()
    finite.mlp = CalculatorMLP(calculator64)
    finite.evaluate_mlp()
    finite.produce_force_constants()
    atoms = to_ase(finite.supercell)
    n = len(atoms)
    exact = calculator64.get_hessian(atoms).reshape(n, 3, n, 3).transpose(0, 2, 1, 3)
    scale = np.abs(exact).max()
    assert_allclose(finite.force_constants, exact, atol=2e-3 * scale)
    exact_sum = exact.sum(axis=1)
    assert_allclose(exact_sum, np.zeros_like(exact_sum), atol=1e-8)  # acoustic sum rule


def test_mlp_order_of_the_stress(calculator64: QDGNNCalculator) -> None:
    from phonopy.structure.atoms import PhonopyAtoms

    from qdgnn_phonons import CalculatorMLP

    atoms = distorted_rocksalt()
    cell = PhonopyAtoms(
        symbols=list(atoms.symbols), cell=atoms.cell.array, positions=atoms.positions
    )
    energies, forces, stresses = CalculatorMLP(calculator64).evaluate([cell, cell])
    (expected,) = calculator64.predict_batch([atoms])
    assert (energies.shape, forces.shape, stresses.shape) == ((2,), (2, 8, 3), (2, 6))
    assert_allclose(energies, expected["energy"])
    assert_allclose(forces[1], expected["forces"], atol=1e-8)
    xx, yy, zz, yz, xz, xy = expected["stress"]
    assert_allclose(stresses[0], [xx, yy, zz, xy, yz, xz], atol=1e-10)
