"""The speed benchmark: its structures, its protocol at the smallest size, its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from click.testing import CliRunner
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from qdgnn_ase.nn.linear import Linear
from qdgnn_bench import speed_worker
from qdgnn_bench.speed import SIZES, repeats_of, run, speed
from qdgnn_bench.speed_cells import garnet, speed_cell
from qdgnn_bench.speed_report import exponent, plot, tables
from qdgnn_bench.speed_worker import _ONEDNN_FLOPS, Contender, Row, Worker


@pytest.mark.parametrize("n_atoms", [n for n in SIZES if n <= 4096])
def test_cells_have_their_size(n_atoms: int) -> None:
    atoms = speed_cell(n_atoms)
    assert len(atoms) == n_atoms
    assert atoms.pbc.all()


def test_cells_are_compact() -> None:
    lengths = speed_cell(8 * 12).cell.lengths()
    assert lengths.max() / lengths.min() < 2
    with pytest.raises(ValueError, match="multiples of the 8 atoms"):
        speed_cell(100)


def neighbours(atoms: Atoms, center: str, other: str) -> NDArray[np.float64]:
    """Distances from each ``center`` atom to all ``other`` atoms, sorted."""
    distances = atoms.get_all_distances(mic=True)[atoms.symbols == center]
    return np.sort(distances[:, atoms.symbols == other], axis=1)


def test_garnet_is_the_garnet() -> None:
    atoms = garnet()
    assert atoms.get_chemical_formula() == "La24Li56O96Zr16"
    octahedra, dodecahedra = neighbours(atoms, "Zr", "O"), neighbours(atoms, "La", "O")
    assert octahedra[:, :6].min() > 2.05
    assert octahedra[:, :6].max() < 2.15
    assert octahedra[:, 6].min() > 3.5
    assert dodecahedra[:, :8].min() > 2.4
    assert dodecahedra[:, :8].max() < 2.7
    assert neighbours(atoms, "Li", "O")[:, :4].min() > 1.85


@pytest.mark.slow
def test_run_measures_ours() -> None:
    rows = run([Contender("qdgnn")], [8], repeats=2)
    assert len(rows) == 1
    row = rows[0]
    assert (row["subject"], row["mode"], row["atoms"], row["calls"]) == ("qdgnn", "default", 8, 2)
    assert 0 < row["cpu_ms_min"] <= row["cpu_ms_median"]
    assert 0 < row["memory_mb"] < 1000
    assert row["edges"] > 8
    # an upper bound of the time and a lower one of the FLOPs: the counter saw the products
    assert row["gemm_flops"] > 1e4 * row["edges"]
    assert "call over floor" in tables(rows)


def test_flops_of_large_products_are_counted() -> None:
    layer = Linear(30, 40).requires_grad_(False)
    with FlopCounterMode(display=False, custom_mapping=_ONEDNN_FLOPS) as counter:
        layer(torch.zeros(8192, 30))
    assert counter.get_total_flops() == 2 * 8192 * 30 * 40


@pytest.mark.slow
def test_failure_in_the_worker_is_told() -> None:
    worker = Worker(Contender("qdgnn", path="no such model"), 8)
    try:
        with pytest.raises(RuntimeError, match=r"8 atoms: .*no such model"):
            worker.ask("call")
    finally:
        worker.close()


def test_calls_move_the_atoms() -> None:
    from ase.calculators.lj import LennardJones

    atoms = speed_cell(8)
    atoms.calc = LennardJones()
    before = atoms.positions.copy()
    speed_worker._call(atoms, np.random.default_rng(0))
    moved = np.abs(atoms.positions - before)
    assert (moved.max(axis=1) > 0).all()
    assert moved.max() < 0.01


def power_law(subject: str, mode: str, slope: float, factor: float) -> list[Row]:
    return [
        {
            "subject": subject,
            "mode": mode,
            "atoms": n,
            "calls": 1,
            "first_s": 1.0,
            "memory_mb": 100.0,
            **{f"{kind}_ms_{name}": factor * n**slope
               for kind in ("cpu", "wall") for name in ("min", "median")},
        }
        for n in (64, 512, 1728)
    ]  # fmt: skip


def test_report(tmp_path: Path) -> None:
    rows = power_law("qdgnn", "default", 1.05, 1.0) + power_law("chgnet", "default", 1.05, 12.0)
    assert exponent(rows[:3]) == pytest.approx(1.05)
    assert np.isnan(exponent(rows[:2]))
    text = tables(rows)
    assert "qdgnn (default) 1.05" in text
    assert text.count("(12.0) |") == 3
    plot(rows, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 1000


def test_fewer_calls_of_large_cells() -> None:
    assert [repeats_of(n, 18) for n in (8, 64, 512, 30_000)] == [18, 18, 9, 3]
    assert repeats_of(30_000, 1) == 1


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        speed,
        f"--sizes 8 --repeats 1 --ours-only --default-only --json {tmp_path / 's.json'} "
        f"--markdown {tmp_path / 's.md'}",
    )
    assert result.exit_code == 0, result.output
    assert "GEMM floor" in (tmp_path / "s.md").read_text()
    assert '"threads": 1' in (tmp_path / "s.json").read_text()
