"""DFT plugin: settings that are right, retries, references, band edges, descriptors, labelling."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from click.testing import CliRunner

from qdgnn_ase import LeakageError, Level, check_leakage, descriptor_provider
from qdgnn_dft.backend import (
    CalculationError,
    CalculatorBackend,
    RefusedError,
    backend_of,
    evaluate,
    make_record,
)
from qdgnn_dft.bands import around_edges, band_edges
from qdgnn_dft.calculator import StoredCalculator
from qdgnn_dft.elements import CRYSTALS, reference_structures
from qdgnn_dft.gpaw_backend import GPAWBackend, in_a_box
from qdgnn_dft.labelling import label_command
from qdgnn_dft.providers import dft, xtb
from qdgnn_dft.record import Record
from qdgnn_dft.reference_command import dft_references
from qdgnn_dft.references import derived_values, free_atom, load_references
from qdgnn_dft.settings import DFTSettings, default_cutoff, even_mesh, magnetic_starts
from qdgnn_dft.store import ResultStore
from qdgnn_dft.xtb import Gates, XTBBackend


@dataclass
class Fake:
    """A backend that fails a number of times, and counts."""

    failures: int = 0
    refuses: bool = False
    name: str = "fake"
    n_attempts: int = 3
    attempts: list[int] = field(default_factory=list)

    def settings(self, atoms: Atoms) -> dict[str, Any]:
        return {"backend": self.name, "functional": "PBE", "cutoff_ev": 400.0}

    def compute(self, atoms: Atoms, attempt: int, log_file: Path | None) -> Record:
        self.attempts.append(attempt)
        if self.refuses:
            raise RefusedError("not plausible")
        if attempt < self.failures:
            raise RuntimeError(f"did not converge in attempt {attempt + 1}")
        values = {"energy": -10.0, "forces": np.zeros((len(atoms), 3)), "band_gap": 1.0}
        return make_record(atoms, self.settings(atoms), values, {"version": "fake 1"})


def emt_backend() -> CalculatorBackend:
    """Importable, for workers."""
    return CalculatorBackend("emt-of-test", EMT, {"set": 1}, "test")


# settings


@pytest.mark.parametrize("density", [0.5, 1.7, 3.0, 5.0])
def test_meshes_are_even_and_dense_enough(density: float) -> None:
    for atoms in (bulk("Si"), bulk("CsCl", "cesiumchloride", a=4.12), bulk("Ti")):
        mesh = np.array(even_mesh(atoms, density))
        lengths = 2 * np.pi * np.linalg.norm(atoms.cell.reciprocal(), axis=1)
        assert (mesh % 2 == 0).all()
        assert (mesh >= density * lengths - 1e-6).all()
        assert (mesh - 2 < density * lengths).all()


def test_no_k_points_across_vacuum() -> None:
    assert even_mesh(fcc111("Al", (1, 1, 3), vacuum=5.0), 3.0)[2] == 1
    assert even_mesh(molecule("H2O"), 3.0) == [1, 1, 1]


def test_spin_orbit_coupling_has_a_key_of_its_own() -> None:
    plain, coupled = (
        DFTSettings(spin_orbit=coupling).resolve(bulk("Si")) for coupling in (False, True)
    )
    assert coupled == {**plain, "spin_orbit": True}


def test_cutoffs_follow_the_hardest_element() -> None:
    assert default_cutoff(bulk("Si")) == 500.0
    assert default_cutoff(bulk("MgO", "rocksalt", a=4.2)) == 700.0
    assert default_cutoff(bulk("LiF", "rocksalt", a=4.0)) == 800.0


def test_mesh_and_cutoff_are_in_the_settings_of_the_key() -> None:
    settings = GPAWBackend().settings(bulk("Si"))
    assert settings["k_mesh"] == even_mesh(bulk("Si"), DFTSettings().k_density)
    assert {"functional", "cutoff_ev", "smearing_ev", "path_points", "starts"} <= settings.keys()
    json.dumps(settings, allow_nan=False)


def test_magnetic_starts() -> None:
    assert list(magnetic_starts(bulk("Si"))) == ["none"]
    assert list(magnetic_starts(bulk("Fe"))) == ["given"]  # ASE's builder sets its moments
    assert list(magnetic_starts(Atoms("Fe", cell=[3, 3, 3], pbc=True))) == ["ferromagnetic"]
    oxide = bulk("NiO", "rocksalt", a=4.17, cubic=True) * (1, 1, 2)
    starts = magnetic_starts(oxide)
    assert starts["ferromagnetic"].sum() == pytest.approx(2.0 * 8)
    assert starts["antiferromagnetic"].sum() == 0
    assert np.abs(starts["antiferromagnetic"]).sum() == pytest.approx(2.0 * 8)
    assert not starts["ferromagnetic"][oxide.numbers == 8].any()
    oxide.set_initial_magnetic_moments(np.arange(len(oxide)))
    assert list(magnetic_starts(oxide)) == ["given"]


@pytest.mark.parametrize("wrong", [{"cutoff_ev": 0.0}, {"k_density": -1.0}, {"smearing_ev": -0.1}])
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        DFTSettings(**wrong)


def test_box_leaves_vacuum_and_keeps_a_cell_that_has_it() -> None:
    water = in_a_box(molecule("H2O"))
    room = water.cell.lengths() - np.ptp(water.positions, axis=0)
    assert (room >= 8.0 - 1e-9).all()
    assert water.pbc.all()
    atom = free_atom("O")
    assert np.allclose(in_a_box(atom).cell, atom.cell)
    assert len(set(atom.cell.lengths())) == 3  # a cube would keep the shell spherical
    crystal = bulk("Si")
    assert in_a_box(crystal) == crystal


# bands


def test_indirect_gap_of_a_model_band() -> None:
    points = np.linspace(0, 0.5, 41)[:, None] * [1.0, 0.0, 0.0]
    x = points[:, 0]
    valence, conduction = -(x**2), 1.0 + 4 * (x - 0.42) ** 2
    eigenvalues = np.stack([valence, conduction], axis=1)[None]
    edges = band_edges(eigenvalues, points, 0.5)
    assert edges["band_gap"] == pytest.approx(1.0, abs=1e-3)
    assert edges["band_gap_direct"] == pytest.approx((conduction - valence).min())
    assert edges["vbm_k_point"] == [0.0, 0.0, 0.0]
    assert edges["cbm_k_point"][0] == pytest.approx(0.42, abs=0.013)
    coarse = slice(None, None, 10)
    finer = around_edges(eigenvalues[:, coarse], points[coarse], 0.5)
    assert abs(finer[:, 0] - 0.42).min() < abs(points[coarse, 0] - 0.42).min()


def test_a_band_across_the_fermi_level_is_a_metal() -> None:
    eigenvalues = np.array([[[-1.0, 2.0], [0.4, 3.0]]])
    assert band_edges(eigenvalues, np.zeros((2, 3)), 0.0)["band_gap"] == 0.0
    assert band_edges(eigenvalues, np.zeros((2, 3)), 1.0)["band_gap"] == pytest.approx(1.6)


def test_gap_of_spins_is_the_smallest_between_them() -> None:
    eigenvalues = np.array([[[-1.0, 2.0]], [[-0.5, 3.0]]])
    assert band_edges(eigenvalues, np.zeros((1, 3)), 0.0)["band_gap"] == pytest.approx(2.5)


def test_no_empty_state_is_an_error() -> None:
    with pytest.raises(ValueError, match="compute more bands"):
        band_edges(np.array([[[-1.0, -2.0]]]), np.zeros((1, 3)), 0.0)


# retries and the store


def test_computed_once(tmp_path: Path) -> None:
    store, backend = ResultStore(tmp_path / "r.db"), Fake()
    first = evaluate(bulk("Si"), backend, store)
    assert evaluate(bulk("Si"), backend, store) == first
    assert backend.attempts == [0]


def test_failures_are_tried_again_more_carefully() -> None:
    backend = Fake(failures=2)
    assert evaluate(bulk("Si"), backend).values["energy"] == -10.0
    assert backend.attempts == [0, 1, 2]


def test_every_reason_is_kept() -> None:
    with pytest.raises(CalculationError, match=r"attempt 1: .* attempt 2: .* attempt 3: "):
        evaluate(bulk("Si"), Fake(failures=9))


def test_a_refusal_is_not_tried_again() -> None:
    backend = Fake(refuses=True)
    with pytest.raises(RefusedError, match="not plausible"):
        evaluate(bulk("Si"), backend)
    assert backend.attempts == [0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="energy of Si2 must be finite"):
        make_record(bulk("Si"), {}, {"energy": value}, {})


def test_any_ase_calculator(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    record = evaluate(atoms, emt_backend(), ResultStore(tmp_path / "r.db"))
    atoms.calc = EMT()
    assert record.values["energy"] == pytest.approx(atoms.get_potential_energy())
    assert np.allclose(record.values["forces"], atoms.get_forces())
    assert np.allclose(record.values["stress"], atoms.get_stress())
    assert record.provenance["version"] == "test"


def test_stored_calculator_is_a_calculator(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = StoredCalculator(emt_backend(), ResultStore(tmp_path / "r.db"))
    energy = atoms.get_potential_energy()
    atoms.rattle(0.1, seed=1)
    assert atoms.get_potential_energy() != energy
    assert atoms.get_forces().shape == (4, 3)
    assert ResultStore(tmp_path / "r.db").inspect().good == 2


def test_backends_by_name() -> None:
    assert backend_of("emt").name == "emt"
    name = f"{Fake.__module__}:emt_backend"
    sys.modules.setdefault(Fake.__module__, sys.modules[__name__])
    assert backend_of(name).name == "emt-of-test"
    made = backend_of("ase.calculators.lj:LennardJones")
    assert "sigma" in str(made.settings(bulk("Ar")))
    with pytest.raises(ValueError, match="backend must be one of gpaw, xtb"):
        backend_of("gpwa")
    with pytest.raises(ValueError, match="must be importable"):
        backend_of("no.such.module:function")


# references


def test_cohesive_and_formation_energy() -> None:
    record = evaluate(bulk("MgO", "rocksalt", a=4.2), Fake())
    table = {
        "fake PBE": {
            "atoms": {"Mg": {"energy": -1.0}, "O": {"energy": -2.0}},
            "elements": {"Mg": {"energy": -2.0}},
        },
        "other PBE": {"elements": {"Mg": {"energy": 0.0}, "O": {"energy": 0.0}}},
    }
    assert derived_values(record, table) == {"cohesive_energy": pytest.approx((10 - 3) / 2)}
    table["fake PBE"]["elements"]["O"] = {"energy": -5.0}
    assert derived_values(record, table)["formation_energy"] == pytest.approx((-10 + 7) / 2)


def test_shipped_references_have_their_provenance() -> None:
    table = load_references()["gpaw PBE"]
    assert {"Si", "O", "Mg", "Na", "Cl", "Li", "F"} <= table["atoms"].keys()
    for kind in table.values():
        for entry in kind.values():
            assert np.isfinite(entry["energy"])
            assert entry["version"].startswith("GPAW")
            assert entry["cutoff_ev"] >= 400.0
            assert entry["keys"]
    moments = {"O": 2.0, "Si": 2.0, "Na": 1.0, "Mg": 0.0, "F": 1.0}
    for symbol, moment in moments.items():
        assert table["atoms"][symbol]["moment"] == pytest.approx(moment, abs=1e-3)
    assert table["atoms"]["O"]["energy"] < -1.52  # below the spherical polarised atom


def test_reference_structures() -> None:
    assert str(reference_structures("O")[0].symbols) == "O2"
    assert len(reference_structures("Si")) == 5
    assert [len(atoms) for atoms in reference_structures("Sb")] == [2] * 5
    for without in ("Mn", "He"):  # 58 atoms; solid under pressure only
        with pytest.raises(ValueError, match="its reference is not defined here"):
            reference_structures(without)


@pytest.mark.parametrize(
    ("symbol", "n_atoms", "bonds"),
    [
        ("B", 12, {1.671: 1, 1.751: 2}),
        ("C", 4, {1.421: 3}),
        ("P", 4, {2.224: 2, 2.244: 1}),
        ("Ga", 4, {2.483: 1}),
        ("Se", 3, {2.373: 2}),
        ("Br", 4, {2.27: 1}),
        ("Te", 3, {2.835: 2}),
        ("I", 4, {2.715: 1}),
    ],
)
def test_crystals_of_experiment_have_its_bonds(
    symbol: str, n_atoms: int, bonds: dict[float, int]
) -> None:
    (atoms,) = reference_structures(symbol)
    assert symbol in CRYSTALS
    assert atoms.pbc.all()
    assert len(atoms) == n_atoms
    first, distances = neighbor_list("id", atoms, 3.0)
    expected = [length for length, count in bonds.items() for _ in range(count)]
    found = np.sort(distances[first == 0])[: len(expected)]
    assert found == pytest.approx(expected, abs=0.005)


def test_references_of_a_command_keep_what_was_there(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    common = ["--backend", "emt", "-o", str(table), "--store", str(tmp_path / "r.db")]
    first = CliRunner().invoke(dft_references, ["Cu", "--kind", "atoms", *common])
    assert first.exit_code == 0, first.output
    second = CliRunner().invoke(dft_references, ["He", "Al", *common])
    assert second.exit_code == 1
    assert "He, elements: element must be one of" in second.output
    assert "2 of 4 energies are missing" in second.output
    (found,) = load_references(table).values()
    assert found["atoms"].keys() == {"Al", "Cu"}
    assert found["elements"]["Al"]["volume_per_atom"] == pytest.approx(3.994**3 / 4, rel=1e-3)
    crystal = bulk("Al", a=3.994)
    crystal.calc = EMT()
    energy = found["elements"]["Al"]["energy"]
    assert energy == pytest.approx(crystal.get_potential_energy(), abs=1e-4)
    unknown = CliRunner().invoke(dft_references, ["Xx", *common])
    assert "ELEMENTS must be symbols such as Si, got Xx" in unknown.output


def test_sulfur_is_a_ring_of_eight() -> None:
    (ring,) = reference_structures("S")
    distances = ring.get_all_distances()
    assert np.sort(distances, axis=1)[:, 1:3] == pytest.approx(np.full((8, 2), 2.055))
    assert ring.get_angle(7, 0, 1) == pytest.approx(108.0)
    assert abs(ring.get_dihedral(0, 1, 2, 3, mic=False) - 180.0) == pytest.approx(81.2, abs=0.3)


# descriptors and leakage


def test_provider_gives_values_masks_and_provenance(tmp_path: Path) -> None:
    atoms = bulk("MgO", "rocksalt", a=4.2)
    store = ResultStore(tmp_path / "r.db")
    settings = GPAWBackend().settings(atoms)
    values = {"energy": -11.8, "band_gap": 4.5, "charges": [0.3, -0.3], "fermi_level": 5.0}
    store.put(make_record(atoms, settings, values, {"version": "GPAW 0"}))
    provider = descriptor_provider("dft", store=store.address)
    assert provider.gradient == "constant"
    described = provider(atoms)
    assert described.level == Level("gpaw", "PBE")
    assert described.values["band_gap"] == 4.5
    assert described.values["charges"].tolist() == [0.3, -0.3]
    assert described.mask["cohesive_energy"]
    assert not described.mask["magnetic_moments"]
    assert np.isnan(described.values["magnetic_moments"]).all()
    assert described.provenance["settings"] == settings
    assert described.provenance["missing"]["magnetic_moments"]
    # the same crystal in another cell: the structure's values, no atoms' values
    cubic = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    other = provider(cubic)
    assert other.values["band_gap"] == 4.5
    assert not other.mask["charges"]
    assert other.values["charges"].shape == (8,)
    # unknown: masks only
    unknown = provider(bulk("KCl", "rocksalt", a=6.3))
    assert not any(unknown.mask.values())
    assert "not in store" in unknown.provenance["missing"]["band_gap"]
    assert set(unknown.values) == set(unknown.mask) == set(provider.units)


def test_failed_calculations_are_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = dft(tmp_path / "r.db", compute=True)
    monkeypatch.setattr(provider, "backend", Fake(failures=9))
    described = provider(bulk("Si"))
    assert not any(described.mask.values())
    assert "did not converge" in described.provenance["missing"]["band_gap"]


def test_unknown_provider() -> None:
    with pytest.raises(ValueError, match=r"must be one of \['dft', 'qdgnn', 'xtb'.*got 'dfft'"):
        descriptor_provider("dfft")


@pytest.mark.parametrize(
    ("target", "name", "functional", "multi_fidelity", "allowed"),
    [
        ("band_gap", "band_gap", "PBE", False, False),
        ("band_gap", "band_gap", "PBE", True, False),
        ("band_gap", "band_gap_direct", "GFN1-xTB", False, False),
        ("band_gap", "band_gap_direct", "GFN1-xTB", True, True),
        ("band_gap", "fermi_level", "PBE", False, False),
        ("band_gap", "charges", "PBE", False, True),
        ("band_gap", "formation_energy", "PBE", False, True),
        ("formation_energy", "cohesive_energy", "PBE", True, False),
        ("formation_energy", "energy", "PBE", False, False),
        ("formation_energy", "energy", "LDA", True, True),
        ("energy_above_hull", "formation_energy", "PBE", False, False),
        ("metal_probability", "band_gap", "PBE", False, False),
        ("bulk_modulus", "band_gap", "PBE", False, True),
    ],
)
def test_leakage(
    target: str, name: str, functional: str, multi_fidelity: bool, allowed: bool
) -> None:
    arguments = (target, Level("vasp", "PBE"), {name: Level("gpaw", functional)})
    if allowed:
        check_leakage(*arguments, multi_fidelity=multi_fidelity)
    else:
        with pytest.raises(LeakageError, match=name):
            check_leakage(*arguments, multi_fidelity=multi_fidelity)


def test_a_calculation_is_no_input_of_its_own_labels() -> None:
    level = Level("gpaw", "PBE")
    with pytest.raises(LeakageError, match="must not come from the calculation"):
        check_leakage("bulk_modulus", level, {"charges": level}, multi_fidelity=True)


# xTB gates


def test_small_cells_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"Gamma only .* got 3\.2. Å"):
        XTBBackend().settings(bulk("NaCl", "rocksalt", a=5.64))
    XTBBackend().settings(molecule("H2O"))
    with pytest.raises(RefusedError, match=r"1\.\.86, got \[92\]"):
        XTBBackend().settings(Atoms("U"))


@pytest.mark.parametrize(
    ("charges", "levels", "message"),
    [
        ([np.nan], [-10.0], "NaN"),
        ([5.0, -5.0], [-10.0], "below 4.0 e, got 5.00"),
        ([0.1], [-80.0, -1.0], "above -60.0 eV, got -80.0"),
    ],
)
def test_implausible_results_are_refused(charges: Any, levels: Any, message: str) -> None:
    Gates().check_result([0.1, -0.1], [-20.0, 1.0])
    with pytest.raises(RefusedError, match=message):
        Gates().check_result(charges, levels)


def test_xtb_of_molecules() -> None:
    pytest.importorskip("tblite")
    described = xtb()(molecule("H2O"))
    assert described.mask["band_gap"]
    assert described.mask["charges"]
    assert described.values["charges"][0] < -0.3 < 0.1 < described.values["charges"][1]
    assert described.values["charges"].sum() == pytest.approx(0.0, abs=1e-6)
    radical = xtb()(Atoms("H"))
    assert not radical.mask["band_gap"]
    small = xtb()(bulk("NaCl", "rocksalt", a=5.64))
    assert not any(small.mask.values())
    assert "Gamma only" in small.provenance["missing"]["band_gap"]


# qdgnn label


def _copper(path: Path, n: int = 3) -> Path:
    frames = []
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        frames.append(atoms)
    ase.io.write(path, frames)
    return path


def test_label_command(tmp_path: Path) -> None:
    files = [_copper(tmp_path / "a.extxyz"), tmp_path / "b.extxyz"]
    ase.io.write(files[1], [bulk("Fe"), bulk("Cu")])  # EMT knows no iron
    out = tmp_path / "out.extxyz"
    arguments = [*map(str, files), "--backend", "emt", "-o", str(out)]
    done = CliRunner().invoke(label_command, arguments, catch_exceptions=False)
    assert "4 labelled, 1 failed, 0 were done before" in done.output.replace("\n", "")
    frames = ase.io.read(out, ":")
    assert len(frames) == 4
    frames[0].get_forces()
    assert frames[0].info["backend"] == "emt"
    assert len(frames[0].info["record"]) == 64
    reason = json.loads((tmp_path / "out.extxyz.failures.jsonl").read_text())["reason"]
    assert "Fe" in reason
    again = CliRunner().invoke(label_command, arguments, catch_exceptions=False)
    assert "0 labelled, 0 failed, 5 were done before" in again.output.replace("\n", "")
    store = ResultStore(tmp_path / "out.db")
    assert store.inspect().good == 4


def test_label_takes_results_out_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, store = _copper(tmp_path / "a.extxyz"), str(tmp_path / "s.db")
    base = [str(files), "--backend", "emt", "--store", store, "-o"]
    CliRunner().invoke(label_command, [*base, str(tmp_path / "1.xyz")], catch_exceptions=False)

    def refuse(*_: Any) -> Record:
        raise RuntimeError("computed again")

    monkeypatch.setattr(CalculatorBackend, "compute", refuse)
    CliRunner().invoke(label_command, [*base, str(tmp_path / "2.xyz")], catch_exceptions=False)
    one, two = (ase.io.read(tmp_path / name, ":") for name in ("1.xyz", "2.xyz"))
    assert len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.get_forces(), b.get_forces())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "nonsense", "-o", "out.extxyz"], "backend must be one of"),
        (["--backend", "emt", "-o", "out.json"], "--output must end in .extxyz"),
        (["--backend", "emt", "-o", "o.xyz", "--store", "s.json"], "store must be a file"),
    ],
)
def test_label_says_what_is_wrong_before_it_starts(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = CliRunner().invoke(label_command, [str(_copper(tmp_path / "a.extxyz", 1)), *arguments])
    assert message in f"{done.output}{done.exception}"
    assert isinstance(done.exception, SystemExit | ValueError)  # which the CLI tells in one line


@pytest.mark.parametrize(("backend", "command"), [("gpaw", "make dft"), ("xtb", "qdgnn-ase[xtb]")])
def test_without_the_extra_one_error_names_the_command(
    backend: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"gpaw": "gpaw", "xtb": "tblite"}[backend]
    monkeypatch.setitem(sys.modules, module, None)
    _copper(tmp_path / "a.extxyz", 1)
    done = CliRunner().invoke(
        label_command,
        [str(tmp_path / "a.extxyz"), "--backend", backend, "-o", str(tmp_path / "o.xyz")],
    )
    assert done.exit_code == 2
    assert command in done.output
    assert not (tmp_path / "o.xyz").exists()


@pytest.mark.slow
def test_label_with_two_processes(tmp_path: Path) -> None:
    files = [str(_copper(tmp_path / "a.extxyz", 5)), "--backend", "emt", "-o"]
    for name, jobs in (("1.extxyz", "1"), ("2.extxyz", "2")):
        arguments = [*files, str(tmp_path / name), "--jobs", jobs]
        CliRunner().invoke(label_command, arguments, catch_exceptions=False)
    one, two = (ase.io.read(tmp_path / name, ":") for name in ("1.extxyz", "2.extxyz"))
    assert len(two) == 5
    assert [a.info["record"] for a in one] == [b.info["record"] for b in two]
    assert ResultStore(tmp_path / "2.db").inspect().good == 5


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_gpaw_silicon(tmp_path: Path) -> None:
    """Coarse settings; the figures of the defaults come from `qdgnn bench-dft`."""
    pytest.importorskip("gpaw")
    chosen = DFTSettings(cutoff_ev=200.0, k_density=1.5, path_points=8)
    atoms = bulk("Si", a=5.43)
    log = tmp_path / "log.txt"
    record = evaluate(atoms, GPAWBackend(chosen), ResultStore(tmp_path / "r.db"), log)
    assert record.settings["k_mesh"] == [4, 4, 4]
    assert 0.4 < record.values["band_gap"] < record.values["band_gap_direct"] < 3.0
    assert np.abs(record.values["forces"]).max() < 1e-3
    assert np.abs(record.values["charges"]).max() < 1e-2
    assert len(record.values["stress"]) == 6
    assert np.abs(record.values["quadrupole_norms"]).max() < 0.02  # tetrahedral sites have none
    change = np.array(record.values["density_difference"])
    assert change.shape == (8, 8, 8)
    assert abs(change.mean()) < 1e-3 < np.abs(change).max()
    assert "Converged" in log.read_text()


@pytest.mark.slow
def test_gpaw_spin_orbit_coupling_raises_the_valence_band_by_a_third_of_its_splitting() -> None:
    pytest.importorskip("gpaw")
    atoms = bulk("GaAs", "zincblende", a=5.653)
    plain, coupled = (
        evaluate(atoms, GPAWBackend(DFTSettings(cutoff_ev=250.0, k_density=1.5, spin_orbit=on)))
        for on in (False, True)
    )
    third = plain.values["band_gap"] - coupled.values["band_gap"]
    assert 3 * third == pytest.approx(0.34, abs=0.04)
