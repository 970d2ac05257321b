"""A whole design run: files, resume after a kill, the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.data import covalent_radii
from ase.db import connect
from click.testing import CliRunner

pytest.importorskip("sb3_contrib")
pytest.importorskip("botorch")

from qdgnn_design.cli import design_command
from qdgnn_design.evaluate import Evaluator, Values, from_functions, surrogate
from qdgnn_design.output import candidate_rows, write_candidates
from qdgnn_design.report import write_report
from qdgnn_design.run import DesignConfig, DesignResult, design
from qdgnn_design.space import SpaceConfig
from qdgnn_design.targets import Target, parse_target


def radius(atoms: Atoms) -> float:
    return float(covalent_radii[atoms.numbers].mean())


def volume(atoms: Atoms) -> float:
    return float(atoms.cell.volume / len(atoms))


TARGETS = [
    Target(name="radius", low=1.38, high=1.38, tolerance=0.01, function=radius),
    Target(name="volume", goal="minimise", tolerance=1.0, function=volume),
]
SPACE = SpaceConfig(elements=("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"), slots="sites")


def run(
    out: Path, evaluator: Evaluator | None = None, name: str = "genetic", **options: object
) -> DesignResult:
    settings = {"budget": 30, "top": 3, "space": SPACE} | options
    return design(
        bulk("Cu", cubic=True),
        TARGETS,
        evaluator or from_functions(TARGETS),
        out,
        DesignConfig(method=name, **settings),  # type: ignore[arg-type]
        calculator=EMT(),
    )


def test_result_is_ranked_and_written(tmp_path: Path) -> None:
    result = run(tmp_path)
    passed = [ranked.verdict.passed for ranked in result.candidates]
    assert passed == sorted(passed, reverse=True)
    assert any(passed)
    files = write_candidates(result, tmp_path) + write_report(result, tmp_path)
    assert all(path.stat().st_size > 100 for path in files)
    frames = ase.io.read(tmp_path / "candidates.extxyz", ":")
    assert len(frames) == 3
    assert frames[0].info["radius"] == pytest.approx(
        radius(result.candidates[0].outcome.candidate.atoms)
    )
    assert frames[0].info["volume_relaxed"] == pytest.approx(volume(frames[0]), rel=1e-6)
    assert len(connect(str(tmp_path / "candidates.db"))) == 3
    assert len(list((tmp_path / "cif").glob("*.cif"))) == 3
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["summary"]["evaluations"] == 30
    assert document["summary"]["hypervolume"] > 0
    assert document["candidates"][0]["residuals"]["force after relaxation"][0] <= 0.06
    page = (tmp_path / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert document["candidates"][0]["formula"] in page


def test_unstable_candidates_fail_with_reasons(tmp_path: Path) -> None:
    """Negative control: EMT knows no caesium, so that relaxation fails and says so."""

    class Broken(EMT):  # type: ignore[misc]
        def calculate(self, *args: object, **kwargs: object) -> None:
            raise ValueError("no such element")

    result = design(
        bulk("Cu", cubic=True),
        TARGETS,
        from_functions(TARGETS),
        tmp_path,
        DesignConfig(method="random", budget=4, top=2, space=SPACE),
        calculator=Broken(),
    )
    assert not any(ranked.verdict.passed for ranked in result.candidates)
    assert "no such element" in result.candidates[0].verdict.reasons[0]


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
sys.path.insert(0, {folder!r})
import test_design_run as t
calls = [0]
def evaluator(structures):
    calls[0] += len(structures)
    if calls[0] > 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.from_functions(t.TARGETS)(structures)
t.run(Path({out!r}), evaluator, {name!r})
"""


def rounded(value: Any) -> Any:
    """To six decimals: sums in another order differ in the last digits of a relaxation."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", ["genetic", pytest.param("hybrid", marks=pytest.mark.slow)])
def test_kill_and_resume_give_the_same_candidates(name: str, tmp_path: Path) -> None:
    code = KILLED.format(folder=str(Path(__file__).parent), out=str(tmp_path / "a"), name=name)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    known = (tmp_path / "a" / "evaluations.jsonl").read_text()
    assert 1 < known.count('"key"') <= 17
    seen: list[int] = []

    def counting(structures: Sequence[Atoms]) -> list[Values | str]:
        seen.append(len(structures))
        return from_functions(TARGETS)(structures)

    resumed = run(tmp_path / "a", counting, name)
    whole = run(tmp_path / "b", None, name)
    assert rounded(candidate_rows(resumed)) == rounded(candidate_rows(whole))
    relaxed = len(resumed.candidates)  # are evaluated again after relaxation
    assert sum(seen) - relaxed == 30 - known.count('"key"')


def test_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path, name="random", budget=3)
    with pytest.raises(ValueError, match="choose another folder"):
        run(tmp_path, name="random", budget=3, seed=1)


@pytest.mark.slow
def test_goal_method_trains_once(tmp_path: Path) -> None:
    options = {"budget": 8, "training_budget": 40, "training_steps": 32, "horizon": 3}
    first = run(tmp_path, name="goal", **options)
    assert first.training_calls == 40
    policy = (tmp_path / "policy.zip").stat().st_mtime_ns
    again = run(tmp_path, name="goal", **options)
    assert (tmp_path / "policy.zip").stat().st_mtime_ns == policy
    assert rounded(candidate_rows(again)) == rounded(candidate_rows(first))
    assert again.training_calls == first.training_calls


def test_surrogate_tells_what_it_cannot(tmp_path: Path) -> None:
    from qdgnn_ase import Predictor

    predictor = Predictor()
    with pytest.raises(ValueError, match="thermal_stability"):
        surrogate(predictor, [parse_target("thermal_stability=max")])
    good, bad = bulk("NaCl", "rocksalt", a=5.6), Atoms("Pu2", [[0, 0, 0], [0, 0, 0.01]])
    values = surrogate(predictor)([good, bad, good])
    assert isinstance(values[1], str)
    assert isinstance(values[0], Values)
    assert values[0].values["band_gap"] > 3
    features = predictor.embedding([good, good * (2, 1, 1)])
    assert features.shape == (2, predictor.model.config.trunk.hidden)
    assert features[0] == pytest.approx(features[1], abs=1e-4)
    assert predictor.embedding([]).shape == (0, features.shape[1])


def test_command(tmp_path: Path) -> None:
    start = tmp_path / "nacl.cif"
    bulk("NaCl", "rocksalt", a=5.6).write(start)
    arguments = [str(start), "-t", "band_gap=4.5", "-t", "bulk_modulus=max", "-o"]
    arguments += [str(tmp_path / "out"), "--budget", "8", "--method", "hill-climb"]
    arguments += ["--elements", "K Rb Li F Br I", "--top", "2", "--no-filter"]
    done = CliRunner().invoke(design_command, arguments)
    assert done.exit_code == 0, done.output
    assert "8 evaluations" in done.output
    assert (tmp_path / "out" / "report.html").is_file()
    again = CliRunner().invoke(design_command, [*arguments, "--seed", "3"])
    assert isinstance(again.exception, ValueError)
    wrong = CliRunner().invoke(design_command, [*arguments, "-t", "gap=1"])
    assert "target must be one of" in str(wrong.exception)


def test_command_takes_the_hull_of_a_file(tmp_path: Path) -> None:
    start, phases = tmp_path / "nacl.cif", tmp_path / "phases.extxyz"
    salt = bulk("NaCl", "rocksalt", a=5.6)
    salt.write(start)
    chlorine = Atoms("Cl2", [[3, 3, 3], [3, 3, 5]], cell=[6, 6, 6], pbc=True)
    elements = [bulk("Na", "bcc", a=4.2), bulk("K", "bcc", a=5.3), chlorine]
    ase.io.write(phases, [*elements, salt])
    arguments = [str(start), "-o", str(tmp_path / "out"), "--budget", "2", "--method", "random"]
    arguments += ["--elements", "K", "--no-filter", "--caution", "1", "--hull", str(phases)]
    wrong = CliRunner().invoke(design_command, [*arguments, "-t", "band_gap=5"])
    assert "--hull needs a --target energy_above_hull" in wrong.output
    done = CliRunner().invoke(design_command, [*arguments, "-t", "energy_above_hull=:0.1"])
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "out" / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["cautions"] == [1.0]
    rows = [row for line in lines[1:] for row in json.loads(line)]
    start_value, potassium_chloride = (row["values"]["energy_above_hull"] for row in rows)
    assert start_value == pytest.approx(0.0, abs=1e-6)
    assert -3.0 < potassium_chloride < -1.0, "formed of elements that the hull knows alone"


@pytest.mark.slow
def test_command_filters(tmp_path: Path) -> None:
    start = tmp_path / "nacl.cif"
    bulk("NaCl", "rocksalt", a=5.6).write(start)
    arguments = [str(start), "-t", "band_gap=5.0~0.5", "-o", str(tmp_path / "out"), "--budget"]
    arguments += ["6", "--elements", "K Rb Br", "--top", "1"]
    done = CliRunner().invoke(design_command, arguments)
    assert done.exit_code == 0, done.output
    row = json.loads((tmp_path / "out" / "result.json").read_text())["candidates"][0]
    assert {"elastic eigenvalue below zero", "imaginary frequency at Gamma"} <= set(
        row["residuals"]
    )
    assert row["values_relaxed"] is not None


def test_derived_value_that_an_element_lacks_is_a_failure() -> None:
    from qdgnn_ase import Predictor

    evaluate = surrogate(Predictor(), [parse_target("cohesive_energy=max")])
    good, bad = evaluate([bulk("Cu"), bulk("Xe", "fcc", a=6.2)])
    assert not isinstance(good, str)
    assert bad == "no value: cohesive_energy"
