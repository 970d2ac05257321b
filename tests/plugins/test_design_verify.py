"""The case study's check by DFT, with a backend that costs nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk

from qdgnn_design import bench_verify
from qdgnn_design.bench_verify import Relaxed, best_relaxed, verification, verification_lines
from qdgnn_design.evaluate import Values
from qdgnn_design.filters import Residual, Verdict
from qdgnn_design.problem import Outcome
from qdgnn_design.run import DesignResult, Ranked
from qdgnn_design.space import Candidate
from qdgnn_dft.backend import make_record
from qdgnn_dft.record import Record

STRUCTURES = [
    Relaxed("start", bulk("NaCl", "rocksalt", a=5.6), 5.1),
    Relaxed("1", bulk("KCl", "rocksalt", a=6.3), 4.9),
]


@dataclass
class Fake:
    """DFT that gives the same for all, counts, and does not converge for some element."""

    broken: str = ""
    name: str = "fake"
    n_attempts: int = 1
    computed: list[str] = field(default_factory=list)

    def settings(self, atoms: Atoms) -> dict[str, Any]:
        return {"backend": self.name, "cutoff_ev": 400.0, "k_mesh": [2, 2, 4]}

    def compute(self, atoms: Atoms, attempt: int, log_file: Path | None) -> Record:
        if self.broken in atoms.symbols:
            raise RuntimeError("did not converge")
        self.computed.append(str(atoms.symbols))
        values = {
            "energy": -1.0,
            "band_gap": 4.5,
            "forces": [[0.0, 0.3, 0.4], [0.0, 0.0, -0.1]],
            "stress": np.array([-1.0, -2.0, -3.0, 9.0, 9.0, 9.0]) * units.GPa,
        }
        provenance = {"version": "fake 1", "cpu_seconds": 120.0}
        return make_record(atoms, self.settings(atoms), values, provenance)


def test_dft_stands_beside_the_model_and_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Fake()
    monkeypatch.setattr(bench_verify, "gpaw", lambda: backend)
    document = verification(STRUCTURES, tmp_path)
    assert verification(STRUCTURES, tmp_path) == document
    assert backend.computed == ["NaCl", "KCl"]
    row = document["rows"][0]
    assert (row["band_gap_model"], row["band_gap_dft"]) == (5.1, 4.5)
    assert row["force"] == pytest.approx(0.5)
    assert row["pressure_gpa"] == pytest.approx(2.0), "compression is positive"
    text = verification_lines(document)
    assert "| start | NaCl | 5.10 | 4.50 | 0.50 | +2.0 | 400, 2 x 2 x 4 | 2 |" in text


def test_dft_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_verify, "gpaw", lambda: Fake(broken="K"))
    document = verification(STRUCTURES, tmp_path)
    assert "band_gap_dft" in document["rows"][0]
    assert "did not converge" in document["rows"][1]["failure"]
    assert any("did not converge" in line for line in verification_lines(document))


def test_without_gpaw_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpaw", None)
    document = verification(STRUCTURES, tmp_path)
    assert "make dft" in document["missing"]
    assert verification_lines(document)[0] == (
        "Not verified: GPAW is not installed (`make dft` brings it)."
    )
    assert not list(tmp_path.iterdir())


def test_best_that_pass_are_verified_and_hits_go_first() -> None:
    def ranked(symbol: str, *, hit: bool, passes: bool) -> Ranked:
        atoms, values = bulk(symbol), Values({"band_gap": 1.0})
        outcome = Outcome(Candidate(atoms), symbol, values, 0.0, hit)
        verdict = Verdict((Residual("force", 0.1 if passes else 2.0, 1.0, "eV/Å"),))
        return Ranked(outcome, verdict, atoms, values)

    candidates = (
        ranked("Al", hit=False, passes=True),
        ranked("Cu", hit=True, passes=True),
        ranked("Ag", hit=False, passes=True),
        ranked("Au", hit=True, passes=False),
    )
    result = DesignResult(cast("Any", None), candidates, 0)
    assert [(each.name, str(each.atoms.symbols)) for each in best_relaxed(result)] == [
        ("2", "Cu"),
        ("1", "Al"),
    ]
