"""Active learning: what is selected, and a small run from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from click.testing import CliRunner

from qdgnn_ase import QDGNN, QDGNNConfig, label, save_model
from qdgnn_dft.active import ActiveConfig, run_arm
from qdgnn_dft.active_command import active_learn
from qdgnn_dft.active_report import compared, markdown
from qdgnn_dft.bench_active import alloys
from qdgnn_dft.selection import select


def test_the_unlike_one_comes_first_and_its_twin_last() -> None:
    rng = np.random.default_rng(0)
    usual = [rng.normal(size=(4, 6)) * [1, 1, 1, 0.01, 0.01, 0.01] for _ in range(8)]
    odd = np.tile([0.0, 0, 0, 3.0, 0, 0], (4, 1))
    other = np.tile([0.0, 0, 0, 0, 2.0, 0], (4, 1))
    pool = [usual[0], odd, odd.copy(), other, usual[1]]
    chosen = select(pool, usual[2:], 2)
    assert chosen == [1, 3]  # not the twin of the first


def test_what_is_labelled_is_not_uncertain() -> None:
    odd = np.tile([0.0, 3.0], (4, 1))
    usual = np.tile([1.0, 0.0], (4, 1))
    assert select([odd, usual], [usual], 1) == [0]
    assert select([odd, usual], [odd], 1) == [1]


def test_selection_does_not_depend_on_the_scale_of_the_features() -> None:
    rng = np.random.default_rng(1)
    pool = [rng.normal(size=(3, 5)) for _ in range(12)]
    scaled = [1e3 * features for features in pool]
    assert select(pool, pool[:2], 4) == select(scaled, scaled[:2], 4)


def test_no_more_than_there_are() -> None:
    assert sorted(select([np.eye(2), 2 * np.eye(2)], [], 5)) == [0, 1]
    assert select([], [], 3) == []


@pytest.mark.parametrize("wrong", [{"start": 2}, {"batch": 0}, {"epochs": 0}, {"rounds": -1}])
def test_sizes_that_make_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="got"):
        ActiveConfig(**wrong)  # type: ignore[arg-type]


@pytest.fixture
def small_model(tmp_path: Path) -> str:
    config = QDGNNConfig(cutoff=4.0, hidden=8, n_layers=1, n_vectors=2, n_radial=4, n_heads=2)
    path = tmp_path / "small.safetensors"
    save_model(path, QDGNN(config, neighbors=20.0), {})
    return str(path)


def test_a_run_from_end_to_end(tmp_path: Path, small_model: str) -> None:
    pool, test_file = alloys(12, 0, 0.5), tmp_path / "test.extxyz"
    label(alloys(4, 9, 0.0), EMT, test_file)
    config = ActiveConfig(model=small_model, start=4, batch=3, rounds=1, epochs=1)
    rows = run_arm("active", pool, test_file, EMT, config, tmp_path / "active")
    assert [row["labels"] for row in rows] == [4, 7]
    assert all(row["energy_mae"] > 0 and row["forces_mae"] > 0 for row in rows)
    taken = [
        atoms.positions.tobytes()
        for number in range(2)
        for atoms in ase.io.read(tmp_path / "active" / f"labelled-{number}.extxyz", ":")
    ]
    assert len(set(taken)) == 7
    again = run_arm("active", pool, test_file, EMT, config, tmp_path / "active")
    assert again == rows  # goes on from what is there


def test_command(tmp_path: Path, small_model: str) -> None:
    ase.io.write(tmp_path / "pool.extxyz", alloys(12, 0, 0.5))
    arguments = ["--backend", "emt", "--model", small_model, "-o", str(tmp_path / "run")]
    sizes = ["--start", "4", "--batch", "2", "--rounds", "0", "--epochs", "1", "--beside-random"]
    done = CliRunner().invoke(
        active_learn, [str(tmp_path / "pool.extxyz"), *arguments, *sizes], catch_exceptions=False
    )
    assert "active / random" in done.output
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [row["labels"] for row in report["rows"]["active"][0]] == [4]
    assert report["rows"]["active"] == report["rows"]["random"]  # both begin with the same labels
    assert len(ase.io.read(tmp_path / "run" / "test.extxyz", ":")) == 2


def test_report_says_who_wins() -> None:
    def runs(error: float) -> list[list[dict[str, float]]]:
        row = {"round": 0, "labels": 8, "energy_mae": error, "forces_mae": 2 * error}
        return [[row], [row]]

    table = compared({"active": runs(0.1), "random": runs(0.2)})
    text = markdown(table, ["active", "random"], 2)
    assert table[0]["active_forces_mae"] == pytest.approx(0.2)
    assert text.count("active / random = 0.50, active wins") == 2
    assert "| 8 | 0.1000 ± 0.0000 | 0.2000 ± 0.0000 |" in text
    worse = compared({"active": runs(0.3), "random": runs(0.2)})
    assert "random wins" in markdown(worse, ["active", "random"], 2)


def test_report_does_not_call_a_winner_within_the_spread() -> None:
    def run(error: float) -> list[dict[str, float]]:
        return [{"round": 0, "labels": 8, "energy_mae": error, "forces_mae": error}]

    arms = {"active": [run(0.1), run(0.3)], "random": [run(0.3), run(0.2)]}
    text = markdown(compared(arms), ["active", "random"], 2)
    assert "not told apart (difference -0.0500, standard error 0.1500)" in text
    assert "wins" not in text
    alone = {"active": [run(0.1)], "random": [run(0.3)]}
    assert "active wins (one seed" in markdown(compared(alone), ["active", "random"], 1)
