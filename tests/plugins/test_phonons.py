"""Phonons of any ASE calculator: phonopy by hand as oracle, and phonopy's silent faults."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from click.testing import CliRunner
from numpy.testing import assert_allclose

pytest.importorskip("phonopy")
pytest.importorskip("seekpath")
pytest.importorskip("symfc")

import phonopy
from phonopy import Phonopy
from phonopy.phonon.random_displacements import RandomDisplacements
from phonopy.structure.atoms import PhonopyAtoms

from qdgnn_phonons import (
    ImaginaryModesError,
    PhononConfig,
    band_structure,
    density_of_states,
    gruneisen,
    harmonic_phonons,
    last_peak,
    lindemann_melting,
    load_phonons,
    normal_modes,
    quasi_harmonic,
    relax_crystal,
    save_phonons,
    self_consistent_phonons,
    stability_of,
    thermal_displacements,
    thermal_properties,
)
from qdgnn_phonons.cli import phonons as command
from qdgnn_phonons.crystal import to_phonopy
from qdgnn_phonons.stability import translations
from qdgnn_phonons.thermal import Melting

SMALL = PhononConfig(supercell=(3, 3, 3))
TINY = PhononConfig(supercell=(2, 2, 2))
DULONG_PETIT = 3 * 8.314462618


class Argon(LennardJones):
    """Smooth Lennard-Jones potential."""

    def __init__(self) -> None:
        super().__init__(sigma=3.4, epsilon=0.0104, rc=8.0, ro=6.0, smooth=True)


CRYSTALS: dict[str, tuple[Atoms, type[Calculator]]] = {
    "Al": (bulk("Al", a=4.0), EMT),
    "Cu": (bulk("Cu", a=3.6), EMT),
    "Ar": (bulk("Ar", a=5.3), Argon),
}


@cache
def relaxed(name: str) -> Atoms:
    atoms, calculator = CRYSTALS[name]
    atoms = atoms.copy()
    atoms.calc = calculator()
    return relax_crystal(atoms)


@cache
def computed(name: str) -> Phonopy:
    return harmonic_phonons(relaxed(name), SMALL)


def fresh(name: str) -> Phonopy:
    """A copy that a test may change."""
    copy: Phonopy = computed(name).replicate()
    copy.force_constants = computed(name).force_constants.copy()
    return copy


def unstable() -> Atoms:
    """Simple cubic copper: a saddle point."""
    atoms = bulk("Cu", "sc", a=2.4)
    atoms.calc = EMT()
    return relax_crystal(atoms)


@cache
def imaginary() -> Phonopy:
    return harmonic_phonons(unstable(), SMALL)


def by_hand(name: str) -> Phonopy:
    """What a phonopy user writes, with nothing of ours."""
    atoms = relaxed(name)
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
    )
    phonon = Phonopy(cell, supercell_matrix=np.diag([3, 3, 3]), primitive_matrix="P")
    phonon.generate_displacements(distance=0.01)
    forces = []
    for supercell in phonon.supercells_with_displacements:
        displaced = Atoms(
            supercell.symbols, cell=supercell.cell, positions=supercell.positions, pbc=True
        )
        displaced.calc = CRYSTALS[name][1]()
        forces.append(displaced.get_forces())
    phonon.forces = np.array(forces)
    phonon.produce_force_constants()
    phonon.symmetrize_force_constants()
    return phonon


@pytest.mark.parametrize("name", CRYSTALS)
def test_bands_equal_phonopy_by_hand(name: str) -> None:
    bands = band_structure(computed(name))
    theirs = by_hand(name).run_band_structure(bands.qpoints)
    ours, wanted = np.vstack(bands.frequencies), np.vstack(theirs.frequencies)
    moving = np.abs(wanted) > 1e-6  # translations: the square root of rounding errors
    assert_allclose(ours[moving], wanted[moving], atol=1e-8, rtol=0)
    assert np.abs(ours[~moving]).max() < 1e-6
    assert ours.max() > 1.0


def test_a_wrong_displacement_is_seen() -> None:
    """Negative control of the oracle: another displacement is not the same to 1e-8 THz."""
    other = harmonic_phonons(relaxed("Cu"), PhononConfig(supercell=(3, 3, 3), displacement=0.03))
    bands = band_structure(other)
    theirs = by_hand("Cu").run_band_structure(bands.qpoints)
    assert np.abs(np.vstack(bands.frequencies) - np.vstack(theirs.frequencies)).max() > 1e-5


def test_random_sets_give_the_same_bands() -> None:
    config = PhononConfig(supercell=(3, 3, 3), method="symfc", random_sets=6, seed=1)
    points = band_structure(computed("Cu")).qpoints
    fitted = harmonic_phonons(relaxed("Cu"), config).run_band_structure(points)
    exact = computed("Cu").run_band_structure(points)
    assert_allclose(np.vstack(fitted.frequencies), np.vstack(exact.frequencies), atol=0.03)


def test_supercells_reach_the_asked_length() -> None:
    phonon = harmonic_phonons(relaxed("Cu"), PhononConfig(min_length=5.0))
    heights = 1 / np.linalg.norm(np.linalg.inv(phonon.supercell.cell), axis=0)
    assert heights.min() >= 5.0 - 1e-6
    assert len(phonon.supercell) == 27


def test_paths_of_seekpath_and_ase_agree_on_special_points() -> None:
    ours = band_structure(computed("Cu"), "seekpath")
    theirs = band_structure(computed("Cu"), "GXWKGL,UX")
    assert theirs.labels == ["Γ", "X", "W", "K", "Γ", "L", "U", "X"]
    at_x = [f[-1] for f, name in zip(ours.frequencies, ["X"], strict=False) if name]
    assert_allclose(at_x[0], theirs.frequencies[0][-1], atol=1e-8)


def test_seekpath_points_belong_to_the_cell_at_hand() -> None:
    """phonopy's auto_band_structure takes seekpath's points for those of any primitive cell."""
    usual = computed("Cu")
    cell = to_phonopy(relaxed("Cu"))
    cell.cell = np.array([[1, 0, 0], [2, 1, 0], [0, -1, 1]]) @ cell.cell  # the same lattice
    skewed = Phonopy(cell, np.eye(3, dtype=int), primitive_matrix="P")
    skewed.force_constants = np.zeros((1, 1, 3, 3))

    def corners(phonon: Phonopy) -> list[float]:
        inverse = np.linalg.inv(phonon.primitive.cell)
        points = phonon.band_structure.qpoints
        return [float(np.linalg.norm(inverse @ segment[-1])) for segment in points]

    assert band_structure(skewed).labels == band_structure(usual).labels
    wanted = corners(usual)
    assert_allclose(corners(skewed), wanted, atol=1e-6)
    skewed.auto_band_structure()
    assert np.abs(np.array(corners(skewed)) - wanted).max() > 0.1


@pytest.mark.parametrize("path", ["GQ", "nonsense"])
def test_unknown_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="special points out of G"):
        band_structure(computed("Cu"), path)


def test_density_of_states_counts_the_modes() -> None:
    dos = density_of_states(computed("Cu"))
    step = dos.frequencies[1] - dos.frequencies[0]
    assert dos.density.sum() * step == pytest.approx(3.0, rel=0.01)
    highest = max(f.max() for f in band_structure(computed("Cu")).frequencies)
    assert 0.7 * highest < last_peak(dos) < highest


def test_heat_capacity_is_that_of_oscillators() -> None:
    """By numpy from the same mesh; tends to Dulong and Petit; 0 at 0 K."""
    phonon = fresh("Cu")
    result = thermal_properties(phonon, [0.0, 100.0, 3000.0], mesh=30.0)
    frequencies, weights = phonon.mesh.frequencies, phonon.mesh.weights
    x = units._hplanck * 1e12 * frequencies / (units._k * 100.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        heat = np.where(frequencies > 0.05, x**2 * np.exp(x) / np.expm1(x) ** 2, 0.0)
    wanted = units._k * units._Nav * (heat.sum(axis=1) @ weights) / weights.sum()
    assert result.heat_capacity_j_mol_k[1] == pytest.approx(wanted, rel=1e-5)
    assert result.heat_capacity_j_mol_k[0] == 0.0
    n_q = weights.sum()
    assert result.heat_capacity_j_mol_k[2] == pytest.approx(DULONG_PETIT * (1 - 1 / n_q), rel=0.01)


def test_properties_are_per_atom() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(np.eye(3) * relaxed("Cu").cell.array.max() * 2, scale_atoms=True)
    atoms.calc = EMT()
    phonon = harmonic_phonons(atoms, PhononConfig(supercell=(2, 2, 2)))
    assert len(phonon.unitcell) == 4
    heat = thermal_properties(phonon, [300.0]).heat_capacity_j_mol_k
    assert heat[0] == pytest.approx(
        thermal_properties(computed("Cu"), [300.0]).heat_capacity_j_mol_k[0], rel=0.01
    )


def test_displacements_equal_phonopy() -> None:
    phonon = fresh("Cu")
    ours = thermal_displacements(phonon, [50.0, 300.0], mesh=20.0)
    theirs = phonon.run_thermal_displacements(
        temperatures=[50.0, 300.0], exclude_gamma_acoustic=True
    )
    assert_allclose(ours.reshape(2, -1), theirs.thermal_displacements, rtol=1e-5)


def test_lindemann_is_where_the_ratio_is_passed() -> None:
    melting = lindemann_melting(computed("Cu"), critical_ratio=0.1, mesh=30.0)
    kelvin = melting.temperature_celsius + 273.15
    square = thermal_displacements(computed("Cu"), [kelvin], mesh=30.0).sum()
    assert np.sqrt(square) / melting.neighbor_distance == pytest.approx(0.1, rel=1e-4)
    assert melting.neighbor_distance == pytest.approx(2.54, abs=0.02)
    assert isinstance(melting, Melting)
    assert "0 K" in melting.assumption
    with pytest.raises(ValueError, match="ratio must pass"):
        lindemann_melting(computed("Cu"), critical_ratio=0.001)


def test_gruneisen_is_the_derivative_of_the_bands() -> None:
    """-d ln omega / d ln V of the X point, from two volumes far apart."""
    result = gruneisen(relaxed("Cu"), harmonic_phonons(relaxed("Cu"), TINY), TINY, mesh=10.0)
    moving = result.frequencies > 0.05
    assert np.isnan(result.parameters[~moving]).all()
    assert ((result.parameters[moving] > 0.5) & (result.parameters[moving] < 5)).all()
    highest = np.nanargmax(result.frequencies[:, -1])
    tops = []
    for factor in (0.99, 1.01):
        atoms = relaxed("Cu").copy()
        atoms.set_cell(atoms.cell.array * factor ** (1 / 3), scale_atoms=True)
        atoms.calc = EMT()
        numbers = harmonic_phonons(atoms, TINY)
        numbers.run_mesh(10.0, is_gamma_center=True)
        tops.append(numbers.mesh.frequencies.max())
    slope = -np.log(tops[1] / tops[0]) / np.log(1.01 / 0.99)
    assert result.parameters[highest, -1] == pytest.approx(slope, rel=0.02)


@pytest.mark.slow
def test_thermal_expansion_follows_the_gruneisen_relation() -> None:
    """alpha = gamma C_V / (B V) within the spread of the mode parameters."""
    result = quasi_harmonic(relaxed("Cu"), np.arange(0.0, 500.0, 50.0), SMALL, mesh=20.0)
    gamma = gruneisen(relaxed("Cu"), computed("Cu"), SMALL, mesh=20.0).mean(300.0)
    at = list(result.temperatures).index(300.0)
    heat = thermal_properties(computed("Cu"), [300.0], mesh=20.0).heat_capacity_j_mol_k[0]
    heat *= units.J / units.mol
    wanted = gamma * heat / (result.bulk_modulus_gpa[at] * units.GPa * result.volume[at])
    assert result.thermal_expansion[at] == pytest.approx(wanted, rel=0.15)
    assert result.heat_capacity_j_mol_k[at] > heat / (units.J / units.mol)


@pytest.mark.slow
def test_quasi_harmonic_has_no_false_zero() -> None:
    """phonopy puts 0.0 where the first difference is missing."""
    result = quasi_harmonic(relaxed("Cu"), [200.0, 250.0, 300.0, 350.0], TINY, mesh=10.0)
    assert np.isnan(result.thermal_expansion[0])
    assert np.isnan(result.heat_capacity_j_mol_k[0])
    assert (result.thermal_expansion[1:] > 0).all()


@pytest.mark.slow
def test_quasi_harmonic_does_not_extrapolate() -> None:
    volumes = (0.92, 0.935, 0.95, 0.965, 0.98)
    with pytest.raises(ValueError, match="must enclose the equilibrium"):
        quasi_harmonic(relaxed("Cu"), [0.0, 300.0, 600.0, 900.0], TINY, volumes, mesh=10.0)


@pytest.mark.slow
def test_self_consistent_phonons_of_a_nearly_harmonic_crystal() -> None:
    phonon = fresh("Cu")
    before = phonon.force_constants.copy()
    result = self_consistent_phonons(phonon, EMT(), 50.0, n=8, iterations=2, seed=3, mesh=10.0)
    assert_allclose(phonon.force_constants, before)
    assert len(result.changes) == 2
    points = band_structure(phonon).qpoints
    got = np.vstack(result.phonon.run_band_structure(points).frequencies)
    wanted = np.vstack(phonon.run_band_structure(points).frequencies)
    assert_allclose(got, wanted, atol=0.4)
    assert np.abs(got - wanted).max() > 1e-4


def test_files_are_read_back(tmp_path: Path) -> None:
    phonon = fresh("Cu")
    bands = band_structure(phonon)
    density_of_states(phonon, 20.0)
    thermal_properties(phonon, [300.0], 20.0)
    names = {path.name for path in save_phonons(phonon, tmp_path)}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert {"phonopy.yaml", "force_constants.hdf5", "band.yaml"} < names
    for again in (
        load_phonons(tmp_path),
        phonopy.load(
            tmp_path / "phonopy.yaml",
            force_constants_filename=tmp_path / "force_constants.hdf5",
            log_level=0,
        ),
    ):
        other = again.run_band_structure(bands.qpoints)
        assert_allclose(np.vstack(other.frequencies), np.vstack(bands.frequencies), atol=1e-6)


def test_a_failed_write_keeps_the_older_file(tmp_path: Path) -> None:
    from qdgnn_phonons.files import write_atomically

    target = tmp_path / "a.txt"
    target.write_text("old")

    def broken(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, broken)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("temperatures", [[np.nan], [-5.0], [300.0, -1e-9], [np.inf], []])
@pytest.mark.parametrize("function", [thermal_properties, thermal_displacements])
def test_impossible_temperatures_are_refused(function: Any, temperatures: list[float]) -> None:
    """phonopy answers NaN with 0 or NaN, and drops negative temperatures."""
    with pytest.raises(ValueError, match="temperatures must be"):
        function(computed("Cu"), temperatures)


def test_phonopy_still_has_these_faults() -> None:
    """When one of them is gone, its work-around can go too."""
    phonon = fresh("Cu")
    phonon.run_mesh(10.0)
    result = phonon.run_thermal_properties(
        temperatures=[-5.0, np.nan, 300.0], exclude_gamma_acoustic=True
    )
    assert len(result.temperatures) == 2
    assert result.heat_capacity[0] == 0.0
    sampler = RandomDisplacements(
        imaginary().supercell, imaginary().primitive, imaginary().force_constants
    )
    sampler.run(300.0, 2, random_seed=0)
    assert np.isfinite(sampler.u).all()
    phonon.init_random_displacements()
    phonon.generate_displacements(number_of_snapshots=2, temperature=300.0)
    assert phonon.force_constants is None


def test_deleted_force_constants_are_named() -> None:
    phonon = fresh("Cu")
    phonon.generate_displacements()
    for use in (band_structure, density_of_states, normal_modes, stability_of):
        with pytest.raises(ValueError, match="deleted by Phonopy"):
            use(phonon)


def test_imaginary_modes_are_reported_and_refused() -> None:
    report = stability_of(imaginary())
    assert not report.is_stable
    assert report.n_imaginary > 5
    assert report.lowest < -1.0
    assert report.n_modes == 3 * 27 - 3
    assert stability_of(computed("Cu")).is_stable
    for use in (
        lambda: thermal_properties(imaginary(), [300.0]),
        lambda: thermal_displacements(imaginary(), [300.0]),
        lambda: lindemann_melting(imaginary()),
        lambda: gruneisen(unstable(), imaginary(), SMALL),
    ):
        with pytest.raises(ImaginaryModesError, match="imaginary"):
            use()
    partial = thermal_properties(imaginary(), [3000.0], 20.0, allow_imaginary=True)
    assert partial.heat_capacity_j_mol_k[0] < 0.9 * DULONG_PETIT


def test_a_broken_sum_rule_is_seen() -> None:
    phonon = fresh("Cu")
    broken = phonon.force_constants.copy()
    broken[np.arange(27), np.arange(27)] += 0.5 * np.eye(3)
    phonon.force_constants = broken
    with pytest.raises(ValueError, match="translations must have zero frequency"):
        stability_of(phonon)
    with pytest.raises(ValueError, match="translations must have zero frequency"):
        normal_modes(phonon)
    assert translations(np.array([[-1e-7, 2e-7, 1e-7, 3.0]])).tolist() == [[True] * 3 + [False]]


def test_crystals_that_have_no_phonons_are_refused() -> None:
    atoms = bulk("Cu", a=3.7)
    with pytest.raises(ValueError, match="must have a calculator"):
        relax_crystal(atoms)
    atoms.calc = EMT()
    mirrored = bulk("Cu", a=3.7)
    mirrored.set_cell(atoms.cell.array[[1, 0, 2]])
    mirrored.calc = EMT()
    with pytest.raises(ValueError, match="right-handed"):
        relax_crystal(mirrored)
    slab = bulk("Cu", a=3.7)
    slab.pbc = (True, True, False)
    slab.calc = EMT()
    with pytest.raises(ValueError, match="periodic along three"):
        harmonic_phonons(slab, SMALL)
    with pytest.raises(CalculationFailed, match="must relax to 1e-05"):
        relax_crystal(atoms, PhononConfig(relaxation_steps=1))
    pair = bulk("CuAu", "zincblende", a=5.2)
    pair.positions[1] += 0.05
    pair.calc = EMT()
    with pytest.raises(ValueError, match="crystal must be relaxed"):
        harmonic_phonons(pair, PhononConfig(supercell=(2, 2, 2)))


class Broken(EMT):
    """NaN forces from the second call on."""

    n_calls = 0

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        self.n_calls += 1
        if self.n_calls > 1:
            self.results["forces"] = np.full_like(self.results["forces"], np.nan)


def test_nan_forces_are_refused() -> None:
    atoms = relaxed("Cu").copy()
    atoms.calc = Broken()
    with pytest.raises(ValueError, match="must be finite"):
        harmonic_phonons(atoms, SMALL)


def test_relaxation_keeps_the_space_group_and_the_argument() -> None:
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.positions[0] += 1e-4
    atoms.calc = EMT()
    before = atoms.positions.copy()
    result = relax_crystal(atoms)
    assert_allclose(atoms.positions, before)
    assert not result.constraints
    lengths = result.cell.lengths()
    assert_allclose(lengths, lengths[0], atol=1e-9)
    assert np.abs(result.get_forces()).max() < 1e-5


@pytest.mark.parametrize(
    "settings", [{"min_length": 0.0}, {"supercell": (1, 0, 1)}, {"method": "x"}, {"fmax": np.nan}]
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PhononConfig(**settings)


def test_command(tmp_path: Path) -> None:
    bulk("Cu", a=3.59).write(tmp_path / "cu.extxyz")
    arguments = [str(tmp_path / "cu.extxyz"), "--calculator", "emt", "--supercell", "2", "2", "2"]
    output = tmp_path / "out"
    done = CliRunner().invoke(command, [*arguments, "-o", str(output), "--mesh", "10"])
    assert done.exit_code == 0, done.output
    report = json.loads((output / "report.json").read_text())
    assert report["stability"]["n_imaginary"] == 0
    assert 400 < report["melting"]["temperature_celsius"] < 1500
    for name in ("bands.png", "thermal.png"):
        assert (output / name).read_bytes()[:4] == b"\x89PNG"
    assert len(load_phonons(output).supercell) == 8


@pytest.mark.slow
def test_command_shows_what_is_wrong(tmp_path: Path) -> None:
    bulk("Cu", "sc", a=2.4).write(tmp_path / "cu.extxyz")
    arguments = [str(tmp_path / "cu.extxyz"), "--calculator", "emt", "--supercell", "2", "2", "2"]
    output = tmp_path / "out"
    done = CliRunner().invoke(command, [*arguments, "-o", str(output), "--mesh", "10"])
    assert done.exit_code == 1
    assert "imaginary" in done.output
    assert (output / "bands.png").exists()
    assert "refused" in json.loads((output / "report.json").read_text())
