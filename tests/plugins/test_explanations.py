"""Faithfulness benchmark: choices, changes, winners, on a function whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from click.testing import CliRunner

from qdgnn_ase import Explainer, Split, reduced_formula
from qdgnn_bench.explanations import (
    METHODS,
    SHARES,
    Faithfulness,
    choose_structures,
    explanations,
    measure,
    summarise,
)
from qdgnn_bench.explanations_report import tables

ELEMENTS = ("Li", "Na", "K", "Rb", "Cs", "Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al", "Ca", "Sr")
FORMULAS = [a + b for a in ELEMENTS for b in ("O", "F", "Cl", "Br")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "crystals.jsonl"
    rows = []
    for name in FORMULAS:
        atoms = bulk(name, "rocksalt", a=4.8)
        scaled = atoms.get_scaled_positions().tolist()
        cell = atoms.cell.tolist()
        rows.append({"lattice": cell, "species": list(atoms.symbols), "frac_coords": scaled})
    path.write_text("\n".join(json.dumps(row) for row in [*rows, rows[0]]))
    return path


def results(by_method: float, by_rival: float) -> list[Faithfulness]:
    rng = np.random.default_rng(0)
    names = [*METHODS, *(f"{name}, untrained" for name in METHODS), "shortest", "random"]
    rows = []
    for _ in range(60):
        changes = {
            name: (by_method if name in METHODS else by_rival) + rng.normal(size=len(SHARES))
            for name in names
        }
        pairs = {(a, b): 0.5 for k, a in enumerate(METHODS) for b in METHODS[k + 1 :]}
        rows.append(Faithfulness(changes, changes, pairs))
    return rows


@pytest.mark.parametrize(
    ("by_method", "by_rival", "winner"), [(3.0, 1.0, "method"), (1.0, 3.0, "rival"), (2, 2, None)]
)
def test_who_wins(by_method: float, by_rival: float, winner: str | None) -> None:
    """Also the controls: a method that loses is said to lose, equal ones tie."""
    rows = summarise(results(by_method, by_rival))["comparisons"]
    assert len(rows) == len(METHODS) * 3 * len(SHARES)
    named = [row["winner"] == (row[winner] if winner else "neither") for row in rows]
    assert np.mean(named) > (0.99 if winner else 0.8)
    assert all(row["interval"][0] <= row["difference"] <= row["interval"][1] for row in rows)


def test_measure_on_a_crystal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qdgnn_bench.explanations.METHODS", ("integrated", "attention"))
    trained = Explainer("formation_energy")
    rng = np.random.default_rng(1)
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    found = measure(atoms, trained, trained.untrained(), rng)
    assert set(found.removed) == set(found.kept)
    assert len(found.removed) == 2 * 2 + 2
    whole = trained(atoms)
    # the shortest fifth are Na-Cl neighbours: equal by symmetry, so any choice will do
    count = round(0.2 * len(whole.bonds))
    strengths = np.ones((1, len(whole.bonds)))
    strengths[0, whole.ranking()[:count]] = 0
    change = abs(trained.values(atoms, strengths)[0] - whole.value)
    assert found.removed["integrated"][2] == pytest.approx(change, rel=0.5)
    assert found.removed["random"][2] < found.removed["integrated"][2]


def test_choice_of_structures(file: Path) -> None:
    split = Split("test", val=0.1, test=0.5, seed=0)
    wanted = sum(split.holds(reduced_formula(bulk(name, "rocksalt", a=4.8))) for name in FORMULAS)
    chosen = choose_structures(str(file), split, 100, max_atoms=2, seed=0)
    assert len(chosen) == wanted > 2
    assert len({str(atoms.symbols) for atoms in chosen}) == len(chosen)
    assert choose_structures(str(file), split, 2, max_atoms=2, seed=0) == chosen[:2]
    assert choose_structures(str(file), split, 2, max_atoms=1, seed=0) == []


def test_command(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qdgnn_bench.explanations.METHODS", ("gradient", "attention"))
    out, page = tmp_path / "new" / "explain.json", tmp_path / "explain.md"
    arguments = [str(file), "--structures", "2", "--json", str(out), "--markdown", str(page)]
    result = CliRunner().invoke(explanations, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    assert (document["structures"], document["fold"], document["unit"]) == (2, "test", "eV/atom")
    assert page.read_text() == tables(document)
    assert all(row["mean"] >= 0 for column in document["removed"].values() for row in column)


def test_too_few_structures(file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(explanations, [str(file), "--structures", "50"])
    assert result.exit_code == 2
    assert "must hold 50 formulas of the test fold" in result.output


def test_tables_are_markdown() -> None:
    head = {"target": "band_gap", "unit": "eV", "model": "m", "file": "f", "fold": "test"}
    head |= {"structures": "60", "max_atoms": "8", "date": "d", "machine": "c", "torch": "t"}
    text = tables({**head, **summarise(results(3.0, 1.0))})
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows[: 2 + 4 * (len(METHODS) + 1)]}) == 1
    assert "| integrated | random | 5 % |" in text
    assert "- integrated against random: 3 won, 0 lost, 0 undecided" in text
