"""Teacher, frames for distillation, and their selection, with EMT in the place of matgl."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import ase.io
import ase.outputs
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import neighbor_list
from click.testing import CliRunner
from numpy.random import Generator

import qdgnn_matgl.frames as frames_module
import qdgnn_matgl.kinds as kinds_module
from qdgnn_ase import fold_of, is_plausible, label, reduced_formula
from qdgnn_matgl import RelaxedTeacher, Teacher, load_chgnet, load_m3gnet, load_sevennet
from qdgnn_matgl.frames import (
    MAX_FORCE,
    SHARES,
    as_given,
    generate,
    main,
    make_relaxed_teacher,
    make_teacher,
    select,
)
from qdgnn_matgl.kinds import close, dynamics, relaxing, squeezed
from qdgnn_matgl.teacher import disagreement


class Scaled(Calculator):
    """EMT with forces and stress times a factor, and its stress as a matrix like matgl's."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        copy = self.atoms.copy()
        copy.calc = EMT()
        self.results = {
            "energy": copy.get_potential_energy() + 100.0,
            "forces": copy.get_forces() * self.factor,
        }
        if copy.cell.rank == 3:
            self.results["stress"] = copy.get_stress(voigt=False) * self.factor


def teacher(factor: float = 1.5) -> Teacher:
    return Teacher(EMT(), [(Scaled(factor), 1.0)])


@pytest.fixture(autouse=True)
def emt_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds_module, "driver", EMT)


@pytest.fixture
def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def metals() -> list[Atoms]:
    """Crystals of EMT's elements; formulas of all folds."""
    names = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
    pairs = [
        bulk("NaCl", "rocksalt" if i < j else "cesiumchloride", a=5.4 if i < j else 3.4)
        for i in range(7)
        for j in range(7)
    ]
    for atoms, index in zip(pairs, range(49), strict=True):
        atoms.symbols[:] = [names[index // 7], names[index % 7]]
    return pairs + [bulk(name) for name in names]


def test_energy_of_the_first_and_mean_forces(copper: Atoms) -> None:
    expected = copper.copy()
    expected.calc = EMT()
    copper.calc = teacher(1.5)
    assert copper.get_potential_energy() == expected.get_potential_energy()
    assert np.allclose(copper.get_forces(), 1.25 * expected.get_forces())
    assert np.allclose(copper.get_stress(), 1.25 * expected.get_stress())
    size = np.linalg.norm(expected.get_forces(), axis=1).mean()
    noted = copper.calc.disagreement
    assert noted["force_disagreement"] == pytest.approx(0.25 * size)
    assert noted["stress_disagreement"] == pytest.approx(0.25 * abs(expected.get_stress()).mean())
    assert set(copper.calc.results) <= set(ase.outputs.all_outputs)


def test_weights_of_the_teachers(copper: Atoms) -> None:
    expected = copper.copy()
    expected.calc = EMT()
    copper.calc = Teacher(EMT(), [(Scaled(1.6), 2.0)])
    assert np.allclose(copper.get_forces(), 1.4 * expected.get_forces())
    assert np.allclose(copper.get_stress(), 1.4 * expected.get_stress())


def test_new_positions_new_results(copper: Atoms) -> None:
    copper.calc = teacher()
    before, noted = copper.get_forces(), copper.calc.disagreement
    copper.rattle(0.1, seed=2)
    assert not np.allclose(copper.get_forces(), before)
    assert copper.calc.disagreement != noted


def test_relaxed_teacher_gives_the_energy_and_zeros(copper: Atoms) -> None:
    energy = copper.copy()
    energy.calc = EMT()
    copper.calc = RelaxedTeacher(EMT())
    assert copper.get_potential_energy() == energy.get_potential_energy()
    assert not copper.get_forces().any()
    assert not copper.get_stress().any()
    assert energy.get_forces().any()
    label_keys = {"energy", "free_energy", "forces", "stress"}
    assert set(copper.calc.results) == label_keys


def test_alone_it_agrees_with_itself(copper: Atoms) -> None:
    copper.calc = Teacher(EMT())
    copper.get_forces()
    assert copper.calc.disagreement["force_disagreement"] == 0


def test_molecule_has_no_stress() -> None:
    atoms = molecule("CO")
    atoms.calc = teacher()
    atoms.get_forces()
    assert "stress" not in atoms.calc.results
    assert list(atoms.calc.disagreement) == ["force_disagreement"]


def test_disagreement_is_stored_with_the_labels(tmp_path: Path, copper: Atoms) -> None:
    label([copper], teacher, tmp_path / "out.xyz", annotate=disagreement)
    assert ase.io.read(tmp_path / "out.xyz").info["force_disagreement"] > 0


def test_missing_model_and_missing_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.json, model\.pt, state\.pt are missing"):
        load_m3gnet(tmp_path)
    for name in ("model.json", "model.pt", "state.pt"):
        (tmp_path / name).touch()
    monkeypatch.setenv("MATGL_BACKEND", "DGL")
    monkeypatch.setenv("DGLBACKEND", "pytorch")
    for name in ("matgl", "chgnet", "chgnet.model", "sevenn", "sevenn.calculator"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"qdgnn-ase\[matgl\]"):
        load_m3gnet(tmp_path)
    with pytest.raises(ImportError, match=r"qdgnn-ase\[bench\]"):
        load_chgnet()
    with pytest.raises(ImportError, match=r"qdgnn-ase\[bench\]"):
        load_sevennet()


def test_sevennet_labels_and_the_default_weights_judge(copper: Atoms) -> None:
    pytest.importorskip("sevenn")
    made = make_teacher()
    sevennet, judge = made.calculators
    copper.calc = made
    copper.get_forces()
    for calculator in (sevennet, judge):
        calculator.calculate(copper, ["energy", "forces", "stress"])
    assert copper.get_potential_energy() == sevennet.results["energy"]
    assert np.allclose(copper.get_forces(), sevennet.results["forces"])
    assert np.allclose(copper.get_stress(), sevennet.results["stress"])
    apart = np.linalg.norm(sevennet.results["forces"] - judge.results["forces"], axis=1).mean()
    assert made.disagreement["force_disagreement"] == pytest.approx(apart / 2, rel=1e-5)
    salt = bulk("NaCl", "rocksalt", a=5.64)
    salt.calc = make_relaxed_teacher()
    expected = judge.get_potential_energy(salt)  # one scale: no corrections of the database
    assert salt.get_potential_energy() / 2 == pytest.approx(expected / 2, abs=0.05)


def test_kinds_shares_and_keys() -> None:
    made = list(generate(metals(), 250, seed=3))
    counts = Counter(atoms.info["kind"] for atoms in made)
    for kind, share in SHARES.items():
        assert abs(counts[kind] / 250 - share) < 0.08, kind
    assert len({atoms.info["key"] for atoms in made}) == len(made) > 200
    tight = {"squeezed", "close"}
    assert all(is_plausible(a, 0.42 if a.info["kind"] in tight else 0.5) for a in made)


def test_some_kinds_keep_their_proportions() -> None:
    made = list(generate(metals(), 250, seed=3, kinds=("strained", "rattled")))
    counts = Counter(atoms.info["kind"] for atoms in made)
    assert counts.keys() == {"strained", "rattled"}
    expected = SHARES["strained"] / (SHARES["strained"] + SHARES["rattled"])
    assert abs(counts["strained"] / len(made) - expected) < 0.08


def test_volumes_of_the_kinds() -> None:
    source = next(atoms for atoms in metals() if fold_of(reduced_formula(atoms)) != "test")
    bounds = {
        "near": (0.97, 1.03),
        "rattled": (0.89, 1.11),
        "hot": (0.64, 1.09),
        "dynamics": (0.84, 1.11),
        "squeezed": (0.6, 1.3),
        "close": (0.97, 1.03),
    }
    for atoms in generate([source], 200):
        low, high = bounds.get(atoms.info["kind"], (0.1, 10))
        assert low < atoms.get_volume() / source.get_volume() < high
        changed = atoms.get_chemical_symbols() != source.get_chemical_symbols()
        assert changed == (atoms.info["kind"] in ("substituted", "relaxing"))


@pytest.mark.parametrize("make", [squeezed, close])
def test_atoms_come_near_each_other(
    make: Callable[[Atoms, Generator], Atoms], copper: Atoms
) -> None:
    before, rng = copper.copy(), np.random.default_rng(0)
    shortest = [neighbor_list("d", make(copper, rng), 4.0).min() for _ in range(20)]
    assert copper == before
    assert np.mean(shortest) < 0.95 * neighbor_list("d", copper, 4.0).min()


def test_an_atom_without_neighbours_stays() -> None:
    lone = Atoms("Ar", cell=[20, 20, 20], pbc=True)
    assert np.allclose(
        close(lone, np.random.default_rng(0)).get_scaled_positions(wrap=False), 0, atol=0.02
    )


def test_dynamics_moves_the_atoms_and_keeps_no_momenta(copper: Atoms) -> None:
    before = copper.positions.copy()
    moved = dynamics(copper, np.random.default_rng(0))
    assert np.array_equal(copper.positions, before)
    scaled = copper.get_scaled_positions(wrap=False) @ moved.cell.array
    assert 0.02 < np.linalg.norm(moved.positions - scaled, axis=1).mean() < 1.0
    assert moved.calc is None
    assert not moved.has("momenta")


def test_relaxing_goes_downhill_from_a_substituted_crystal(
    copper: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    silver = copper.copy()
    silver.symbols[:] = "Ag"
    monkeypatch.setattr(kinds_module, "substituted", lambda atoms, rng: silver.copy())
    for seed in range(3):
        relaxed = relaxing(copper, np.random.default_rng(seed))
        assert relaxed.calc is None
        assert relaxed.symbols.get_chemical_formula() == "Ag4"
        relaxed.calc, silver.calc = EMT(), EMT()
        assert relaxed.get_potential_energy() < silver.get_potential_energy() - 0.01


def test_structures_as_given() -> None:
    structures = metals()
    made = list(as_given(structures, len(structures)))
    assert len({atoms.info["key"] for atoms in made}) == len(made) > 30
    assert all(any(atoms == source for source in structures) for atoms in made)
    assert not any(fold_of(reduced_formula(atoms)) == "test" for atoms in made)


def test_a_prefix_is_a_prefix() -> None:
    few, many = (list(generate(metals(), n, seed=1)) for n in (20, 60))
    assert many[: len(few)] == few
    assert [a.info for a in many[: len(few)]] == [a.info for a in few]


def test_no_formula_of_the_test_fold() -> None:
    structures = metals()
    assert any(fold_of(reduced_formula(atoms)) == "test" for atoms in structures)
    folds = Counter(fold_of(reduced_formula(atoms)) for atoms in generate(structures, 300))
    assert folds["test"] == 0
    assert folds["val"] > 0
    in_test = [atoms for atoms in structures if fold_of(reduced_formula(atoms)) == "test"]
    with pytest.raises(ValueError, match="outside the test fold"):
        list(generate(in_test, 1))


def frame(kind: str, force: float, spread: float) -> Atoms:
    atoms = Atoms("Cu", info={"kind": kind, "force_disagreement": spread})
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=[[force, 0, 0]])
    return atoms


def test_selection_is_relative_and_by_kind() -> None:
    steady = [frame("near", 0.1, 0.01 * i) for i in range(10)]
    wild = [frame("hot", 10.0, 1.0 + i) for i in range(10)]
    mixed = [atoms for pair in zip(steady, wild, strict=True) for atoms in pair]
    kept = select(mixed, 0.7)
    assert [a.info["force_disagreement"] for a in kept if a.info["kind"] == "hot"] == [*range(1, 8)]
    assert Counter(a.info["kind"] for a in kept) == {"near": 7, "hot": 7}
    large = frame("near", 5.0, 0.05)  # the spread of a rejected one, but on a large force
    assert large in select([*steady, large], 0.5)
    with pytest.raises(ValueError, match="share must be"):
        select(mixed, 0.0)


def test_selection_drops_huge_forces() -> None:
    assert select([frame("hot", MAX_FORCE + 1, 0.0)], 1.0) == []
    assert len(select([frame("hot", MAX_FORCE - 1, 0.0)], 1.0)) == 1


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {
            "lattice": atoms.cell.array.tolist(),
            "species": atoms.get_chemical_symbols(),
            "frac_coords": atoms.get_scaled_positions().tolist(),
        }
        for atoms in [*metals(), bulk("Cu").repeat(3)]
    ]
    source, out = tmp_path / "rows.jsonl.gz", tmp_path / "out.extxyz"
    source.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    monkeypatch.setattr(
        frames_module,
        "make_teacher",
        lambda folder, chgnet: teacher(1.2) if folder and chgnet else Teacher(EMT()),
    )
    arguments = [str(source), str(out), "--m3gnet", str(tmp_path), "-n", "40", "--max-atoms", "4"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    kept = ase.io.read(out, ":")
    everything = ase.io.read(f"{out}.all.extxyz", ":")
    assert 0 < len(kept) < len(everything) <= 40
    assert max(map(len, everything)) <= 4
    alone = tmp_path / "alone.extxyz"
    options = ["--kind", "strained", "--no-chgnet", "--keep", "1.0", "-n", "10"]
    refused = CliRunner().invoke(main, [str(source), str(alone), *options])
    assert refused.exit_code == 2
    assert "--m3gnet" in refused.output
    options += ["--m3gnet", str(tmp_path)]
    CliRunner().invoke(main, [str(source), str(alone), *options], catch_exceptions=False)
    strained = ase.io.read(alone, ":")
    assert {atoms.info["kind"] for atoms in strained} == {"strained"}
    assert {atoms.info["force_disagreement"] for atoms in strained} == {0.0}
    assert max(atoms.info["force_disagreement"] for atoms in everything) > 0
    silver = tmp_path / "silver.extxyz"
    options = ["--holds", "Ag", "--kind", "near", "-n", "10"]
    CliRunner().invoke(main, [str(source), str(silver), *options], catch_exceptions=False)
    frames = ase.io.read(f"{silver}.all.extxyz", ":")
    assert len(frames) > 5
    assert all("Ag" in atoms.get_chemical_symbols() for atoms in frames)
    monkeypatch.setattr(frames_module, "make_relaxed_teacher", lambda folder: RelaxedTeacher(EMT()))
    relaxed = tmp_path / "relaxed.extxyz"
    CliRunner().invoke(
        main, [str(source), str(relaxed), "--relaxed", "-n", "20"], catch_exceptions=False
    )
    assert 0 < len(ase.io.read(relaxed, ":")) <= 20
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert "written=0" in again.output
    assert "failed=0" in again.output
