"""The design benchmark: counting, resuming, tables, and the tasks with measures of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
import spglib
from ase import Atoms, units
from ase.build import bulk
from ase.formula import Formula
from ase.neighborlist import neighbor_list
from click.testing import CliRunner

pytest.importorskip("sb3_contrib")
pytest.importorskip("botorch")

from qdgnn_design import bench_verify
from qdgnn_design.bench import bench, run_one
from qdgnn_design.bench_case import case_study, lithium_thiophosphate
from qdgnn_design.bench_checks import speed
from qdgnn_design.bench_conflict import best_known, run_conflict
from qdgnn_design.bench_gap import learned_surrogate, run_gap
from qdgnn_design.bench_oracle import FastEMT, emt_values, strained_modulus
from qdgnn_design.bench_report import markdown, table
from qdgnn_design.bench_rows import cut_half_line, read_rows, resumed
from qdgnn_design.bench_sections import speed_lines
from qdgnn_design.bench_tasks import CATIONS, HIGH_CHARGES, Task, garnet
from qdgnn_design.evaluate import Values
from qdgnn_design.filters import Verdict, geometry_residuals
from qdgnn_design.oxidation import charges_of
from qdgnn_design.space import DesignSpace, SpaceConfig
from qdgnn_design.targets import Target


def tiny_task() -> Task:
    start = bulk("Cu", a=3.9) * (2, 1, 1)
    config = SpaceConfig(
        elements=("Cu", "Ag", "Au"), families=("substitute",), slots="sites", rescale=False
    )
    space = DesignSpace(start, config)

    def evaluator(structures: Sequence[Atoms]) -> list[Values | str]:
        return [Values(emt_values(atoms)) for atoms in structures]

    def goal(rng: np.random.Generator) -> tuple[Target, ...]:
        wanted = emt_values(space.walk(rng, 3).atoms)["bulk_modulus"]
        return (Target(name="bulk_modulus", low=wanted, high=wanted, tolerance=1e-6),)

    def features(structures: Sequence[Atoms]) -> np.ndarray:
        return np.array([space.encode(atoms) for atoms in structures])

    return Task("tiny", space, evaluator, features, goal, horizon=3)


def test_bench_counts_the_calls_to_the_hit() -> None:
    task = tiny_task()
    goal = task.draw_goal(np.random.default_rng(1))
    row = run_one(task, goal, "random", 0, None)
    assert 1 <= row["calls"] == row["evaluations"] <= 6  # six different decorations
    assert row["failed"] == row["rejected"] == 0


def test_half_a_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"a": 1}\n{"b": ')
    cut_half_line(path)
    assert path.read_text() == '{"a": 1}\n'
    cut_half_line(tmp_path / "none.jsonl")


@pytest.mark.slow
def test_speed_of_the_surrogate_and_of_t1() -> None:
    row = speed(n=3, processes=2)
    assert row["structures"] == 6
    assert row["atoms"] == 20
    assert row["t1_cpu_ms"] > 0
    both = float(speed_lines({"speed": row})[-1].split(": ")[-1].split()[0].replace(",", ""))
    assert 60e3 / both == pytest.approx(60e3 / row["per_cpu_minute"] + row["t1_cpu_ms"], rel=0.02)


def test_bench_report_says_who_wins() -> None:
    calls = {"hybrid": [10, 12, 9], "random": [60, None, 80], "goal": [5, 6, 4]}
    runs = [
        {"task": "t", "method": name, "goal": k, "seed": 0, "calls": n, "budget": 200}
        | {"evaluations": n or 200, "proposed": 200, "rejected": 1, "failed": 0}
        for name, values in calls.items()
        for k, n in enumerate(values)
    ]
    policy = {"task": "t", "steps": 100, "training_calls": 500, "cpu_seconds": 1}
    document = {
        "date": "2026-01-01",
        "machine": "m",
        "budgets": [50, 100, 200],
        "policies": [policy],
        "runs": runs,
        "conflict": [],
        "gap": [],
    }
    rows = table(document, "t")
    assert rows["random"]["shares"]["100"][0] == pytest.approx(2 / 3)
    assert rows["random"]["mean"][0] == pytest.approx((60 + 200 + 80) / 3)
    assert rows["random"]["difference"][1] > 0
    text = markdown(document)
    assert "`hybrid`, is ahead of random; behind goal" in text
    assert "Training `goal` cost 500 unique evaluations" in text
    assert f"pays after {500 / (31 / 3 - 5):.0f} goals" in text


def test_bench_names_the_methods_that_a_task_takes(tmp_path: Path) -> None:
    for task, name in (("gap", "goal"), ("EMT-fcc8", "newton")):
        arguments = ["-o", str(tmp_path), "--task", task, "--methods", f"random,{name}"]
        done = CliRunner().invoke(bench, arguments)
        assert done.exit_code == 2
        assert f"--methods of {task} must be of" in done.output
        assert f"got ['{name}']" in done.output


def test_bench_reports_what_was_run(tmp_path: Path) -> None:
    arguments = ["-o", str(tmp_path), "--report-only"]
    assert "must hold runs" in CliRunner().invoke(bench, arguments).output
    head = {"task": "EMT-fcc8", "goal": 0, "seed": 0, "evaluations": 9, "proposed": 9}
    head["budget"] = 500
    rows = [head | {"method": m, "calls": 9, "rejected": 0, "failed": 0} for m in ("hybrid", "ppo")]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "runs.jsonl").write_text(text + '{"task": "half a li')
    done = CliRunner().invoke(bench, arguments)
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "design.json").read_text())["runs"]) == 2
    assert (tmp_path / "design.png").stat().st_size > 1000


def test_rows_are_measured_once_and_half_a_line_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    heads = [{"method": name, "seed": seed} for seed in range(2) for name in ("a", "b")]
    measured: list[str] = []

    def measure(head: dict[str, object]) -> dict[str, object]:
        measured.append(f"{head['method']}{head['seed']}")
        return {"calls": 1}

    assert len(list(resumed(path, heads[:3], measure))) == 3
    path.write_text(path.read_text()[:-5])  # killed while it wrote the third
    assert [row["seed"] for row in resumed(path, heads, measure)] == [1, 1]
    assert measured == ["a0", "b0", "a1", "a1", "b1"]
    assert len(read_rows(path)) == 4


def test_strained_modulus_is_the_second_derivative_of_the_energy() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array @ np.diag([1.02, 0.99, 1.01]), scale_atoms=True)
    del atoms[0]

    def pressure(scale: float) -> float:
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array * scale ** (1 / 3), scale_atoms=True)
        moved.calc = FastEMT()
        return -float(moved.get_stress()[:3].mean())

    expected = -(pressure(1.001) - pressure(0.999)) / 0.002 / units.GPa
    assert strained_modulus(atoms) == pytest.approx(expected, rel=1e-2)
    assert strained_modulus(atoms) < 0.95 * strained_modulus(bulk("Cu", cubic=True))


def bounded_task() -> tuple[Task, tuple[Target, ...]]:
    """The tiny task and a goal that copper with gold meets, silver does not."""
    task = tiny_task()
    atoms = task.space.start.copy()
    atoms.symbols[:] = ["Au", "Au"]
    wanted = emt_values(atoms)["bulk_modulus"]
    return task, (Target(name="bulk_modulus", low=wanted, high=wanted, tolerance=1.0),)


def test_surrogate_that_has_seen_everything_leaves_no_gap() -> None:
    task, goal = bounded_task()
    model = learned_surrogate(task, goal, np.random.default_rng(0), n=6)
    row = run_gap(task, goal, "random", 0, model)
    assert row["judged"] == 6, "all decorations"
    assert row["claimed"] == row["true"] == row["both"] == 1


def test_surrogate_that_flatters_is_found_out() -> None:
    task, goal = bounded_task()

    def flattering(structures: Sequence[Atoms]) -> list[Values | str]:
        return [Values({"bulk_modulus": goal[0].low}) for _ in structures]

    row = run_gap(task, goal, "random", 0, flattering)
    assert row["claimed"] == row["judged"] == 6
    assert row["true"] == row["both"] == 1


def test_conflict_measures_the_front_of_what_was_evaluated() -> None:
    task = tiny_task()
    row = run_conflict(task, "random", 0)
    start = Atoms("Cu2", positions=task.space.start.positions, cell=task.space.start.cell, pbc=True)
    values = []
    for pair in combinations_with_replacement(("Cu", "Ag", "Au"), 2):
        start.symbols[:] = pair
        values.append(emt_values(start))
    corner = [(-v["formation_energy"], v["bulk_modulus"]) for v in values]
    front = [p for p in corner if not any(q[0] > p[0] and q[1] >= p[1] for q in corner)]
    assert {tuple(np.round(p, 6)) for p in row["front"]} <= {tuple(np.round(p, 6)) for p in front}
    assert row["hypervolume"]["50"] == row["hypervolume"]["200"] == pytest.approx(best_known([row]))
    assert row["evaluations"] == 6


def test_tables_of_conflict_and_gap_say_what_was_measured() -> None:
    run = {"task": "EMT-fcc8", "method": "hybrid", "goal": 0, "seed": 0, "calls": 20}
    run |= {"budget": 500, "evaluations": 20, "proposed": 20, "rejected": 0, "failed": 0}
    volumes = {"random": 5.0, "hybrid": 10.0}
    conflict = [
        {"method": name, "seed": seed, "evaluations": 200, "front": [[0.1, 100.0]]}
        | {"hypervolume": dict.fromkeys(("50", "100", "200"), size)}
        for name, size in volumes.items()
        for seed in range(2)
    ]
    gap = [
        {"method": "bayes", "goal": goal, "seed": 0, "calls": 50}
        | {"judged": 10, "claimed": 10, "true": 4, "both": 4}
        for goal in range(3)
    ]
    document = {"date": "d", "machine": "m", "budgets": [50, 500], "policies": [], "runs": [run]}
    text = markdown(document | {"conflict": conflict, "gap": gap})
    assert "| random | 2 | 50 % (50 to 50) " in text
    assert "| -50 % (-50 to -50) |" in text
    assert "Ahead of the default, `hybrid`: none." in text
    assert "| bayes | 3 x 1 | 50 | 100 % (100 to 100) | 40 % (40 to 40) | 60 % (60 to 60) |" in text
    assert "hit in: `hybrid` 100 % of the runs" in text, "one run has no interval"
    better = [replace_volume(row, 11.0) if row["method"] == "random" else row for row in conflict]
    assert "`hybrid`: random." in markdown(document | {"conflict": better, "gap": []})


def replace_volume(row: dict[str, object], size: float) -> dict[str, object]:
    return row | {"hypervolume": dict.fromkeys(("50", "100", "200"), size)}


def test_garnet_is_one_and_stays_neutral() -> None:
    config = SpaceConfig(elements=(*CATIONS, *HIGH_CHARGES), families=("substitute", "pair"))
    space = DesignSpace(garnet(), config)
    start = space.start
    cell = (start.cell.array, start.get_scaled_positions(), start.numbers)
    assert (len(start), spglib.get_spacegroup(cell)) == (80, "Ia-3d (230)")
    assert sorted(map(len, space.slots)) == [8, 12, 12, 48]
    oxygen, _ = neighbor_list("ij", start, {("Al", "O"): 2.1, ("Y", "O"): 2.6})
    around = np.bincount(oxygen, minlength=80)
    assert sorted({*around[start.numbers == 13]}) == [4, 6], "tetrahedra and octahedra"
    assert {*around[start.numbers == 39]} == {8}
    rng = np.random.default_rng(0)
    walks = [space.walk(rng, 6).atoms for _ in range(20)]
    assert all(Verdict(geometry_residuals(atoms)).passed for atoms in (start, *walks))
    assert any(charges_of(atoms).max() > 3 for atoms in walks), "pairs of other charges"
    assert len({space.key(atoms) for atoms in walks}) > 15


def test_case_starts_from_the_electrolyte() -> None:
    atoms = lithium_thiophosphate()
    assert str(atoms.symbols) == "Li6P2S8"
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    assert spglib.get_spacegroup(cell) == "Pmn2_1 (31)"
    first, _ = neighbor_list("ij", atoms, {("P", "S"): 2.15})
    assert (np.bincount(first, minlength=16)[atoms.numbers == 15] == 4).all(), "tetrahedra of PS4"
    lithium, _ = neighbor_list("ij", atoms, {("Li", "S"): 2.6})
    assert (np.bincount(lithium, minlength=16)[atoms.numbers == 3] == 4).all(), "and of LiS4"


@pytest.mark.slow
def test_case_study_tells_start_candidates_and_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ImportError("gpaw must be installed")

    monkeypatch.setattr(bench_verify, "gpaw", missing)  # minutes where it is there
    done = CliRunner().invoke(case_study, ["-o", str(tmp_path), "--budget", "6", "--top", "1"])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "case_study.json").read_text())
    best = document["candidates"][0]
    assert best["passed"] or best["reasons"]
    assert best["values_relaxed"] is not None
    table_text = (tmp_path / "case_study.md").read_text()
    assert f"| 1 | {Formula(best['formula']).format('metal')} |" in table_text
    assert f"{document['start_values']['band_gap']:.3g}" in table_text
    assert (tmp_path / "report.html").is_file()
    assert document["verification"] == {"missing": "gpaw must be installed"}
    assert "Not verified" in table_text
