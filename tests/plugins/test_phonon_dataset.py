"""Sampled displacements against exact ones, the arms, and data sets in files."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.db import connect
from click.testing import CliRunner
from numpy.testing import assert_allclose

pytest.importorskip("phonopy")
pytest.importorskip("symfc")

from phonopy import Phonopy
from phonopy.phonon.random_displacements import RandomDisplacements

from qdgnn_ase import labels
from qdgnn_phonons import (
    ImaginaryModesError,
    PhononConfig,
    deduplicate,
    harmonic_phonons,
    md_frames,
    mean_square_displacements,
    measure_diversity,
    normal_modes,
    read_dataset,
    relax_crystal,
    sample_displacements,
    sample_frames,
    sample_phonons,
    uniform_frames,
    vary,
    write_dataset,
)
from qdgnn_phonons.bench.sampling import sampling as bench
from qdgnn_phonons.cli import dataset as command
from qdgnn_phonons.modes import THZ, mode_amplitudes

AMU_THZ2 = THZ**2
"""eV of 1 amu Å^2 at the angular frequency of 1 THz, squared."""


@cache
def copper() -> Atoms:
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.calc = EMT()
    return relax_crystal(atoms)


@cache
def computed(multiple: int) -> Phonopy:
    """32 atoms for 2, 256 atoms for 4."""
    return harmonic_phonons(copper(), PhononConfig(supercell=(multiple,) * 3))


@cache
def imaginary() -> Phonopy:
    atoms = bulk("Cu", "sc", a=2.41)
    atoms.calc = EMT()
    return harmonic_phonons(atoms, PhononConfig(supercell=(2, 2, 2)))


def exact(phonon: Phonopy, temperature: float, statistics: str) -> np.ndarray:
    """phonopy's correlation matrix of the commensurate modes: <u_a u_b> of all atoms."""
    modes = RandomDisplacements(
        phonon.supercell, phonon.primitive, phonon.force_constants, dist_func=statistics
    )
    modes.run_correlation_matrix(temperature)
    matrix: np.ndarray = modes.uu.transpose(0, 2, 1, 3).reshape(2 * (3 * len(phonon.supercell),))
    return matrix


def ratio_and_error(samples: np.ndarray, wanted: float) -> tuple[float, float]:
    """Mean of the snapshots' <u^2> over the exact one, and its standard error."""
    ratios = (samples**2).mean(axis=(1, 2)) / wanted
    return float(ratios.mean()), float(ratios.std(ddof=1) / np.sqrt(len(ratios)))


@pytest.mark.parametrize("statistics", ["quantum", "classical"])
@pytest.mark.parametrize("temperature", [100.0, 300.0, 600.0])
@pytest.mark.parametrize("multiple", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_sampled_squares_are_the_exact_ones(
    multiple: int, temperature: float, statistics: Any
) -> None:
    phonon = computed(multiple)
    modes = normal_modes(phonon)
    assert len(modes.supercell) == 4 * multiple**3
    wanted = np.diag(exact(phonon, temperature, statistics)).mean()
    samples = sample_displacements(modes, temperature, 400, 7, statistics)
    ratio, error = ratio_and_error(samples, wanted)
    assert abs(ratio - 1) < 3 * error
    assert error < 0.02
    ours = mean_square_displacements(modes, temperature, statistics)
    assert_allclose(ours.mean(), wanted, rtol=1e-5)


def test_the_wrong_amplitude_is_seen() -> None:
    """Negative control: the infinite crystal's <u^2>, or another temperature's, is not passed."""
    samples = sample_displacements(normal_modes(computed(2)), 300.0, 400, 7)
    wanted = np.diag(exact(computed(2), 330.0, "quantum")).mean()
    ratio, error = ratio_and_error(samples, wanted)
    assert abs(ratio - 1) > 3 * error


def test_whole_covariance_is_the_exact_one() -> None:
    modes = normal_modes(computed(2))
    samples = sample_displacements(modes, 300.0, 20_000, 1).reshape(20_000, -1)
    wanted = exact(computed(2), 300.0, "quantum")
    got = samples.T @ samples / len(samples)
    noise = np.sqrt((wanted**2 + np.outer(np.diag(wanted), np.diag(wanted))) / len(samples))
    assert np.abs((got - wanted) / noise).max() < 5.5
    assert np.sqrt((((got - wanted) / noise) ** 2).mean()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("temperature", [300.0, 600.0])
def test_equipartition(temperature: float) -> None:
    """Classical samples have kT/2 of potential energy per mode, by EMT itself within 5 %."""
    modes = normal_modes(computed(2))
    samples = sample_displacements(modes, temperature, 100, 3, "classical")
    hessian = computed(2).force_constants
    energies = 0.5 * np.einsum("sia,ijab,sjb->s", samples, hessian, samples, optimize=True)
    half = 0.5 * units.kB * temperature
    assert energies.mean() / len(modes.frequencies) == pytest.approx(half, rel=0.05)
    small = sample_displacements(modes, 20.0, 60, 3, "classical")
    atoms = modes.supercell.copy()
    atoms.calc = EMT()
    rest = atoms.get_potential_energy()
    found = []
    for displacement in small:
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions += displacement
        found.append(moved.get_potential_energy() - rest)
    per_mode = np.mean(found) / len(modes.frequencies)
    assert per_mode == pytest.approx(0.5 * units.kB * 20.0, rel=0.05)


def test_amplitudes_have_their_limits() -> None:
    frequencies = np.array([2.0, 7.0])
    classical = mode_amplitudes(frequencies, 3000.0, "classical")
    assert_allclose(mode_amplitudes(frequencies, 3000.0), classical, rtol=1e-3)
    assert_allclose(AMU_THZ2 * frequencies**2 * classical**2, units.kB * 3000.0)
    still = mode_amplitudes(frequencies, 0.0)
    assert_allclose(
        AMU_THZ2 * frequencies**2 * still**2, units._hplanck * units.J * 1e12 * frequencies / 2
    )
    assert_allclose(mode_amplitudes(frequencies, 0.0, "classical"), 0.0)
    assert_allclose(mode_amplitudes(frequencies, 1e-3), still)


def test_snapshots_do_not_translate_and_are_reproducible() -> None:
    modes = normal_modes(computed(2))
    samples = sample_displacements(modes, 300.0, 5, 11)
    masses = modes.supercell.get_masses()
    assert_allclose(np.einsum("i,sia->sa", masses, samples), 0.0, atol=1e-9)
    assert_allclose(sample_displacements(modes, 300.0, 3, 11), samples[:3])
    assert np.abs(sample_displacements(modes, 300.0, 5, 12) - samples).max() > 0.01
    assert computed(2).force_constants is not None


@pytest.mark.parametrize("temperature", [np.nan, -1.0, np.inf])
def test_impossible_temperatures_are_refused(temperature: float) -> None:
    """phonopy samples NaN without a word."""
    modes = normal_modes(computed(2))
    atoms = copper().copy()
    atoms.calc = EMT()
    for use in (
        lambda: sample_displacements(modes, temperature, 2, 0),
        lambda: sample_frames(modes, "gaussian", [300.0, temperature], 2, 0),
        lambda: sample_phonons(atoms, [temperature], 2, 0),
        lambda: md_frames(atoms, [temperature], 2, 0),
    ):
        with pytest.raises(ValueError, match="temperatures must be finite"):
            use()


def test_imaginary_modes_have_policies() -> None:
    """phonopy samples them as |omega|; here that must be asked for."""
    for use in (normal_modes, lambda phonon: sample_frames(phonon, "phonon", [300.0], 2, 0)):
        with pytest.raises(ImaginaryModesError, match="imaginary"):
            use(imaginary())
    dropped = normal_modes(imaginary(), "drop")
    absolute = normal_modes(imaginary(), "absolute")
    assert dropped.n_without_force == absolute.n_without_force > 0
    assert len(absolute.frequencies) == 21
    assert len(dropped.frequencies) == 21 - dropped.n_without_force
    sizes = [mean_square_displacements(modes, 300.0).sum() for modes in (dropped, absolute)]
    assert sizes[0] < sizes[1]
    frames = sample_frames(dropped, "phonon", [300.0], 1, 0)
    assert frames[0].info["imaginary_policy"] == "drop"
    assert frames[0].info["modes_without_force"] == dropped.n_without_force
    with pytest.raises(ValueError, match="policy must be"):
        normal_modes(imaginary(), "ignore")  # type: ignore[arg-type]


def test_arms_have_the_same_mean_square() -> None:
    modes = normal_modes(computed(2))
    wanted = mean_square_displacements(modes, 300.0).mean()
    for arm in ("phonon", "gaussian", "uniform"):
        frames = sample_frames(modes, arm, [300.0], 300, 5)  # type: ignore[arg-type]
        moves = np.array([frame.positions - modes.supercell.positions for frame in frames])
        assert (moves**2).mean() == pytest.approx(wanted, rel=0.03)
        assert (moves.min() >= 0) == (arm == "uniform")
        neighbours = (moves[:, 0] * moves[:, 1]).mean() - moves[:, 0].mean() * moves[:, 1].mean()
        correlated = abs(neighbours) > 0.1 * wanted
        assert correlated == (arm == "phonon")


def test_frames_know_where_they_come_from() -> None:
    frames = sample_frames(computed(2), "phonon", [100.0, 300.0], 3, 4)
    assert len({frame.info["key"] for frame in frames}) == 6
    assert [frame.info["temperature_kelvin"] for frame in frames] == [100.0] * 3 + [300.0] * 3
    assert frames[0].info | {"key": ""} == {
        "key": "",
        "index": 0,
        "arm": "phonon",
        "temperature_kelvin": 100.0,
        "statistics": "quantum",
        "imaginary_policy": "refuse",
        "modes_without_force": 0,
        "seed": 4,
    }
    other = sample_frames(imaginary_free(), "phonon", [100.0], 1, 4)
    assert other[0].info["key"] not in {frame.info["key"] for frame in frames}


def imaginary_free() -> Any:
    return normal_modes(imaginary(), "drop")


def test_sample_phonons_relaxes_first() -> None:
    atoms = bulk("Cu", a=3.7)
    atoms.calc = EMT()
    frames = sample_phonons(atoms, [300.0], 2, 0, config=PhononConfig(supercell=(2, 2, 2)))
    assert [len(frame) for frame in frames] == [8, 8]
    assert frames[0].get_volume() / 8 == pytest.approx(copper().get_volume() / 4, rel=1e-5)


@pytest.mark.parametrize(("n", "bound"), [(0, 0.1), (2, 0.0), (2, np.nan)])
def test_impossible_bounds_are_refused(n: int, bound: float) -> None:
    with pytest.raises(ValueError, match="bound must be > 0"):
        uniform_frames(copper(), bound, n, 0)


def test_uniform_frames_are_one_sided() -> None:
    moves = np.array(
        [f.positions - copper().positions for f in uniform_frames(copper(), 0.2, 50, 0)]
    )
    assert 0 <= moves.min() < 0.01
    assert 0.19 < moves.max() < 0.2


def test_md_frames_are_thermal() -> None:
    supercell = copper().repeat((2, 2, 2))
    supercell.calc = EMT()
    before = supercell.positions.copy()
    frames = md_frames(
        supercell, [300.0], 4, 1, interval_fs=40.0, equilibration_fs=200.0, timestep_fs=4.0
    )
    assert_allclose(supercell.positions, before)
    moves = np.array([frame.positions - before for frame in frames])
    wanted = mean_square_displacements(normal_modes(computed(2)), 300.0, "classical").mean()
    assert 0.3 * wanted < (moves**2).mean() < 3 * wanted
    assert np.abs(np.diff(moves, axis=0)).max(axis=(1, 2)).min() > 0.01


def test_changes_of_frames() -> None:
    frames = sample_frames(computed(2), "phonon", [300.0], 4, 0)
    varied = vary(frames, ["strain", "vacancy", "vacancy", "solid_solution"], seed=2)
    assert [len(atoms) for atoms in varied] == [30] * 4
    assert all(len(set(atoms.numbers)) == 2 for atoms in varied)
    volumes = [atoms.get_volume() / frames[0].get_volume() for atoms in varied]
    assert len(set(np.round(volumes, 6))) == 4
    assert np.abs(np.array(volumes) - 1).max() <= 0.06
    assert varied[0].info["changes"] == "strain+vacancy+vacancy+solid_solution"
    assert len(frames[0]) == 32
    again = vary(frames, ["strain", "vacancy", "vacancy", "solid_solution"], seed=2)
    assert_allclose(again[3].positions, varied[3].positions)
    with pytest.raises(ValueError, match="changes must be of strain"):
        vary(frames, ["melt"], seed=0)


def test_copies_are_found() -> None:
    rng = np.random.default_rng(0)
    frames = sample_frames(computed(2), "phonon", [300.0], 3, 0)
    turned = frames[1].copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    moved = frames[0][rng.permutation(32)]
    moved.positions += [0.3, -2.0, 9.0]
    moved.wrap()
    nearly = frames[2].copy()
    nearly.rattle(0.05, seed=1)
    other = frames[0].copy()
    other.numbers[0] = 47
    assert deduplicate([*frames, turned, moved, nearly, other, frames[2]]) == [0, 1, 2, 5, 6]
    report = measure_diversity([*frames, turned])
    assert (report.n_frames, report.n_duplicates, report.n_compositions) == (4, 1, 1)


def test_diversity_grows_with_temperature() -> None:
    modes = normal_modes(computed(2))
    cold, hot = (
        measure_diversity(sample_frames(modes, "phonon", [t], 10, 0)) for t in (50.0, 600.0)
    )
    assert hot.mean_distance > 1.3 * cold.mean_distance
    assert hot.nearest_distance > cold.nearest_distance
    with pytest.raises(ValueError, match="at least one structure"):
        measure_diversity([])


@pytest.mark.parametrize("name", ["set.extxyz", "set.db", "set.json"])
def test_datasets_are_read_back(tmp_path: Path, name: str) -> None:
    frames = sample_frames(computed(2), "gaussian", [300.0], 3, 0)
    write_dataset(frames[:1], tmp_path / name)
    write_dataset(frames, tmp_path / name)
    again = read_dataset(tmp_path / name)
    assert [atoms.info for atoms in again] == [atoms.info for atoms in frames]
    for one, other in zip(again, frames, strict=True):
        assert_allclose(one.positions, other.positions, atol=1e-7)
        assert_allclose(one.cell.array, other.cell.array, atol=1e-7)
    if name != "set.extxyz":
        assert len(list(connect(tmp_path / name).select(arm="gaussian"))) == 3


def test_bad_datasets_are_refused(tmp_path: Path) -> None:
    frames = sample_frames(computed(2), "gaussian", [300.0], 2, 0)
    with pytest.raises(ValueError, match=r"must end in \.extxyz"):
        write_dataset(frames, tmp_path / "set.cif")
    with pytest.raises(ValueError, match="key of its own"):
        write_dataset([frames[0], frames[0]], tmp_path / "set.extxyz")
    with pytest.raises(ValueError, match="at least one"):
        write_dataset([], tmp_path / "set.extxyz")
    assert not list(tmp_path.iterdir())


def test_command(tmp_path: Path) -> None:
    bulk("Cu", a=3.59).write(tmp_path / "cu.extxyz")
    output = tmp_path / "set.extxyz"
    arguments = [str(tmp_path / "cu.extxyz"), "--calculator", "emt", "--supercell", "2", "2", "2"]
    arguments += ["-n", "3", "-T", "300", "-T", "600", "--label", "-o", str(output)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    frames = ase.io.read(output, ":")
    assert len(frames) == 6
    assert all(np.isfinite(labels(atoms)["forces"]).all() for atoms in frames)
    assert frames[0].info["calculator"] == "emt"
    assert json.loads((tmp_path / "set.report.json").read_text())["n_frames"] == 6
    refused = CliRunner().invoke(command, [*arguments, "-T", "nan"])
    assert refused.exit_code != 0
    assert "temperatures must be finite" in str(refused.exception)
    assert len(ase.io.read(output, ":")) == 6


def test_bench_of_the_samples(tmp_path: Path) -> None:
    output = tmp_path / "sampling.json"
    arguments = ["--multiple", "2", "--samples", "10", "--repeats", "2", "--json", str(output)]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(output.read_text())
    assert document["atoms"] == 32
    assert document["samples"] == 10
    assert f"10 samples of 32 atoms at 300 K: {document['samples_ms']:.1f} CPU ms" in result.output
