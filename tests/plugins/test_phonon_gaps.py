"""Labels of the study of displaced frames beside DFT, with records made by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from click.testing import CliRunner

from qdgnn_bench import phonon_gaps
from qdgnn_bench.phonon_gaps import BACKEND, COLUMN
from qdgnn_dft.backend import make_record
from qdgnn_dft.store import ResultStore

N_FRAMES = 6
SLOPE = 0.8
"""Of the labels' forces on DFT's."""
SHIFT = 0.3
"""eV, of DFT's gaps."""


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, Path]:
    """Frames whose DFT gap is the label plus a constant, with forces 1/0.8 as big; their store."""
    rng = np.random.default_rng(0)
    frames: list[Atoms] = []
    store = ResultStore(tmp_path / "s.db")
    for index in range(N_FRAMES):
        atoms = bulk("Si", cubic=True)
        atoms.positions += rng.normal(scale=0.05, size=(8, 3))
        forces = rng.normal(size=(8, 3))
        values = {"energy": -1.0, "band_gap": 0.1 * index + SHIFT, "forces": forces / SLOPE}
        store.put(
            make_record(
                atoms,
                BACKEND.settings(atoms),
                values,
                {"version": "GPAW 0", "cpu_seconds": 3.0},
            )
        )
        atoms.info = {COLUMN: 0.1 * index, "arm": "md", "temperature_kelvin": 300.0}
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces)
        frames.append(atoms)
    file = tmp_path / "test_300K.extxyz"
    ase.io.write(file, frames)
    return file, tmp_path / "s.db"


def test_a_constant_offset_does_no_harm(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, store = labelled
    monkeypatch.setattr(phonon_gaps, "backend_of", lambda name: None)  # every record is known
    output = tmp_path / "gaps.json"
    arguments = [str(file), "-n", str(N_FRAMES), "--store", str(store), "--json", str(output)]
    outcome = CliRunner().invoke(phonon_gaps.phonon_gaps, arguments)
    assert outcome.exit_code == 0, outcome.output
    (row,) = json.loads(output.read_text())["rows"]
    assert row["gap"]["mean_difference"] == pytest.approx(SHIFT)
    assert row["gap"]["mae_without_mean"] == pytest.approx(0.0, abs=1e-9)
    assert row["gap"]["pearson"] == pytest.approx(1.0)
    assert row["forces"]["slope"] == pytest.approx(SLOPE, abs=1e-6)
    assert row["forces"]["r2"] == pytest.approx(1 - (1 - SLOPE) ** 2, abs=1e-6)
    assert f"| {N_FRAMES} Si8 | md, 300 K |" in output.with_suffix(".md").read_text()
    assert "3 CPU s each" in outcome.output


def test_labels_of_other_frames_do_not_correlate(labelled: tuple[Path, Path]) -> None:
    file, path = labelled
    frames = phonon_gaps.frames_of(file, N_FRAMES)
    store = ResultStore(path)
    records = [phonon_gaps.evaluate(frame.atoms, BACKEND, store) for frame in frames]
    shuffled = [records[index] for index in (3, 0, 5, 2, 4, 1)]
    row = phonon_gaps.compare(frames, shuffled)
    assert row["gap"]["pearson"] < 0.5
    assert row["forces"]["r2"] < 0.2


def test_frames_without_labels_or_too_few_are_refused(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phonon_gaps, "backend_of", lambda name: None)
    file, store = labelled
    bare = tmp_path / "bare.extxyz"
    ase.io.write(bare, [bulk("Si")] * 4)
    for arguments, message in (
        ([str(file), "-n", "7"], "got 7 and 6"),
        ([str(bare), "-n", "4"], "must have t1_gap and forces"),
    ):
        outcome = CliRunner().invoke(phonon_gaps.phonon_gaps, [*arguments, "--store", str(store)])
        assert outcome.exit_code == 2
        assert message in " ".join(outcome.output.split())


def test_without_gpaw_the_error_names_the_command(
    labelled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gpaw", None)
    file, store = labelled
    outcome = CliRunner().invoke(phonon_gaps.phonon_gaps, [str(file), "--store", str(store)])
    assert outcome.exit_code == 2
    assert "make dft" in outcome.output
