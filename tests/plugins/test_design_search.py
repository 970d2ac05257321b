"""Targets, budget, filter, environment and every method, on an oracle that costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.data import covalent_radii

pytest.importorskip("sb3_contrib")
pytest.importorskip("botorch")

from gymnasium.utils.env_checker import check_env

from qdgnn_design import METHODS, bayes, method, optimise
from qdgnn_design.bench_oracle import FastEMT, emt_values
from qdgnn_design.env import DesignEnv
from qdgnn_design.evaluate import Evaluator, Values, from_functions
from qdgnn_design.filters import (
    Residual,
    Verdict,
    elastic_matrix,
    geometry_residuals,
    lowest_frequency,
)
from qdgnn_design.hull import energy_above_hull
from qdgnn_design.pareto import hypervolume, objectives, pareto_front
from qdgnn_design.policies import load_policy, train_goal_policy
from qdgnn_design.problem import BudgetSpent, EvaluationLog, Problem
from qdgnn_design.run import reachable_goals
from qdgnn_design.space import Candidate, DesignSpace, SpaceConfig
from qdgnn_design.targets import Target, is_hit, parse_target, score, squash
from qdgnn_design.vector_env import BatchedDesignEnv


def radius(atoms: Atoms) -> float:
    return float(covalent_radii[atoms.numbers].mean())


def unlikeness(atoms: Atoms) -> float:
    """Differs between arrangements of one composition."""
    radii = covalent_radii[atoms.numbers]
    return float(abs(radii[0] - radii[1]) + abs(radii[2] - radii[3]))


TARGETS = (
    Target(name="radius", low=1.38, high=1.38, tolerance=0.01, function=radius),
    Target(name="unlikeness", goal="maximise", tolerance=0.1, function=unlikeness),
)


def space() -> DesignSpace:
    config = SpaceConfig(
        elements=("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"),
        families=("substitute", "swap"),
        slots="sites",
        rescale=False,
    )
    return DesignSpace(bulk("Cu", cubic=True), config)


def problem(budget: int = 30, targets: Sequence[Target] = TARGETS, **options: object) -> Problem:
    evaluator = options.pop("evaluator", None) or from_functions(targets)
    return Problem(space(), targets, evaluator, budget=budget, **options)  # type: ignore[arg-type]


SLOW = ("bayes", "hybrid", "reinforce")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in METHODS
        if name != "goal"
    ],
)
def test_method_spends_the_budget_and_repeats(name: str) -> None:
    budget = 14 if name in ("bayes", "hybrid") else 24
    runs = [
        optimise(problem(budget), method(name, horizon=4), np.random.default_rng(3))
        for _ in range(2)
    ]
    keys = [[outcome.key for outcome in run.outcomes] for run in runs]
    assert keys[0] == keys[1]
    assert len(keys[0]) == len(set(keys[0])) == budget
    assert runs[0].best is not None
    assert runs[0].best.score > runs[0].outcomes[0].score


def test_other_seeds_search_elsewhere() -> None:
    runs = [optimise(problem(24), method("random"), np.random.default_rng(k)) for k in range(2)]
    assert {o.key for o in runs[0].outcomes} != {o.key for o in runs[1].outcomes}


def test_unknown_method_lists_the_known() -> None:
    with pytest.raises(ValueError, match="hill-climb"):
        method("luck")


def test_equivalent_structures_cost_one_evaluation() -> None:
    calls: list[int] = []

    def counting(structures: Sequence[Atoms]) -> list[Values | str]:
        calls.append(len(structures))
        return from_functions(TARGETS)(structures)

    task = problem(evaluator=counting)
    start = Candidate(task.space.start)
    shifted = start.atoms.copy()
    shifted.positions += shifted.cell.array[0]
    outcomes = task([start, start, Candidate(shifted)])
    assert calls == [1]
    assert len({outcome.key for outcome in outcomes}) == task.spent == 1
    assert task.n_proposed == 3


def test_failures_and_rejections_are_told_apart() -> None:
    def failing(structures: Sequence[Atoms]) -> list[Values | str]:
        return ["did not converge" for _ in structures]

    task = problem(evaluator=failing)
    overlapping = task.space.start.copy()
    overlapping.positions[1] = overlapping.positions[0] + 0.3
    failed, rejected = task([Candidate(task.space.start), Candidate(overlapping)])
    assert (failed.values, failed.score, failed.reasons) == (None, -np.inf, ("did not converge",))
    assert failed.call == 1
    assert rejected.call == 0
    assert "shortest distance" in rejected.reasons[0]
    assert task.spent == 1
    assert task.n_rejected == 1


def test_values_that_are_not_finite_are_failures() -> None:
    nan = Target(name="broken", function=lambda _: float("nan"))
    outcome = problem(targets=[nan])([Candidate(space().start)])[0]
    assert outcome.reasons == ("not finite: broken",)


def test_log_replays_and_cuts_a_half_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    def run(evaluator: Evaluator) -> list[tuple[str, float]]:
        log = EvaluationLog(path, {"seed": 1})
        task = optimise(
            problem(12, evaluator=evaluator, log=log),
            method("hill-climb"),
            np.random.default_rng(1),
        )
        log.close()
        return [(outcome.key, outcome.score) for outcome in task.outcomes]

    first = run(from_functions(TARGETS))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    assert run(from_functions(TARGETS)) == first

    def never(_: Sequence[Atoms]) -> list[Values | str]:
        raise RuntimeError("all of it is in the log")

    assert run(never) == first


def test_log_refuses_another_run_and_a_second_writer(tmp_path: Path) -> None:
    log = EvaluationLog(tmp_path / "log.jsonl", {"seed": 1})
    with pytest.raises(BlockingIOError, match="one writer"):
        EvaluationLog(tmp_path / "log.jsonl", {"seed": 1})
    log.close()
    with pytest.raises(ValueError, match="same start, targets, method and seed"):
        EvaluationLog(tmp_path / "log.jsonl", {"seed": 2})


def test_stops_at_a_hit() -> None:
    target = [TARGETS[0]]
    task = optimise(
        problem(500, target, enough_hits=1), method("hill-climb"), np.random.default_rng(0)
    )
    assert task.outcomes[-1].hit
    assert not any(outcome.hit for outcome in task.outcomes[:-1])
    assert abs(radius(task.outcomes[-1].candidate.atoms) - 1.38) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bayes", "hybrid"])
def test_more_hits_are_wanted_from_the_first_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the first hit nothing changes, bit by bit; so runs that end there stay valid."""

    def keys(wants_hits: Callable[[Problem], bool]) -> list[str]:
        monkeypatch.setattr(bayes, "_wants_hits", wants_hits)
        task = optimise(problem(26, target), method(name, horizon=4), np.random.default_rng(5))
        hits.append([outcome.hit for outcome in task.outcomes].index(True))
        return [outcome.key for outcome in task.outcomes]

    target, hits = [replace(TARGETS[0], low=1.40, high=1.40, tolerance=0.003)], list[int]()
    ours, never = keys(bayes._wants_hits), keys(lambda _: False)
    first = hits[0]
    assert hits == [first, first]
    assert 10 <= first < 24, "after the random start, before the end"
    assert ours[: first + 1] == never[: first + 1]
    assert ours != never


def test_hits_are_counted_where_ranges_leave_no_more_to_gain() -> None:
    task, both = problem(60, [TARGETS[0]]), problem(60)
    assert not bayes._wants_hits(task)
    for each in (task, both):
        optimise(each, method("random"), np.random.default_rng(0))
        assert each.n_hits > 3
    assert bayes._wants_hits(task)
    assert not bayes._wants_hits(both), "a maximised target can always improve"
    ranked = sorted(task.outcomes, key=lambda outcome: -outcome.score)
    rng = np.random.default_rng(1)
    orders = [bayes._among_the_best(ranked, rng, n_hits=3) for _ in range(200)]
    best = {outcome.key for outcome in ranked[:10]}
    assert all({o.key for o in order[:10]} == best for order in orders)
    assert {order[0].key for order in orders} == best
    assert all(order[10:] == ranked[10:] for order in orders)
    many = bayes._among_the_best(ranked, rng, n_hits=20)
    assert {o.key for o in many[:20]} == {o.key for o in ranked[:20]}
    assert len(bayes._among_the_best(ranked[:4], rng, n_hits=1)) == 4


def test_likeliest_hits_are_chosen() -> None:
    hits = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], float)
    scores = np.array([[-9.0, -1.0, -0.5, -0.1]] * 4)
    assert bayes._likeliest(hits, scores, 2) == [0, 1]
    assert bayes._likeliest(hits, scores, 3) == [0, 1, 3], "the better mean where shares are equal"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("band_gap=1.3", ("range", 1.3, 1.3, 0.1, 1.0)),
        ("band_gap=1.2:1.5~0.2*3", ("range", 1.2, 1.5, 0.2, 3.0)),
        ("bulk_modulus=100:", ("range", 100, np.inf, 5.0, 1.0)),
        ("bulk_modulus=max", ("maximise", -np.inf, np.inf, 1.0, 1.0)),
        ("formation_energy=min*2", ("minimise", -np.inf, np.inf, 0.05, 2.0)),
    ],
)
def test_targets_are_read(text: str, expected: tuple[object, ...]) -> None:
    target = parse_target(text)
    found = (target.goal, target.low, target.high, target.tolerance, target.weight)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("band_gap", "must be NAME=VALUE"),
        ("band_gap=wide", "must be NAME=VALUE"),
        ("band_gap=2:1", "low must not exceed high"),
        ("band_gap=1~0", "tolerance and weight must be > 0"),
        ("gap=1", "target must be one of"),
    ],
)
def test_bad_targets_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_target(text)


def test_score_is_the_squared_distance() -> None:
    gap, energy = parse_target("band_gap=1.3"), parse_target("formation_energy=min")
    assert score({"band_gap": 1.5}, [gap]) == pytest.approx(-4.0)
    assert score({"band_gap": 1.3, "formation_energy": -1.0}, [gap, energy]) == pytest.approx(20)
    assert is_hit({"band_gap": 1.39}, [gap])
    assert not is_hit({"band_gap": 1.41}, [gap])
    assert not is_hit({"formation_energy": -9.0}, [energy])
    assert squash(-np.inf) == -np.inf
    assert all(a < b for a, b in pairwise(squash(s) for s in (-9.0, -1.0, 0.0, 0.5, 7.0)))


def test_uncertainty_costs_what_caution_says() -> None:
    gap, plain = replace(parse_target("band_gap=1.3"), caution=2.0), parse_target("band_gap=1.3")
    values, std = {"band_gap": 1.5}, {"band_gap": 0.05}
    assert score(values, [gap], std) == pytest.approx(-4.0 - 2.0 * 0.05 / 0.1)
    assert score(values, [gap]) == score(values, [plain], std) == pytest.approx(-4.0)
    with pytest.raises(ValueError, match="caution >= 0"):
        replace(gap, caution=-1.0)


def test_hull_of_two_elements_and_an_alloy() -> None:
    """Above the hull by hand: formation energies of L1_0 and of L1_2 on the line beyond it."""

    def energy(atoms: Atoms) -> float:
        copy = atoms.copy()
        copy.calc = EMT()
        return float(copy.get_potential_energy()) / len(copy)

    copper, platinum, alloy = bulk("Cu"), bulk("Pt"), bulk("Cu", cubic=True)
    alloy.symbols[:2] = "Pt"
    alloy.set_cell(alloy.cell * 1.04, scale_atoms=True)
    above = energy_above_hull([copper, platinum, alloy], EMT())
    formation = energy(alloy) - (energy(copper) + energy(platinum)) / 2
    assert formation < 0
    assert above(alloy.repeat((2, 1, 1))) == pytest.approx(0.0, abs=1e-9)
    third = alloy.copy()
    third.symbols[:] = ["Pt", "Cu", "Cu", "Cu"]
    mixed = 0.75 * energy(copper) + 0.25 * energy(platinum) + 0.5 * formation
    assert above(third) == pytest.approx(energy(third) - mixed)
    assert energy_above_hull([copper, platinum], EMT())(alloy) == pytest.approx(formation)
    with pytest.raises(ValueError, match=r"no phase with \['Al'\]"):
        above(bulk("Al"))
    with pytest.raises(ValueError, match=r"got none for \['Pt'\]"):
        energy_above_hull([copper, alloy], EMT())
    with pytest.raises(ValueError, match="at least one structure"):
        energy_above_hull([], EMT())


def test_lowest_frequency_of_a_compressed_pair() -> None:
    """Turning it gains energy: omega^2 = 2 E'(r) / (r m), negative; fcc copper has no such mode."""
    distance, step = 0.9, 1e-4
    pair = Atoms("H2", [[0, 0, 0], [0, 0, distance]])

    def energy(r: float) -> float:
        moved = Atoms("H2", [[0, 0, 0], [0, 0, r]], calculator=MorsePotential())
        return float(moved.get_potential_energy())

    slope = (energy(distance + step) - energy(distance - step)) / (2 * step)
    omega = np.sqrt(-2 * slope / (distance * pair.get_masses()[0])) * units.second
    wanted = -omega / (2e12 * np.pi)
    assert lowest_frequency(pair, MorsePotential(), step=1e-3) == pytest.approx(wanted, rel=1e-3)
    copper = bulk("Cu", a=3.5936, cubic=True)
    assert abs(lowest_frequency(copper, EMT())) < 0.05


def test_pareto_front_and_hypervolume() -> None:
    values = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [1.0, 1.0], [2.0, 2.0]])
    assert pareto_front(values) == [0, 1, 2]
    assert hypervolume(values, np.zeros(2)) == pytest.approx(6.0)
    assert hypervolume(values, np.full(2, 5.0)) == 0.0
    rows = [{"band_gap": 1.5, "formation_energy": -1.0}]
    targets = [parse_target("band_gap=1.3"), parse_target("formation_energy=min")]
    assert objectives(rows, targets) == pytest.approx(np.array([[-2.0, 20.0]]))


def test_filter_adds_shares_and_names_the_worst() -> None:
    kept = Verdict((Residual("a", 0.4, 1.0, "eV"), Residual("b", -0.5, 1.0, "e")))
    assert kept.passed
    assert kept.total == pytest.approx(0.9)
    assert kept.reasons == []
    broken = Verdict((*kept.residuals, Residual("c", 2.0, 10.0, "GPa")))
    assert not broken.passed
    assert broken.reasons[0].startswith("b -0.5 e")
    assert Verdict((Residual("a", np.nan, 1.0, ""),)).total == np.inf
    assert not Verdict(geometry_residuals(Atoms("Cu2", [[0, 0, 0], [0, 0, np.nan]]))).passed


def test_elastic_matrix_of_copper_and_of_an_unstable_lattice() -> None:
    """Bulk modulus as from the parabola of energies; bcc copper breaks the Born criteria."""
    copper = bulk("Cu", a=3.5936, cubic=True)
    elastic = elastic_matrix(copper, EMT())
    assert np.abs(elastic - elastic.T).max() < 1.0
    assert np.linalg.eigvalsh(elastic)[0] > 10
    modulus = (elastic[0, 0] + 2 * elastic[0, 1]) / 3
    assert modulus == pytest.approx(emt_values(copper)["bulk_modulus"], rel=0.03)
    bcc = elastic_matrix(bulk("Cu", "bcc", a=2.86), EMT())
    assert np.linalg.eigvalsh(bcc)[0] < 0


def test_fast_emt_is_emt() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[:] = ["Al", "Au", "Pt", "Cu"]
    atoms.rattle(0.1, seed=0)
    results = []
    for calculator in (EMT(), FastEMT()):
        atoms.calc = calculator
        results.append((atoms.get_potential_energy(), *atoms.get_stress(), *atoms.get_forces()[0]))
    assert results[0] == pytest.approx(results[1], abs=1e-8)


@pytest.mark.parametrize("observe", ["space", "features"])
def test_env_follows_gymnasium(observe: str) -> None:
    check_env(DesignEnv(problem(10_000), horizon=5, observe=observe), skip_render_check=True)


def test_env_rewards_and_ends() -> None:
    env = DesignEnv(problem(500, [TARGETS[0]]), horizon=6)
    rng = np.random.default_rng(0)
    for _ in range(5):
        observation, _ = env.reset(seed=int(rng.integers(99)))
        assert env.observation_space.contains(observation)
        total, ended = 0.0, False
        first = squash(score({"radius": radius(env.candidate.atoms)}, env.targets))
        while not ended:
            action = rng.choice(np.flatnonzero(env.action_masks()))
            _, reward, hit, truncated, info = env.step(np.int64(action))
            total, ended = total + reward, hit or truncated
        last = squash(info["score"])
        assert total == pytest.approx(last - first + info["hit"])
    env.reset()
    masked = np.int64(np.flatnonzero(~env.action_masks())[0])
    assert env.step(masked)[1:3] == (-1.0, True)


def test_env_punishes_a_failure_and_ends() -> None:
    target = Target(name="x", function=lambda atoms: 1.0 if len(set(atoms.numbers)) == 1 else 1e999)
    env = DesignEnv(problem(50, [target]))
    env.reset(seed=0)
    _, reward, ended, _, info = env.step(np.int64(np.flatnonzero(env.action_masks())[0]))
    assert (reward, ended, info["reasons"]) == (-1.0, True, ("not finite: x",))


def test_vector_env_is_many_envs() -> None:
    single = DesignEnv(problem(500), horizon=3)
    batched = BatchedDesignEnv([DesignEnv(problem(500), horizon=3) for _ in range(3)])
    batched.seed(5)
    alone, _ = single.reset(seed=5)
    together = batched.reset()
    assert np.array_equal(together[0], alone)
    for _ in range(3):
        masks = np.stack(batched.env_method("action_masks"))
        assert np.array_equal(masks[0], single.action_masks())
        actions = masks.argmax(axis=1)
        alone, reward, hit, truncated, _ = single.step(actions[0])
        together, rewards, ended, infos = batched.step(actions)
        assert rewards[0] == pytest.approx(reward)
        assert ended[0] == (hit or truncated)
        last = infos[0]["terminal_observation"] if ended[0] else together[0]
        assert np.array_equal(last, alone)


@pytest.mark.slow
def test_goal_policy_is_saved_loaded_and_checked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = problem(400)
    goals = reachable_goals(task, rng, 4, n=16)
    drawn = goals(rng)
    assert drawn[0].low == drawn[0].high
    assert drawn[1] == TARGETS[1]
    path = tmp_path / "policy.zip"
    calls = train_goal_policy(task, rng, goals, path, steps=64, horizon=4)
    assert 16 < calls == task.spent <= 400
    policy = load_policy(path)
    run = optimise(problem(20), method("goal", policy=policy, horizon=4), np.random.default_rng(0))
    again = optimise(
        problem(20), method("goal", policy=policy, horizon=4), np.random.default_rng(0)
    )
    assert [o.key for o in run.outcomes] == [o.key for o in again.outcomes]
    mixed = optimise(
        problem(9), method("hybrid", policy=policy, horizon=4), np.random.default_rng(0)
    )
    assert mixed.spent == 9
    with pytest.raises(ValueError, match="trained for this start"):
        method("goal", policy=policy)(problem(20, TARGETS[:1]), rng)
    with pytest.raises(FileNotFoundError, match="saved policy"):
        load_policy(tmp_path / "none.zip")


def test_budget_ends_with_an_exception() -> None:
    task = problem(2)
    rng = np.random.default_rng(0)
    with pytest.raises(BudgetSpent):
        task([task.space.walk(rng, 3) for _ in range(5)])
    assert task.spent == 2
    with pytest.raises(ValueError, match="budget must be at least 1"):
        problem(0)
