"""Labels, folds and arms of the benchmark of conditions."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from qdgnn_ase import relax
from qdgnn_bench import conditions as bench
from qdgnn_bench.condition_labels import SOLIDS, TEMPERATURES, Solid, heat_capacity
from qdgnn_bench.conditions import compare, make_rows, markdown, split

DULONG_PETIT = 24.94
T = np.array(TEMPERATURES)


def test_heat_capacity_of_copper() -> None:
    """Per atom, 3 R when hot, that of copper (24.4 J/(mol K)) at 300 K, that of the cubic cell."""
    pytest.importorskip("phonopy")
    found = []
    for cubic in (False, True):
        atoms = bulk("Cu", cubic=cubic)
        atoms.calc = EMT()
        relax(atoms, fmax=1e-4)
        capacity = heat_capacity(atoms)
        assert capacity is not None
        assert (np.diff(capacity) > 0).all()
        assert capacity[-1] == pytest.approx(DULONG_PETIT, rel=0.01)
        assert capacity[TEMPERATURES.index(300.0)] == pytest.approx(24.4, rel=0.05)
        found.append(capacity)
    np.testing.assert_allclose(*found, rtol=0.02)


def test_imaginary_modes_are_refused() -> None:
    pytest.importorskip("phonopy")
    atoms = bulk("Cu", "sc", a=2.4)
    atoms.calc = EMT()
    assert heat_capacity(atoms) is None


def test_table_of_solids() -> None:
    names = [entry.split()[0] for entries in SOLIDS.values() for entry in entries.split(", ")]
    assert len(set(names)) == len(names) >= 36
    for prototype, entries in SOLIDS.items():
        for entry in entries.split(", "):
            assert len(bulk(entry.split()[0], prototype, a=float(entry.split()[1]))) <= 2


def solids() -> list[Solid]:
    """Softer with a wider lattice."""
    made = []
    for name in ("LiF", "LiCl", "NaF", "NaCl", "KF", "KCl", "MgO", "CaO", "SrO"):
        a = 4.0 + 0.3 * (len(made) % 5)
        capacity = DULONG_PETIT * T / (T + 2000 / a**2)
        made.append(Solid(bulk(name, "rocksalt", a=a), name, capacity))
    return made


def test_every_formula_is_tested_once() -> None:
    rows = make_rows(solids())
    tests = [wanted for _, wanted in split(rows.formulas, 3)]
    assert sorted(np.concatenate(tests)) == list(range(90))
    for known, wanted in split(rows.formulas, 3):
        assert not {rows.formulas[k] for k in known} & {rows.formulas[k] for k in wanted}


def test_the_temperature_is_worth_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without it the model cannot tell rows of one solid apart."""
    names = ("all three terms", "no temperature")
    monkeypatch.setattr(bench, "ARMS", {name: bench.ARMS[name] for name in names})
    found = compare(make_rows(solids()), folds=3, steps=60)
    assert found["all three terms"]["difference"] == 0.0
    assert found["no temperature"]["difference_interval"][1] < 0
    assert found["mean of the training solids"]["mae"] < found["no temperature"]["mae"]
    document = {
        "solids": 9,
        "left out": [],
        "temperatures": list(TEMPERATURES),
        "folds": 3,
        "steps": 60,
        "date": "today",
        "machine": "this",
        "cpu_minutes": 0.1,
        "errors": found,
    }
    assert "| no temperature |" in markdown(document)
