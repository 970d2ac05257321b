"""Published phonons: protocol and table; the study of arms: resumption and scores."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

pytest.importorskip("phonopy")
pytest.importorskip("symfc")

from qdgnn_phonons import PhononConfig, harmonic_phonons, relax_crystal
from qdgnn_phonons.bench.arms import Study, markdown, run_study, score, summarise
from qdgnn_phonons.bench.compounds import phonon_row, slack
from qdgnn_phonons.bench.published import REFERENCES, choose, compare
from qdgnn_phonons.bench.published import markdown as table


def test_compounds_are_chosen_by_size_and_seed(tmp_path: Path) -> None:
    reference = REFERENCES[0]
    file = tmp_path / reference.file
    file.parent.mkdir()
    rows = []
    for n in (1, 2, 3, 9, 0):
        rows.append(
            {
                "lattice": (4 * np.eye(3)).tolist(),
                "species": ["Cu"] * n or None,
                "frac_coords": np.linspace(0, 0.9, 3 * n).reshape(n, 3).tolist(),
                "heat_capacity_300K": 24.0 * n,
                "material_id": f"m{n}",
            }
        )
    with gzip.open(file, "wt") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
    structures, values = choose(reference, tmp_path, n=10, max_atoms=4)
    assert {key: len(atoms) for key, atoms in structures.items()} == {"m1": 1, "m2": 2, "m3": 3}
    assert values == {"m1": 24.0, "m2": 24.0, "m3": 24.0}
    assert list(choose(reference, tmp_path, n=2, max_atoms=4)[0]) == list(structures)[:2]


def row(key: str, value: float, *, is_stable: bool = True) -> dict[str, Any]:
    return {"key": key, "last_peak": value, "is_stable": is_stable}


def test_errors_of_a_set() -> None:
    values = {"a": 100.0, "b": 200.0, "c": 400.0, "d": 300.0}
    rows = [
        row("a", 90.0),
        row("b", 180.0),
        row("c", 360.0, is_stable=False),
        {"key": "d", "failure": "ValueError('x')"},
    ]
    result = compare(REFERENCES[1], rows, values, [True, False, False, True])
    assert (result["asked"], result["computed"], result["with_imaginary_modes"]) == (4, 3, 1)
    assert result["failures"] == {"ValueError": 1}
    assert result["all"]["mae"] == pytest.approx(70 / 3)
    assert result["all"]["scale"] == pytest.approx(0.9)
    assert result["all"]["spearman"] == pytest.approx(1.0)
    assert "stable" not in result
    assert "| last_peak | 4 | 3 | 1 | all | 3 | 23.3" in table([result])
    wrong = compare(
        REFERENCES[1], [row("a", 9.0), row("b", 5.0), row("c", 1.0)], values, [True] * 3
    )
    assert wrong["all"]["spearman"] == pytest.approx(-1.0)


def test_rows_of_copper() -> None:
    atoms = bulk("Cu", a=3.6)
    heat = phonon_row("heat_capacity", atoms, EMT())
    assert heat["is_stable"]
    assert 22.5 < heat["heat_capacity"] < 24.5
    assert "last_peak" not in heat
    peak = phonon_row("last_peak", atoms, EMT())
    assert 230 < peak["last_peak"] < 275  # 7 to 8.2 THz


def test_slack_has_its_units() -> None:
    """By hand from its own ingredients; Debye temperature of the right size."""
    config = PhononConfig(supercell=(3, 3, 3))
    atoms = bulk("Cu", a=3.6)
    atoms.calc = EMT()
    crystal = relax_crystal(atoms, config)
    result = slack(crystal, harmonic_phonons(crystal, config))
    gamma, debye = result["gruneisen"], result["debye_kelvin"]
    assert 250 < debye < 350
    assert 1.5 < gamma < 3.0
    prefactor = 2.43e-6 / (1 - 0.514 / gamma + 0.228 / gamma**2)
    size = crystal.get_volume() ** (1 / 3)
    wanted = prefactor * 63.546 * debye**3 * size / (gamma**2 * 300)
    assert result["conductivity"] == pytest.approx(wanted, rel=1e-3)


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


def fake_learn(calls: list[str]) -> Any:
    """Errors by arm and seed, with the number of training frames read from the file."""

    def learn(
        train: Path, tests: dict[str, Path], folder: Path, seed: int, settings: dict[str, Any]
    ) -> dict[str, Any]:
        import ase.io

        frames = ase.io.read(train, ":")
        arm = frames[0].info["arm"]
        assert {frame.info["temperature_kelvin"] for frame in frames} == {200.0, 400.0}
        calls.append(f"{arm}-{len(frames)}-{seed}")
        error = {"phonon": 1.0, "gaussian": 2.0, "uniform": 4.0}[arm] * (1 + 0.1 * seed)
        scores = {q: {"mae": error, "r2": 0.5} for q in ("energy", "forces", "stress")}
        return {"tests": dict.fromkeys(tests, scores)}

    return learn


STUDY = Study(supercell=(2, 2, 2), temperatures=(200.0, 400.0), sizes=(4,), seeds=(0, 1), n_test=2)


def test_study_goes_on_and_compares(tmp_path: Path) -> None:
    atoms = bulk("Cu", a=3.6)
    calls: list[str] = []
    rows = run_study(atoms, EMT, tmp_path, STUDY, learn=fake_learn(calls))
    assert calls[:3] == ["phonon-4-0", "gaussian-4-0", "uniform-4-0"]
    assert len(rows) == 6
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:4]))
    again = run_study(atoms, EMT, tmp_path, STUDY, learn=fake_learn(calls))
    assert calls[6:] == ["gaussian-4-1", "uniform-4-1"]
    assert again == rows
    summary = summarise(rows)
    forces = {r["arm"]: r for r in summary if r["quantity"] == "forces" and r["test"] == "200K"}
    assert forces["gaussian"]["ratio"] == pytest.approx([2.0] * 3)
    assert forces["uniform"]["mae"] == pytest.approx([4.2, 4.0, 4.4])
    assert "| 4 | uniform | 400K | 4.2 (4-4.4) | 0.50 |" in markdown(summary)
    with pytest.raises(ValueError, match="must hold this study"):
        run_study(atoms, EMT, tmp_path, Study(supercell=(3, 3, 3)))


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
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set()
