"""The study of arms: resumption, scores, what may be claimed, and explanations that add up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.spacegroup.symmetrize import check_symmetry
from click.testing import CliRunner

pytest.importorskip("phonopy")
pytest.importorskip("symfc")

from qdgnn_ase import Explainer, tight_binding
from qdgnn_phonons.bench.arms import ARMS, Study, run_study
from qdgnn_phonons.bench.arms_explain import shares
from qdgnn_phonons.bench.arms_models import (
    LEARNERS,
    Learner,
    score,
    tight_binding_labels,
    train_properties,
)
from qdgnn_phonons.bench.arms_page import better_and_worse, document, learning_curves, page
from qdgnn_phonons.bench.arms_report import markdown, summarise, verdict
from qdgnn_phonons.bench.families import families
from qdgnn_phonons.bench.phonon_arms import phonon_arms


def labelled(shift: float) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=int(100 * shift))
    atoms.calc = EMT()
    results = {
        "energy": atoms.get_potential_energy() + 7.0,
        "forces": atoms.get_forces() + shift,
        "stress": atoms.get_stress() + np.array([1, 1, 1, 0, 0, 0]) * shift * units.GPa,
    }
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def test_scores_are_errors_and_r2() -> None:
    exact = score(EMT(), [labelled(0.0)])
    assert exact["forces"]["r2"] == pytest.approx(1.0)
    assert np.isnan(exact["energy"]["r2"])  # one frame has no spread
    frames = [labelled(0.1), labelled(0.2), labelled(0.3)]
    result = score(EMT(), frames)
    assert result["forces"]["mae"] == pytest.approx(0.2)
    assert result["stress"]["mae"] == pytest.approx(0.2)
    assert result["energy"]["mae"] == pytest.approx(0.0, abs=1e-6)
    assert result["forces"]["r2"] < 1.0


def test_gap_of_a_supercell() -> None:
    """Of a supercell as of its cell on the commensurate mesh."""
    atoms = bulk("Si", a=5.43) * (2, 2, 2)
    found = tight_binding_labels(atoms, EMT())
    cell = tight_binding(bulk("Si", a=5.43), mesh=(4, 4, 4))
    assert found["t1_gap"] == pytest.approx(float(cell.band_gap[0]), abs=1e-6)


def test_labels_of_tight_binding_have_no_quantum_input(tmp_path: Path) -> None:
    assert LEARNERS["tight_binding"].train["model"]["quantum"] == "none"
    with pytest.raises(ValueError, match="quantum 'none'"):
        train_properties(tmp_path / "a.extxyz", {}, tmp_path / "run", 0, {"model": {}})


def test_families_are_the_crystals_they_are_named_after() -> None:
    groups = {"Si": 227, "NaCl": 225, "Ag3SBr": 221, "CsPbI3": 221}
    for name, family in families().items():
        assert check_symmetry(family.atoms).number == groups[name]
        assert sorted(family.atoms.symbols.formula.reduce()[0].count()) == sorted(
            Atoms(name).symbols.formula.count()
        )
    silver = families()["Ag3SBr"].atoms
    center = int(np.flatnonzero(silver.symbols == "S")[0])
    near = np.sort(silver.get_distances(center, range(5), mic=True))
    assert near[1:4] == pytest.approx(silver.cell.lengths()[0] / 2)  # octahedron of silver


def fake_learner(calls: list[str], r2: float = 0.7) -> Learner:
    """Errors by arm and seed, with the number of training frames read from the file."""

    def learn(
        train: Path, tests: dict[str, Path], folder: Path, seed: int, settings: dict[str, Any]
    ) -> dict[str, Any]:
        frames = ase.io.read(train, ":")
        arm = frames[0].info["arm"]
        assert {frame.info["temperature_kelvin"] for frame in frames} == {200.0, 400.0}
        assert settings == {"epochs": 3, "max_edges": 7}
        calls.append(f"{arm}-{len(frames)}-{seed}")
        error = {"phonon": 1.0, "gaussian": 2.0, "uniform": 4.0}[arm] * (1 + 0.1 * seed)
        scores = {q: {"mae": error, "r2": r2} for q in ("forces", "energy", "stress")}
        return {"tests": dict.fromkeys(tests, scores)}

    return Learner(learn, {"epochs": 2, "max_edges": 7})


STUDY = Study(
    supercell=(2, 2, 2),
    temperatures=(200.0, 400.0),
    sizes=(4,),
    seeds=(0, 1),
    n_test=2,
    train={"epochs": 3},
)


def test_study_goes_on_and_compares(tmp_path: Path) -> None:
    atoms = bulk("Cu", a=3.6)
    calls: list[str] = []
    rows = run_study(atoms, EMT, tmp_path, STUDY, learner=fake_learner(calls))
    assert calls[:3] == ["phonon-4-0", "gaussian-4-0", "uniform-4-0"]
    assert len(rows) == 6
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:4]))
    again = run_study(atoms, EMT, tmp_path, STUDY, learner=fake_learner(calls))
    assert calls[6:] == ["gaussian-4-1", "uniform-4-1"]
    assert again == rows
    result = document("Cu", tmp_path, STUDY, atoms, rows)
    forces = {
        r["arm"]: r for r in result["summary"] if r["quantity"] == "forces" and r["test"] == "200K"
    }
    assert forces["gaussian"]["ratio"] == pytest.approx([2.0] * 3)
    assert forces["uniform"]["mae"] == pytest.approx([4.2, 4.0, 4.4])
    text = page([result | {"calculator": "emt", "date": "today", "machine": "here"}])
    assert "| 4 | uniform | 400K | 4.2 (4 to 4.4) | 0.70 (0.70 to 0.70) |" in text
    assert "8 atoms, 2 seeds" in text
    assert "no restoring force" not in text
    assert better_and_worse(result["summary"]) == ("phonon", "uniform")
    with pytest.raises(ValueError, match="must hold this study"):
        run_study(atoms, EMT, tmp_path, dataclasses.replace(STUDY, n_test=3))


def rows_of(
    maes: dict[str, list[float]], r2: dict[str, float], size: int = 10
) -> list[dict[str, Any]]:
    return [
        {
            "arm": arm,
            "size": size,
            "seed": seed,
            "tests": {"300K": {"band_gap": {"mae": mae, "r2": r2[arm]}}},
        }
        for arm, values in maes.items()
        for seed, mae in enumerate(values)
    ]


def test_what_may_be_claimed() -> None:
    clear = {"phonon": [1.0, 1.1, 0.9], "gaussian": [2.0, 2.3, 1.8], "uniform": [0.9, 1.3, 0.8]}
    good = dict.fromkeys(clear, 0.8)
    (sentence,) = verdict(summarise(rows_of(clear, good)))
    assert "gaussian frames are worse, 2.0" in sentence
    assert "uniform and phonon frames cannot be told apart" in sentence
    (sentence,) = verdict(summarise(rows_of(clear, dict.fromkeys(clear, 0.4))))
    assert "nothing is claimed" in sentence
    assert "worse" not in sentence
    # the winner of a pair must have learned something, whoever is best of all
    (sentence,) = verdict(summarise(rows_of(clear, {**good, "phonon": 0.3})))
    assert "nothing is claimed on gaussian against phonon" in sentence
    turned = {"phonon": clear["gaussian"], "gaussian": clear["phonon"], "uniform": [2.0, 2.2, 1.9]}
    (sentence,) = verdict(summarise(rows_of(turned, good)))
    assert "gaussian frames are better" in sentence


def test_arms_are_paired_by_seed_and_failures_left_out() -> None:
    maes = {"phonon": [1.0, 10.0], "gaussian": [2.0, 20.0], "uniform": [3.0, 30.0]}
    rows = rows_of(maes, dict.fromkeys(maes, 0.9))
    ratios = {row["arm"]: row["ratio"] for row in summarise(rows)}
    assert ratios["gaussian"] == pytest.approx([2.0] * 3)  # though the spread of seeds is tenfold
    failed = [{"key": "x", "failure": "exploded"}]
    assert summarise(rows + failed) == summarise(rows)
    larger = rows + rows_of({**maes, "phonon": [0.5, 5.0]}, dict.fromkeys(maes, 0.9), size=20)
    last = next(row for row in summarise(larger) if (row["size"], row["arm"]) == (20, "phonon"))
    assert last["ratio_smallest"] == pytest.approx([0.5] * 3)
    assert markdown([]) == ""


def test_shares_of_the_variance_add_up() -> None:
    explainer = Explainer("band_gap")
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    frames = []
    for seed in range(3):
        frames.append(crystal.copy())
        frames[-1].rattle(0.2, seed=seed)
    found = [explainer(atoms) for atoms in frames]
    result = shares(found, crystal, explainer.cutoff)
    assert list(result) == [
        "Cl-Cl 3.99 Å",
        "Cl-Na 2.82 Å",
        "Cl-Na 4.88 Å",
        "Na-Na 3.99 Å",
    ]
    assert sum(row["variance"] for row in result.values()) == pytest.approx(1.0, abs=0.02)
    assert sum(row["scores"] for row in result.values()) == pytest.approx(1.0)
    mixed = [
        dataclasses.replace(row, bond_scores=row.bond_scores * factor)
        for row, factor in zip(found, (1.0, 0.5, 2.0), strict=True)
    ]  # incomplete attributions do not
    broken = shares(mixed, crystal, explainer.cutoff)
    assert abs(sum(row["variance"] for row in broken.values()) - 1.0) > 0.1


def test_learning_curves_have_a_line_for_each_arm_and_test() -> None:
    summary = [
        {"quantity": quantity, "arm": arm, "test": test, "size": size, "mae": [1 / size, 0.0, 1.0]}
        for size in (20, 80)
        for arm in ARMS
        for test in ("300K", "600K")
        for quantity in ("band_gap", "forces", "energy")
    ]
    curves = learning_curves([{"crystal": "Si", "summary": summary}])
    assert list(curves) == [("Si", "gap, meV"), ("Si", "forces, eV/Å")]
    for lines in curves.values():
        assert set(lines) == {(arm, test) for arm in ARMS for test in ("300K", "600K")}
        for points in lines.values():
            assert points == pytest.approx(np.array([[20, 0.05, 0.0, 1.0], [80, 0.0125, 0.0, 1.0]]))


def test_unknown_family_is_a_clear_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(phonon_arms, ["--family", "Mg", "-o", str(tmp_path)])
    assert result.exit_code == 2
    assert "--family must be of ['Si', 'NaCl', 'Ag3SBr', 'CsPbI3'], got ['Mg']" in result.output


@pytest.mark.slow
def test_command_trains_explains_and_goes_on(tmp_path: Path) -> None:
    arguments = ["--family", "Si", "-o", str(tmp_path), "--size", "10", "--seeds", "2"]
    arguments += ["--epochs", "2", "--n-test", "2"]
    result = CliRunner().invoke(phonon_arms, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (part,) = json.loads((tmp_path / "arms.json").read_text())["crystals"]
    assert (part["failed"], part["atoms"], len(part["rows"])) == ([], 16, 6)
    explained = part["explanations"]
    for row in explained["arms"].values():
        shares = [kind["variance"][0] for kind in row["kinds"].values()]
        assert sum(shares) == pytest.approx(1.0, abs=0.05)
    assert (tmp_path / "arms.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "arms.md").read_text()
    assert "## Si, labels of tight binding (T1)" in text
    assert "Si-Si 2.3" in text
    before = (tmp_path / "Si_tight_binding" / "rows.jsonl").read_bytes()
    CliRunner().invoke(phonon_arms, arguments, catch_exceptions=False)
    assert (tmp_path / "Si_tight_binding" / "rows.jsonl").read_bytes() == before


@pytest.mark.slow
def test_study_trains_a_potential(tmp_path: Path) -> None:
    model = {"cutoff": 4.0, "hidden": 16, "n_layers": 1, "n_vectors": 4}
    study = Study(
        supercell=(2, 2, 2),
        sizes=(10,),
        seeds=(0,),
        n_test=2,
        train={"epochs": 2, "max_edges": 3_000, "model": model},
    )
    rows = run_study(bulk("Cu", a=3.6), EMT, tmp_path, study)
    assert [row.get("failure") for row in rows] == [None] * 3
    for result in rows:
        for scores in result["tests"].values():
            assert np.isfinite(scores["forces"]["mae"])
            assert scores["forces"]["r2"] < 1.0
