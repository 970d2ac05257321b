"""Lattice parameters, bulk moduli and phonons: oracles by EMT and by springs."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import find_mic
from click.testing import CliRunner
from phonopy.physical_units import get_physical_units
from scipy.optimize import minimize_scalar

from qdgnn_ase import Split
from qdgnn_bench import phonons
from qdgnn_bench.equation_of_state import SOLIDS, bulk_modulus, modulus_error, read_solids
from qdgnn_bench.equation_of_state import markdown as modulus_table
from qdgnn_bench.equation_of_state import summarise as summarise_moduli
from qdgnn_bench.lattice import lattice_error, markdown, median, select, summarise
from qdgnn_bench.phonon_curves import heat_capacities, phonon_curves
from qdgnn_bench.solids import fold_of_model, solids


class Springs(Calculator):
    """Harmonic nearest-neighbour bonds about given positions; Hessian known by construction."""

    implemented_properties = ("energy", "forces")

    def __init__(self, ideal: Atoms, cutoff: float, push: float = 0.0) -> None:
        super().__init__()
        self.ideal, self.push = ideal.copy(), push
        n = len(ideal)
        self.hessian = np.zeros((n, 3, n, 3))
        for i in range(n):
            vectors = find_mic(ideal.positions - ideal.positions[i], ideal.cell)[0]
            for j in np.flatnonzero(np.linalg.norm(vectors, axis=1) < cutoff):
                if j != i:
                    unit = vectors[j] / np.linalg.norm(vectors[j])
                    bond = 3.0 * np.outer(unit, unit) + 0.3 * np.eye(3)
                    self.hessian[i, :, i, :] += bond
                    self.hessian[i, :, j, :] -= bond

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        moved = find_mic(self.atoms.positions - self.ideal.positions, self.ideal.cell)[0]
        forces = -np.einsum("iajb,jb->ia", self.hessian, moved)
        signs = np.where(self.atoms.numbers == self.atoms.numbers[0], 1.0, -1.0)
        forces[:, 2] += self.push * signs
        self.results = {"energy": -0.5 * float((forces * moved).sum()), "forces": forces}

    def spectrum(self) -> np.ndarray:
        """All frequencies of the supercell in THz, sorted."""
        weights = np.repeat(self.ideal.get_masses() ** -0.5, 3)
        matrix = self.hessian.reshape(len(weights), -1) * weights * weights[:, None]
        values = np.linalg.eigvalsh(matrix)
        return np.sign(values) * abs(values) ** 0.5 * get_physical_units().DefaultToTHz


def salt() -> Atoms:
    return bulk("NaCl", "rocksalt", a=5.6, cubic=True)


def labelled(ideal: Atoms, calculator: Calculator, moves: list[np.ndarray]) -> list[Atoms]:
    frames = []
    for move in moves:
        atoms = ideal.copy()
        atoms.positions += move
        forces = calculator.get_property("forces", atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
        frames.append(atoms)
    return frames


def single_moves(ideal: Atoms) -> list[np.ndarray]:
    moves = []
    for symbol in ("Na", "Cl"):
        move = np.zeros((len(ideal), 3))
        move[ideal.symbols.indices()[symbol][0], 0] = 0.01
        moves.append(move)
    return moves


def random_moves(ideal: Atoms, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    moves = rng.normal(size=(n, len(ideal), 3))
    return list(0.03 * moves / np.linalg.norm(moves, axis=2, keepdims=True))


@pytest.fixture
def two_phase() -> tuple[Atoms, Springs]:
    ideal = salt()
    return ideal, Springs(ideal, 3.0)


def test_relaxed_copper_is_where_emt_has_its_minimum() -> None:
    atoms = bulk("Cu", a=3.7, cubic=True)
    row = lattice_error(atoms, EMT())
    assert row["converged"]
    assert row["same"]
    assert row["lengths"] == pytest.approx(1 - 3.5900 / 3.7, abs=5e-4)  # EMT's lattice constant
    assert row["volume"] == pytest.approx(1 - (3.5900 / 3.7) ** 3, abs=15e-4)
    assert atoms.cell[0, 0] == 3.7


class Broken(Calculator):
    """Gives up, as ours does when the forces are not finite."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        raise CalculationFailed("energy and forces must be finite")


def test_failure_counts_as_infinite_error() -> None:
    good, bad = lattice_error(bulk("Cu"), EMT()), lattice_error(bulk("Cu"), Broken())
    assert "CalculationFailed" in bad["failure"]
    json.dumps(bad, allow_nan=False)
    assert summarise([good, bad, bad])["lengths"] == np.inf
    summary = summarise([good, good, good, bad])
    assert summary["failed"] == 1
    assert summary["lengths"] == good["lengths"]
    assert "| 1 |" in markdown({"EMT": summary})


def test_median_and_its_interval() -> None:
    values = np.random.default_rng(1).normal(size=400)
    middle, (low, high) = median(list(values))
    assert middle == np.median(values)
    assert low < middle < high
    assert high - low == pytest.approx(2 * 1.96 * 1.2533 / 20, rel=0.3)  # normal theory


def test_only_structures_of_the_fold(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    names = ("Cu", "Al", "Ag", "Au", "Ni", "Pd", "Pt", "Pb")
    path.write_text("\n".join(json.dumps(crystal_row(bulk(name))) for name in names))
    half = Split("test", val=0.1, test=0.5, seed=0)
    chosen = select(str(path), half, 8, max_atoms=4)
    assert {str(atoms.symbols) for atoms in chosen} == {n for n in names if half.holds(n)}
    assert len(select(str(path), half, 2, max_atoms=4)) == 2
    with pytest.raises(ValueError, match="test fold with at most 0 atoms"):
        select(str(path), half, 2, max_atoms=0)


@pytest.mark.parametrize("name", ["Cu", "Al"])
def test_bulk_modulus_is_the_second_difference(name: str) -> None:
    atoms = bulk(name)
    modulus = bulk_modulus(atoms, EMT())
    assert modulus == pytest.approx(second_difference(name), rel=0.03)


@cache
def second_difference(name: str) -> float:
    """V d2E/dV2 in GPa at the minimum of the energy over lattice constants."""

    def energy(volume: float) -> float:
        atoms = bulk(name, "fcc", a=(4 * volume) ** (1 / 3))
        return float(EMT().get_potential_energy(atoms))

    volume = minimize_scalar(energy, bounds=(10.0, 18.0), method="bounded").x
    step = 0.01 * volume
    low, middle, high = (energy(v) for v in (volume - step, volume, volume + step))
    return float(volume * (low - 2 * middle + high) / step**2 / units.GPa)


def test_modulus_rows_and_table() -> None:
    wanted = second_difference("Cu")
    right = modulus_error(bulk("Cu"), wanted, EMT())
    assert abs(right["error"]) < 0.03
    twice = modulus_error(bulk("Cu"), 2 * wanted, EMT())  # negative control
    assert twice["error"] == pytest.approx(-0.5, abs=0.02)
    failed = modulus_error(bulk("Cu"), wanted, Broken())
    marks = [{"solid": f"solid {k}", "test_fold": k == 1} for k in range(3)]
    rows = [m | r for m, r in zip(marks, (right, twice, failed), strict=True)]
    summary = summarise_moduli(rows)
    assert summary["all"] == abs(twice["error"]) == summary["test"]
    assert (summary["n_all"], summary["n_test"], summary["failed"]) == (3, 1, 1)
    table = modulus_table({"EMT": rows}, {"EMT": summary})
    assert "solid 1 (test fold)" in table
    assert "failed" in table


def test_all_solids_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "elastic.jsonl"
    rows = [crystal_row(bulk("Cu")) | {"material_id": key, "log10_K_VRH": 2.0} for key in SOLIDS]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert read_solids(str(path))["Al, fcc"][1] == pytest.approx(100.0)
    path.write_text("\n".join(json.dumps(row) for row in rows[1:]))
    with pytest.raises(ValueError, match="MgO, rock salt"):
        read_solids(str(path))


def test_undisplaced_cell_from_single_displacements() -> None:
    ideal = salt()
    frames = labelled(ideal, Springs(ideal, 3.0), single_moves(ideal))
    found = phonons.undisplaced(frames)
    assert abs(found.positions - ideal.positions).max() < 1e-8


def test_undisplaced_cell_from_random_displacements() -> None:
    ideal = salt().repeat((2, 1, 1))
    frames = labelled(ideal, Springs(ideal, 3.0), random_moves(ideal, 40))
    difference = phonons.undisplaced(frames).positions - ideal.positions
    difference -= difference.mean(axis=0)  # a common shift changes no force
    assert abs(difference).max() < 1e-8


@pytest.mark.parametrize("moves", [single_moves, lambda ideal: random_moves(ideal, 10)])
def test_frequencies_are_those_of_the_hessian(two_phase: tuple[Atoms, Springs], moves) -> None:
    ideal, springs = two_phase
    displacements = np.array(moves(ideal))
    frames = labelled(ideal, springs, list(displacements))
    forces = np.array([atoms.get_forces() for atoms in frames])
    got = phonons.frequencies(phonons.fitted(ideal, displacements, forces))
    assert got.shape == (4, 6)  # a primitive cell of 2 atoms, 4 wave vectors
    assert np.allclose(np.sort(got.ravel()), springs.spectrum(), atol=2e-3)


def test_softer_springs_show_and_equal_ones_do_not(two_phase: tuple[Atoms, Springs]) -> None:
    ideal, springs = two_phase
    soft = Springs(ideal, 3.0)
    soft.hessian *= 0.81
    pushed = Springs(ideal, 3.0, push=0.2)  # residual forces are subtracted
    frames = labelled(ideal, springs, random_moves(ideal, 10))
    rows = phonons.compare(frames, {"same": springs, "soft": soft, "pushed": pushed})
    assert rows["same"]["mae"] < 1e-6
    assert rows["pushed"]["mae"] < 1e-6
    assert rows["soft"]["scale"] == pytest.approx(0.9, abs=1e-6)
    mean = np.mean(rows["soft"]["dft"])
    assert rows["soft"]["mae"] == pytest.approx(0.1 * mean, rel=1e-6)
    assert rows["soft"]["mean_error"] == pytest.approx(-rows["soft"]["mae"])
    assert len(rows["soft"]["dft"]) == 24 - 3  # without the translations


def crystal_row(atoms: Atoms) -> dict[str, object]:
    return {
        "lattice": atoms.cell.array.tolist(),
        "species": list(atoms.symbols),
        "frac_coords": atoms.get_scaled_positions().tolist(),
    }


def write_supercells(folder: Path, formulas: tuple[str, ...]) -> None:
    """Displaced rock salt of each formula with forces of springs; the last one in both files."""
    ideal = salt()
    frames = []
    for formula in formulas:
        made = labelled(ideal, Springs(ideal, 3.0), single_moves(ideal))
        for atoms in made:
            atoms.symbols[:] = np.where(atoms.symbols == "Na", formula[:2], formula[2:])
        frames += made
    for file, part in zip(phonons.FILES, (frames, frames[-2:]), strict=True):
        ase.io.write(folder / file, part, format="extxyz")


def test_crystals_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="finite_displacement"):
        phonons.read_sets(tmp_path)
    write_supercells(tmp_path, ("NaCl", "AlN"))
    with pytest.raises(ValueError, match=r"missing.*MgO"):
        phonons.read_sets(tmp_path)


def test_command(tmp_path: Path) -> None:
    """Lattice and phonons of small cells with the embedded model; the files are what they say."""
    fold = fold_of_model("default")
    names = [name for name in ("Al", "Fe", "Re", "Cu") if fold.holds(name)]
    assert "Cu" not in names
    source = tmp_path / "rows.jsonl"
    rows = (crystal_row(bulk(name)) for name in ("Al", "Fe", "Re", "Cu"))
    source.write_text("\n".join(json.dumps(row) for row in rows))
    write_supercells(tmp_path, ("NaCl", "MgO", "AlN"))
    arguments = ["--structures", str(source), "--displacements", str(tmp_path)]
    outputs = ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        result = CliRunner().invoke(solids, arguments + outputs, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out.json").read_text())
    assert {row["formula"] for row in document["lattice"]["rows"]["ours"]} == set(names)
    assert [row["formula"] for row in document["phonons"]["rows"]["ours"]] == ["NaCl", "MgO", "AlN"]
    assert "dft" not in document["phonons"]["rows"]["ours"][0]  # others' data
    text = (tmp_path / "out.md").read_text()
    assert "PBEsol" in text
    assert text.strip() in result.output
    assert (tmp_path / "out_lattice.png").stat().st_size > 5_000
    assert (tmp_path / "out_phonons.png").stat().st_size > 5_000


def test_heat_capacities_beside_those_of_the_same_springs(
    two_phase: tuple[Atoms, Springs],
) -> None:
    ideal, springs = two_phase
    soft = Springs(ideal, 3.0)
    soft.hessian *= 0.5
    frames = labelled(ideal, springs, random_moves(ideal, 10))
    found = phonons.refitted(frames, {"same": springs, "soft": soft})
    same, softer = heat_capacities("crystal", found)
    assert same["errors_percent"] == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    assert softer["errors_percent"][0] > softer["errors_percent"][2] > 0


@pytest.mark.slow
def test_curves_command(tmp_path: Path) -> None:
    write_supercells(tmp_path, ("NaCl", "MgO", "AlN"))
    arguments = [str(tmp_path), "--json", str(tmp_path / "curves.json")]
    result = CliRunner().invoke(phonon_curves, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "curves.json").read_text())["rows"]
    assert [row["crystal"] for row in rows] == ["NaCl", "MgO", "AlN"]
    assert "| NaCl | ours |" in (tmp_path / "curves.md").read_text()
    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_nothing_to_do() -> None:
    result = CliRunner().invoke(solids, [])
    assert result.exit_code == 2
    assert "--displacements" in result.output
