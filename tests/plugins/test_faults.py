"""Every fault case for ours, and controls: bad calculators must be caught by the same cases."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, InputError, all_changes
from ase.calculators.emt import EMT
from click.testing import CliRunner

from qdgnn_ase import ExtrapolationWarning, QDGNNCalculator, load_model
from qdgnn_bench import (
    Case,
    NotApplicable,
    Subject,
    all_cases,
    emt,
    m3gnet,
    ours,
    run_faults,
    score,
    summarise,
)
from qdgnn_bench import cli as bench_cli

CASES = {f"{case.fault}: {case.name}": case for case in all_cases()}
SLOW = {"killed worker: kill -9 in epoch 2, resumed"}


@pytest.fixture(scope="module")
def our() -> Subject:
    return ours()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in CASES]
)
def test_ours_does_as_the_table_says(name: str, our: Subject) -> None:
    result = score(CASES[name], our)
    assert result.outcome == "ok", result.detail


def test_table_covers_every_class() -> None:
    assert len(CASES) == len(all_cases()), "case names must be unique"
    assert len(CASES) >= 40
    assert len({case.fault for case in CASES.values()}) >= 20
    for case in CASES.values():
        assert case.expected == "value" or case.message, f"{case.name} promises no message"


class Fearless(Calculator):
    """Has a number for everything."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = (), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        forces = np.zeros((len(self.atoms), 3))
        self.results = {"energy": -1.0, "forces": forces, "stress": np.zeros(6)}


class Clusters(EMT):
    """Takes everything for a cluster."""

    def calculate(self, atoms: Atoms, *args: Any) -> None:  # type: ignore[override]
        atoms = atoms.copy()
        atoms.pbc = False
        super().calculate(atoms, *args)


class AllOrNothing(EMT):
    """Takes slabs and wires for clusters."""

    def calculate(self, atoms: Atoms, *args: Any) -> None:  # type: ignore[override]
        atoms = atoms.copy()
        atoms.pbc = atoms.pbc.all()
        super().calculate(atoms, *args)


class Single(EMT):
    """Rounds positions to float32 before it looks at them."""

    def calculate(self, atoms: Atoms, *args: Any) -> None:  # type: ignore[override]
        atoms = atoms.copy()
        atoms.positions = atoms.positions.astype(np.float32)
        super().calculate(atoms, *args)


class Forgetful(QDGNNCalculator):
    """Keeps the results of the structure before when it fails."""

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        before = self.results
        try:
            super().calculate(*args, **kwargs)
        except InputError:
            self.results = before
            raise


def subject(calculator: Any, **options: Any) -> Subject:
    return Subject(
        name="control",
        calculator=calculator,
        read=lambda path: bulk("Cu"),
        unseen=("Si", "Fe"),
        **options,
    )


@pytest.mark.parametrize(
    "name", [n for n, c in CASES.items() if not c.ours_only and c.expected != "value"]
)
def test_fearless_calculator_is_silent(name: str) -> None:
    """Where an error or a warning is due; a constant may be the right value."""
    assert score(CASES[name], subject(Fearless)).outcome == "silent"


@pytest.mark.parametrize(
    ("calculator", "fault", "name"),
    [
        (AllOrNothing, "mixed pbc", "slab, no third vector"),
        (AllOrNothing, "mixed pbc", "slab, axes permuted"),
        (AllOrNothing, "mixed pbc", "wire, one vector"),
        (Clusters, "far-translated", "atoms by different lattice vectors"),
        (Single, "far-translated", "crystal by 1e6 Å"),
        (Single, "far-translated", "cluster by 1e6 Å"),
    ],
)
def test_wrong_value_is_silent(calculator: Any, fault: str, name: str) -> None:
    assert score(CASES[f"{fault}: {name}"], subject(calculator)).outcome == "silent"
    assert score(CASES[f"{fault}: {name}"], subject(EMT)).outcome == "ok"


def test_stale_result_is_silent() -> None:
    case = CASES["stale results: energy after a failed calculation"]
    assert score(case, subject(Forgetful, is_ours=True)).outcome == "silent"


def case_of(probe: Any, **options: Any) -> Case:
    return Case(name="n", fault="f", probe=probe, **{"expected": "error", **options})


def raising(error: Exception) -> Any:
    def probe(subject: Subject, folder: Path) -> float:
        raise error

    return probe


def warning(*messages: str) -> Any:
    def probe(subject: Subject, folder: Path) -> float:
        for message in messages:
            warnings.warn(message, ExtrapolationWarning, stacklevel=1)
        return 1.0

    return probe


@pytest.mark.parametrize(
    ("error", "our_outcome"),
    [
        (InputError("must be finite"), "ok"),
        (InputError("something else"), "loud"),
        (ValueError("must be finite"), "loud"),
    ],
)
def test_ours_is_held_to_type_and_message(error: Exception, our_outcome: str) -> None:
    case = case_of(raising(error), message="must be finite")
    assert score(case, subject(EMT, is_ours=True)).outcome == our_outcome
    assert score(case, subject(EMT)).outcome == "ok"


@pytest.mark.parametrize(
    ("messages", "our_outcome", "peer_outcome"),
    [
        ((), "silent", "silent"),
        (("too close",), "ok", "ok"),
        (("another",), "loud", "ok"),
        (("too close", "too close"), "loud", "ok"),
    ],
)
def test_ours_warns_once(messages: tuple[str, ...], our_outcome: str, peer_outcome: str) -> None:
    case = case_of(warning(*messages), expected="warning", message="too close")
    assert score(case, subject(EMT, is_ours=True)).outcome == our_outcome
    assert score(case, subject(EMT)).outcome == peer_outcome


@pytest.mark.parametrize(
    ("expected", "number", "outcome"),
    [
        ("value", 0.5, "ok"),
        ("value", 2.0, "silent"),
        ("value", np.inf, "silent"),
        ("value", np.nan, "loud"),
        ("error", 2.0, "silent"),
        ("error", np.nan, "loud"),
        ("warning", np.nan, "loud"),
    ],
)
def test_numbers_are_judged(expected: Any, number: float, outcome: str) -> None:
    case = case_of(lambda subject, folder: number, expected=expected)
    assert score(case, subject(EMT)).outcome == outcome


def test_cases_that_do_not_apply() -> None:
    for case in (
        case_of(raising(NotApplicable("why"))),
        case_of(raising(ValueError()), skip={"control": "why"}),
        case_of(raising(ValueError()), ours_only=True),
    ):
        assert score(case, subject(EMT)).outcome == "-"


def test_distant_parts_are_right_in_float64() -> None:
    network = load_model("default")[0]
    dimer = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])
    far = dimer.copy()
    far.positions += 2e5
    both = dimer + far
    dimer.calc, both.calc = (QDGNNCalculator(network, dtype="float64") for _ in range(2))
    assert both.get_potential_energy() == pytest.approx(2 * dimer.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(both.get_forces(), np.tile(dimer.get_forces(), (2, 1)), atol=1e-8)


@pytest.fixture
def two_cases(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Case]]:
    cases = [CASES["empty structure: no atoms"], CASES["single atom: its force is zero"]]
    monkeypatch.setattr("qdgnn_bench.run.all_cases", lambda: cases)
    return cases


def test_command_reports_success(two_cases: list[Case], tmp_path: Path) -> None:
    output = tmp_path / "faults.json"
    result = CliRunner().invoke(bench_cli.faults, ["--ours-only", "--json", str(output)])
    assert result.exit_code == 0, result.output
    assert "ours: 2 fault classes, 2 cases, 0 silent wrong answers" in result.output
    document = json.loads(output.read_text())
    assert document["summary"]["ours"] == {
        "fault_classes": 2,
        "cases": 2,
        "ok": 2,
        "loud": 0,
        "silent": 0,
    }
    assert [row["outcome"] for row in document["results"]] == ["ok", "ok"]


def test_command_fails_with_ours(two_cases: list[Case]) -> None:
    two_cases.append(case_of(lambda subject, folder: 3.0))
    result = CliRunner().invoke(bench_cli.faults, ["--ours-only"])
    assert result.exit_code == 1
    assert "1 silent wrong answers" in result.output
    assert "ours failed f, n: answers 3" in result.output


def test_command_runs_without_matgl(two_cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Subject:
        raise ImportError("No module named 'matgl'")

    monkeypatch.setattr(bench_cli, "m3gnet", absent)
    result = CliRunner().invoke(bench_cli.faults)
    assert result.exit_code == 0, result.output
    assert "M3GNet: not installed" in result.output
    assert "EMT: 2 fault classes, 2 cases" in result.output


@pytest.mark.slow
def test_peers_take_the_same_cases() -> None:
    pytest.importorskip("matgl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of matgl's own imports
        peers = [emt(), m3gnet()]
    cases = [case for case in CASES.values() if not case.ours_only]
    results = [result for row in run_faults(peers, cases) for result in row]
    summary = summarise(results)
    for peer in peers:
        assert summary[peer.name]["cases"] >= 40
        assert summary[peer.name]["ok"] >= 20
    known = {(r.subject, r.case): r.outcome for r in results}
    assert known["EMT", "NaN for all atoms"] == "ok"
    assert known["EMT", "slab, no third vector"] == "ok"
    assert known["M3GNet", "NaN for all atoms"] == "silent"  # finite energy, zero forces
    assert known["M3GNet", "slab, no third vector"] == "silent"  # taken for a cluster
