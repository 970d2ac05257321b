"""The study on DFT labels, without DFT: records made by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from ase import Atoms
from click.testing import CliRunner

from qdgnn_ase import LabelledStructure, resampled_weights
from qdgnn_bench.dft_labels import BACKEND, ELEMENTS, chosen, dft_labels, sorted_out
from qdgnn_bench.dft_labels_study import ARMS, agreement, by_elements, markdown, study
from qdgnn_dft import bench, bench_convergence
from qdgnn_dft.backend import make_record
from qdgnn_dft.record import Record

CATIONS = ("Na", "K", "Ca", "Sr", "Ba", "Mg", "Zn", "Cd", "Li", "Rb")
ANIONS = ("O", "S", "N", "F")


def crystal(cation: str, anion: str, lattice: float = 4.2) -> Atoms:
    return Atoms(
        [cation, anion],
        scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)],
        cell=[lattice] * 3,
        pbc=True,
    )


def row(atoms: Atoms, gap: float = 0.0, energy: float = -1.0) -> LabelledStructure:
    return LabelledStructure(atoms, {"band_gap": gap, "formation_energy": energy}, "test")


def record(atoms: Atoms, gap: float, energy: float) -> Record:
    values = {
        "energy": energy * len(atoms),
        "band_gap": gap,
        "band_gap_direct": gap,
        "fermi_level": 1.0,
        "charges": [0.3, -0.3],
    }
    return make_record(
        atoms, BACKEND.settings(atoms), values, {"version": "GPAW 0", "cpu_seconds": 2.0}
    )


def many() -> list[tuple[LabelledStructure, Record]]:
    """Gaps that no composition tells, but the record does; most are 0."""
    rng = np.random.default_rng(0)
    made = []
    for cation in CATIONS:
        for anion in ANIONS:
            for lattice in (3.9, 4.2, 4.5):
                atoms = crystal(cation, anion, lattice)
                gap = float(rng.choice([0.0, 0.0, rng.uniform(0.5, 4.0)]))
                energy = float(rng.normal(-2.0, 0.5))
                made.append((row(atoms, gap, energy + 0.5), record(atoms, 0.6 * gap, energy)))
    return made


def test_rows_are_of_known_elements_those_with_a_gap_first() -> None:
    rows = [row(crystal(c, a), gap) for c in CATIONS for a, gap in (("O", 0.0), ("F", 1.0))]
    rows += [row(crystal("Fe", "O"), 2.0), row(crystal("Na", "S"), float("nan"))]
    found = chosen(rows, 12)
    assert [each.labels["band_gap"] > 0 for each in found] == [True] * 10 + [False] * 2
    assert all(set(each.atoms.symbols) <= set(ELEMENTS) for each in found)
    again = chosen(rows[::-1], 12)
    assert [str(each.atoms.symbols) for each in again] == [str(r.atoms.symbols) for r in found]


def test_too_few_rows_are_refused() -> None:
    rows = [row(crystal(c, "O"), 1.0) for c in CATIONS]
    with pytest.raises(click.UsageError, match="got 5 and 10"):
        chosen(rows, 5)
    with pytest.raises(click.UsageError, match="got 300 and 9"):
        chosen(rows[:9], 300)


def test_failures_keep_their_reason() -> None:
    rows = [row(crystal("Na", "F")), row(crystal("K", "F"))]
    kept = record(rows[1].atoms, 1.0, -2.0)
    told: list[str] = []
    labelled, failures = sorted_out(rows, ["did not converge", kept], told.append)
    assert labelled == [(rows[1], kept)]
    assert failures == {"NaF": "did not converge"}
    assert told[-1] == "1 of 2 labelled, 1 failed"


def test_agreement_of_shifted_columns() -> None:
    theirs = np.array([0.0, 1.0, 2.0, 4.0])
    found = agreement(theirs + 0.2, theirs, resampled_weights(["a", "b", "c", "d"]))
    assert found["mae"] == pytest.approx(0.2)
    assert found["mean_difference"] == pytest.approx(0.2)
    assert found["mae_without_mean"] == pytest.approx(0.0, abs=1e-12)
    assert found["pearson"] == pytest.approx(1.0)


def test_offsets_of_elements_are_found_on_other_formulas() -> None:
    rng = np.random.default_rng(1)
    structures = [crystal(c, a) for c in CATIONS for a in ANIONS]
    shifts = {symbol: rng.normal() for symbol in (*CATIONS, *ANIONS)}
    wanted = np.array([np.mean([shifts[s] for s in atoms.symbols]) for atoms in structures])
    formulas = [str(atoms.symbols) for atoms in structures]
    assert by_elements(wanted, structures, formulas) == pytest.approx(wanted, abs=0.05)
    noise = rng.normal(size=len(wanted))
    assert np.abs(by_elements(noise, structures, formulas) - noise).mean() > 0.5  # learns nothing


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    elements = {symbol: {"energy": -1.0} for symbol in ELEMENTS}
    found = study(many(), elements, seeds=1)
    return {
        "file": "rows.jsonl",
        "date": "today",
        "machine": "here",
        "k_density": 2.2,
        "failures": {},
        **found,
    }


@pytest.mark.slow
def test_the_calculated_gap_helps_and_that_of_others_does_not(result: dict[str, Any]) -> None:
    arms = result["ablation"]["parts"]["all"]["arms"]
    assert set(arms) == set(ARMS)
    assert arms["T0 + T3"]["mae"] < 0.5 * arms["T0"]["mae"]
    assert arms["T0 + T3"]["gain_interval"][0] > 0
    low, high = arms["T0 + T3 of another structure"]["gain_interval"]
    assert low < 0.1 < arms["T0 + T3"]["gain"]
    assert high < arms["T0 + T3"]["gain"]


@pytest.mark.slow
def test_formation_energies_come_from_the_elements(result: dict[str, Any]) -> None:
    """Elements at -1 eV: E_form = E + 1, and the set says E + 0.5."""
    energy = result["agreement"]["formation_energy"]
    assert energy["mean_difference"] == pytest.approx(0.5)
    assert result["structures"] == 120
    assert result["cpu_seconds"] == 240


@pytest.mark.slow
def test_table_names_every_arm(result: dict[str, Any]) -> None:
    text = markdown(result)
    assert json.dumps(result)  # plain values
    for arm in ARMS:
        assert f"| {arm} |" in text
    assert "120 of 120 structures" in text
    assert "2 CPU s each" in text


def test_without_gpaw_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gpaw", None)
    file = tmp_path / "rows.jsonl"
    file.write_text("")
    columns = ["--energy", "e", "--gap", "g", "--store", str(tmp_path / "s.db")]
    for command, arguments in (
        (dft_labels, [str(file), *columns]),
        (bench_convergence.bench_convergence, ["--store", str(tmp_path / "s.db")]),
    ):
        outcome = CliRunner().invoke(command, arguments)
        assert outcome.exit_code == 2
        assert "make dft" in outcome.output


def test_convergence_sums_both_deviations_and_takes_the_atoms_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """E = 2 (1000 - cutoff) meV of each atom, bound or free, less 1 meV where the mesh is dense."""

    def fake(atoms: Atoms, backend: Any, _: Any) -> Record:
        settings = backend.settings(atoms)
        dense = settings["k_mesh"][0] > 10 and len(atoms) > 1
        per_atom = 2e-3 * (1_000 - settings["cutoff_ev"]) - 1e-3 * dense
        values = {"energy": per_atom * len(atoms), "band_gap": 1.0 + 0.01 * dense}
        return make_record(atoms, settings, values, {})

    monkeypatch.setattr(bench_convergence, "evaluate", fake)
    found = bench_convergence.deviations(bench_convergence.SOLIDS["Si"], None)  # type: ignore[arg-type]
    assert found["energy_by_cutoff"] == pytest.approx(1.0)
    assert found["energy_by_mesh"] == pytest.approx(1e-3)
    assert found["cohesive_energy"] == pytest.approx(-1e-3)
    assert found["gap"] == pytest.approx(-0.01)
    assert not found["passed"]
    document = {"date": "today", "machine": "here", "rows": [{"solid": "Si", **found}]}
    assert "| +1001.0 | -1.0 | -10.0 | OFF |" in bench_convergence.markdown(document)


def test_rows_of_solids_are_judged_against_published_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E = -12 eV, atoms and elements at -1 eV: E_coh = 5 and E_form = -5 eV/atom."""

    def fake(atoms: Atoms, backend: Any, _: Any) -> Record:
        values = {"energy": -12.0, "band_gap": 4.8}
        return make_record(
            atoms, backend.settings(atoms), values, {"version": "GPAW 0", "cpu_seconds": 1.0}
        )

    monkeypatch.setattr(bench, "evaluate", fake)
    table = tmp_path / "references.json"
    known = {symbol: {"energy": -1.0} for symbol in ("Mg", "O")}
    table.write_text(json.dumps({"gpaw PBE": {"atoms": known, "elements": known}}))
    rows = bench.solid_rows("MgO", None, str(table), lambda _: None)  # type: ignore[arg-type]
    found = {row["quantity"]: (row["value"], row["passed"]) for row in rows}
    assert found == {
        "gap, eV": (4.8, True),
        "cohesive energy, eV/atom": (5.0, True),
        "formation energy, eV/atom": (-5.0, False),
    }
    assert "OFF |" in bench.markdown(rows)
    table.write_text(json.dumps({"gpaw PBE": {"atoms": known}}))
    with pytest.raises(click.ClickException, match="dft-references Mg O"):
        bench.solid_rows("MgO", None, str(table), lambda _: None)  # type: ignore[arg-type]


def test_a_value_that_nothing_was_published_of_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(atoms: Atoms, backend: Any, _: Any) -> Record:
        values = {"energy": -20.0, "band_gap": 1.48}
        provenance = {"version": "GPAW 0", "cpu_seconds": 1.0}
        return make_record(atoms, backend.settings(atoms), values, provenance)

    monkeypatch.setattr(bench, "evaluate", fake)
    table = tmp_path / "references.json"
    known = {symbol: {"energy": -1.0} for symbol in ("Cs", "Pb", "I")}
    table.write_text(json.dumps({"gpaw PBE": {"atoms": known, "elements": known}}))
    gap, cohesive = bench.solid_rows("CsPbI3", None, str(table), lambda _: None)  # type: ignore[arg-type]
    assert gap["passed"] is True
    assert (cohesive["value"], cohesive["published"], cohesive["passed"]) == (3.0, None, None)
    assert json.loads(json.dumps(cohesive, allow_nan=False)) == cohesive
    assert "| 3.000 | - | - | 4x4x4, 500 | 1.0 | - |" in bench.markdown([gap, cohesive])
