"""Labelling: labels are the calculator's, a kill loses nothing, a failure is told."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from qdgnn_ase import Labelled, label
from qdgnn_ase.data.label import failures_path, key_of


def copper(n: int = 6) -> list[Atoms]:
    structures = []
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.info["key"] = f"cu-{seed}"
        structures.append(atoms)
    return structures


def assert_same(first: Path, second: Path) -> None:
    """EMT's last digit depends on what it calculated before."""
    one, two = (ase.io.read(path, ":") for path in (first, second))
    assert [atoms.info["key"] for atoms in one] == [atoms.info["key"] for atoms in two]
    for a, b in zip(one, two, strict=True):
        assert a == b
        for name in ("energy", "forces", "stress"):
            assert np.allclose(a.calc.results[name], b.calc.results[name], atol=1e-7), name


def test_labels_are_those_of_the_calculator(tmp_path: Path) -> None:
    structures = copper()
    structures[2].set_constraint(FixAtoms([0, 1]))  # must not turn labels into zeros
    out = tmp_path / "new" / "out.extxyz"
    assert label(structures, EMT, out) == Labelled(written=6)
    frames = ase.io.read(out, ":")
    assert [atoms.info["key"] for atoms in frames] == [f"cu-{i}" for i in range(6)]
    for frame, atoms in zip(frames, structures, strict=True):
        atoms.set_constraint()
        atoms.calc = EMT()
        assert np.allclose(frame.positions, atoms.positions, atol=1e-8)
        assert frame.get_potential_energy() == pytest.approx(atoms.get_potential_energy())
        assert np.allclose(frame.get_forces(), atoms.get_forces(), atol=1e-7)
        assert np.allclose(frame.get_stress(), atoms.get_stress(), atol=1e-9)
    assert failures_path(out).read_text() == ""


def test_no_stress_without_a_volume(tmp_path: Path) -> None:
    label([molecule("CO")], EMT, tmp_path / "out.xyz")
    frame = ase.io.read(tmp_path / "out.xyz")
    assert "stress" not in frame.calc.results
    assert "energy" in frame.calc.results


def test_parallel_gives_the_same_file(tmp_path: Path) -> None:
    label(copper(), EMT, tmp_path / "one.extxyz")
    label(copper(), EMT, tmp_path / "two.extxyz", jobs=2)
    assert_same(tmp_path / "one.extxyz", tmp_path / "two.extxyz")


def test_cut_at_any_byte_resumes_to_the_same_file(tmp_path: Path) -> None:
    out = tmp_path / "out.extxyz"
    structures = copper(3)
    structures[0].info["note"] = "a key=cu-9 in a note"
    label(structures, EMT, out)
    whole = out.read_bytes()
    (tmp_path / "whole.extxyz").write_bytes(whole)
    for size in range(0, len(whole), 41):
        out.write_bytes(whole[:size])
        counts = label(structures, EMT, out)
        assert_same(out, tmp_path / "whole.extxyz")
        assert counts.written + counts.skipped == 3
    assert label(structures, EMT, out) == Labelled(skipped=3)


KILLED = """
import os, signal, sys
sys.path[:0] = {path}
from ase.calculators.emt import EMT
from qdgnn_ase import label
from test_label import copper

def die(atoms, calculator):
    if atoms.info["key"] == "cu-4":
        os.kill(os.getpid(), signal.SIGKILL)
    return {{}}

label(copper(), EMT, {out!r}, annotate=die)
"""


def test_kill_and_resume(tmp_path: Path) -> None:
    out = tmp_path / "out.extxyz"
    code = KILLED.format(path=[str(Path(__file__).parent)], out=str(out))
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(ase.io.read(out, ":")) == 4
    assert label(copper(), EMT, out) == Labelled(written=2, skipped=4)
    label(copper(), EMT, tmp_path / "straight.extxyz")
    assert_same(out, tmp_path / "straight.extxyz")


def test_failures_are_recorded_and_not_repeated(tmp_path: Path) -> None:
    out = tmp_path / "out.extxyz"
    broken, nan = bulk("U", "fcc", a=4.0), copper(1)[0]
    broken.info["key"], nan.info["key"] = "uranium", "nan"
    nan.positions[0, 0] = np.nan
    structures = [broken, *copper(2), nan]
    assert label(structures, EMT, out) == Labelled(written=2, failed=2)
    lines = [json.loads(line) for line in failures_path(out).read_text().splitlines()]
    assert [line["key"] for line in lines] == ["uranium", "nan"]
    assert "No EMT-potential for U" in lines[0]["reason"]
    assert "positions must be finite" in lines[1]["reason"]
    assert label(structures, EMT, out) == Labelled(skipped=4)
    failures_path(out).unlink()
    assert label(structures, EMT, out) == Labelled(failed=2, skipped=2)


def test_infinite_results_are_failures(tmp_path: Path) -> None:
    class Infinite(EMT):
        def calculate(self, *args: object) -> None:
            super().calculate(*args)
            self.results["forces"][0, 0] = np.inf

    assert label(copper(1), Infinite, tmp_path / "out.xyz") == Labelled(failed=1)
    assert "forces must be finite" in failures_path(tmp_path / "out.xyz").read_text()


def test_annotation_and_progress(tmp_path: Path) -> None:
    seen: list[Labelled] = []
    label(
        copper(2),
        EMT,
        tmp_path / "out.xyz",
        annotate=lambda atoms, calculator: {"name": calculator.name, "n": len(atoms)},
        progress=seen.append,
    )
    assert seen == [Labelled(written=1), Labelled(written=2)]
    assert ase.io.read(tmp_path / "out.xyz").info["name"] == "emt"


def test_one_key_is_labelled_once(tmp_path: Path) -> None:
    atoms = bulk("Cu")
    counts = label([atoms, atoms.copy(), bulk("Cu", a=3.7)], EMT, tmp_path / "out.xyz")
    assert counts == Labelled(written=2, skipped=1)
    assert key_of(atoms) == ase.io.read(tmp_path / "out.xyz", 0).info["key"]


def test_nothing_new_makes_no_calculator(tmp_path: Path) -> None:
    label(copper(1), EMT, tmp_path / "out.xyz")

    def never() -> EMT:
        raise AssertionError("made without need")

    assert label(copper(1), never, tmp_path / "out.xyz").skipped == 1


def test_refusals(tmp_path: Path) -> None:
    out = tmp_path / "out.xyz"
    with pytest.raises(ValueError, match="jobs must be >= 1, got 0"):
        label(copper(1), EMT, out, jobs=0)
    bad = copper(1)
    bad[0].info["key"] = "12 34"
    with pytest.raises(ValueError, match="key must be a letter"):
        label(bad, EMT, out)
    ase.io.write(out, copper(1)[0], columns=["symbols", "positions"], write_info=False)
    before = out.read_bytes()
    with pytest.raises(ValueError, match="must hold labelled frames with a key"):
        label(copper(1), EMT, out)
    assert out.read_bytes() == before


def test_second_writer_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.xyz"
    with out.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="must have one writer"):
            label(copper(1), EMT, out)
