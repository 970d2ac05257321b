"""Evaluation against figures computed by hand, with EMT as the reference.

A calculator that is wrong in a known way must show exactly that.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, Calculator, InputError
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import voigt_6_to_full_3x3_stress
from ase.units import GPa

from qdgnn_ase.data.io import read_structures
from qdgnn_ase.data.splits import fold_of, reduced_formula
from qdgnn_ase.inference.evaluate import (
    METRICS,
    FrameError,
    Split,
    evaluate,
    frame_errors,
    paired_difference,
    summarise,
)

ALLOYS = Path(__file__).parent.parent / "data_files" / "alloys_emt.extxyz"


class Shifted(EMT):
    """EMT with known errors: eV/atom, eV/Å on every x component, GPa on the diagonal."""

    def __init__(self, energy: float = 0.0, forces: float = 0.0, stress: float = 0.0) -> None:
        super().__init__()
        self.errors = (energy, forces, stress)

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        super().calculate(atoms, *args, **kwargs)
        energy, forces, stress = self.errors
        self.results["energy"] += energy * len(atoms)
        self.results["forces"] = self.results["forces"] + [forces, 0.0, 0.0]
        self.results["stress"] = self.results["stress"] + stress * GPa * np.array(
            [1, 1, 1, 0, 0, 0]
        )


class Noisy(EMT):
    """EMT with an energy error that depends on the composition."""

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        super().calculate(atoms, *args, **kwargs)
        self.results["energy"] += error_of(atoms) * len(atoms)


def error_of(atoms: Atoms) -> float:
    return float((atoms.numbers.sum() % 7) / 10 - 0.2)


def test_exact_calculator_has_no_error() -> None:
    result = evaluate(EMT(), ALLOYS)
    assert (result["frames"], result["atoms"], result["formulas"]) == (60, 240, 30)
    assert result["skipped"] == {}
    assert result["ms_per_atom"] > 0
    for name in METRICS:
        assert abs(result[name]) < 1e-4, name


def test_energy_shift_vanishes_in_the_shifted_metrics() -> None:
    result = evaluate(Shifted(energy=0.7), ALLOYS)
    assert result["energy_mae"] == pytest.approx(0.7, abs=1e-6)
    assert result["energy_rmse"] == pytest.approx(0.7, abs=1e-6)
    assert result["energy_mae_shifted"] < 1e-6
    assert result["energy_rmse_shifted"] < 1e-6
    assert result["forces_mae"] < 1e-6


def test_force_error_is_per_component() -> None:
    result = evaluate(Shifted(forces=-0.6), ALLOYS)
    assert result["forces_mae"] == pytest.approx(0.6 / 3, abs=1e-5)
    assert result["energy_mae"] < 1e-6


def test_stress_error_is_per_component_in_gpa() -> None:
    result = evaluate(Shifted(stress=2.0), ALLOYS)
    assert result["stress_mae"] == pytest.approx(2.0 / 3, abs=1e-4)


def test_metrics_by_hand() -> None:
    errors = np.array([error_of(atoms) for atoms in read_structures(ALLOYS)])
    result = evaluate(Noisy(), ALLOYS)
    assert result["energy_mae"] == pytest.approx(np.abs(errors).mean(), abs=1e-5)
    assert result["energy_rmse"] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-5)
    shifted = errors - np.sort(errors)[(len(errors) - 1) // 2]
    assert result["energy_mae_shifted"] == pytest.approx(np.abs(shifted).mean(), abs=1e-5)
    assert result["energy_rmse_shifted"] == pytest.approx(np.sqrt((shifted**2).mean()), abs=1e-5)


def test_large_cells_weigh_more_in_the_forces_only() -> None:
    errors = [
        FrameError("Cu", 1, energy=0.1, forces=3 * 1.0, stress=1.0),
        FrameError("Al", 9, energy=0.3, forces=27 * 2.0, stress=3.0),
    ]
    result = summarise(errors)
    assert result["energy_mae"] == pytest.approx(0.2)
    assert result["forces_mae"] == pytest.approx((1 * 1.0 + 9 * 2.0) / 10)
    assert result["stress_mae"] == pytest.approx(2.0)


@pytest.mark.parametrize("calculator", [Noisy(), Shifted(0.3, 0.1, 1.0)])
def test_intervals_contain_the_value(calculator: Calculator) -> None:
    result = evaluate(calculator, ALLOYS)
    for name in METRICS:
        low, high = result[f"{name}_interval"]
        assert low <= result[name] + 1e-9
        assert result[name] <= high + 1e-9
        assert type(low) is float


def spread(errors: list[FrameError]) -> float:
    low, high = summarise(errors)["energy_mae_interval"]
    return high - low


def test_intervals_are_over_formulas() -> None:
    """Ten copies of each formula are no more evidence than one."""
    rng = np.random.default_rng(0)
    single = [FrameError(f"A{k}", 1, abs(rng.normal()), 0.0, 0.0) for k in range(20)]
    assert spread(single * 10) == pytest.approx(spread(single))
    apart = [
        FrameError(f"{e.formula}B{k}", 1, e.energy, 0.0, 0.0) for e in single for k in range(10)
    ]
    assert spread(apart) < 0.5 * spread(single)


def test_intervals_are_as_wide_as_they_should_be() -> None:
    rng = np.random.default_rng(1)
    errors = [FrameError(f"A{k}", 1, abs(x), 0.0, 0.0) for k, x in enumerate(rng.normal(size=400))]
    sigma = np.std([error.energy for error in errors]) / np.sqrt(len(errors))
    assert spread(errors) == pytest.approx(2 * 1.96 * sigma, rel=0.15)


def test_labels_that_are_missing(tmp_path: Path) -> None:
    energy_only, nothing = bulk("Cu"), bulk("Ag")
    energy_only.calc = SinglePointCalculator(
        energy_only, energy=EMT().get_potential_energy(bulk("Cu"))
    )
    ase.io.write(tmp_path / "a.extxyz", [energy_only, nothing])
    result = evaluate(Shifted(energy=0.5), tmp_path / "a.extxyz")
    assert result["frames"] == 1
    assert result["skipped"] == {"no labels": 1}
    assert result["energy_mae"] == pytest.approx(0.5, abs=1e-6)
    for name in ("forces_mae", "stress_mae"):
        assert np.isnan(result[name])
        assert f"{name}_interval" not in result


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", [bulk("Cu"), bulk("Ag")])
    result = evaluate(EMT(), tmp_path / "a.extxyz")
    assert (result["frames"], result["atoms"], result["formulas"]) == (0, 0, 0)
    assert result["skipped"] == {"no labels": 2}
    assert not METRICS.keys() & result.keys()


class Picky(EMT):
    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        if "Au" in atoms.symbols:
            raise InputError("no gold")
        if "Ni" in atoms.symbols:
            raise CalculationFailed("no nickel")
        super().calculate(atoms, *args, **kwargs)


def test_refusals_are_counted_by_reason() -> None:
    symbols = [set(atoms.symbols) for atoms in read_structures(ALLOYS)]
    gold = sum("Au" in names for names in symbols)
    nickel = sum("Ni" in names and "Au" not in names for names in symbols)
    result = evaluate(Picky(), ALLOYS)
    assert result["skipped"] == {"no gold": gold, "no nickel": nickel}
    assert result["frames"] == 60 - gold - nickel


def test_failure_of_another_kind_is_not_hidden() -> None:
    class Broken(EMT):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        evaluate(Broken(), ALLOYS)


def test_size_limit(tmp_path: Path) -> None:
    frames = read_structures(ALLOYS)
    large = frames[0].repeat(2)
    large.calc = SinglePointCalculator(large, energy=0.0)
    ase.io.write(tmp_path / "a.extxyz", [*frames[:3], large])
    result = evaluate(EMT(), tmp_path / "a.extxyz", max_atoms=4)
    assert result["skipped"] == {"more than 4 atoms": 1}
    assert result["frames"] == 3


@pytest.mark.parametrize("fold", ["train", "val", "test"])
def test_fold(fold: Any) -> None:
    split = Split(fold, val=0.2, test=0.2, seed=0)
    inside = [
        atoms
        for atoms in read_structures(ALLOYS)
        if fold_of(reduced_formula(atoms), val=0.2, test=0.2, seed=0) == fold
    ]
    result = evaluate(Noisy(), ALLOYS, split=split)
    assert 0 < result["frames"] == len(inside) < 60
    assert result["skipped"] == {f"not in the {fold} fold": 60 - len(inside)}
    errors = [abs(error_of(atoms)) for atoms in inside]
    assert result["energy_mae"] == pytest.approx(np.mean(errors), abs=1e-5)


def test_calculator_does_not_see_the_labels() -> None:
    class Cheat(Shifted):
        def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
            assert atoms.calc is None
            super().calculate(atoms, *args, **kwargs)

    assert evaluate(Cheat(), ALLOYS)["frames"] == 60


def test_progress() -> None:
    seen: list[float] = []
    evaluate(EMT(), ALLOYS, progress=seen.append)
    assert len(seen) == 60
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_frames_keep_their_place() -> None:
    evaluation = frame_errors(Picky(), ALLOYS)
    frames = read_structures(ALLOYS)
    assert len(evaluation.errors) + sum(evaluation.skipped.values()) == len(frames)
    for error in evaluation.errors:
        assert error.formula == reduced_formula(frames[error.index])
    assert evaluation.report()["frames"] == evaluate(Picky(), ALLOYS)["frames"]


def test_stress_of_nine_components() -> None:
    """As matgl's calculator gives it."""

    class Full(Shifted):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            super().calculate(*args, **kwargs)
            self.results["stress"] = voigt_6_to_full_3x3_stress(self.results["stress"])

    assert evaluate(Full(stress=2.0), ALLOYS)["stress_mae"] == pytest.approx(2.0 / 3, abs=1e-4)


def test_paired_difference_by_hand() -> None:
    first, second = (frame_errors(calc, ALLOYS).errors for calc in (Shifted(0.3), Shifted(0.5)))
    result = paired_difference(first, second)
    assert (result["frames"], result["formulas"]) == (60, 30)
    row = result["energy_mae"]
    assert row["first"] == pytest.approx(0.3, abs=1e-5)
    assert row["second"] == pytest.approx(0.5, abs=1e-5)
    assert row["difference"] == pytest.approx(-0.2, abs=1e-5)
    assert row["interval"] == pytest.approx([-0.2, -0.2], abs=1e-5)  # the same on every formula


def test_pairing_removes_what_is_hard_for_both() -> None:
    rng = np.random.default_rng(0)
    hard = rng.exponential(size=50)
    first = [FrameError(f"A{k}", 1, x, 0.0, 0.0, k) for k, x in enumerate(hard)]
    second = [FrameError(f"A{k}", 1, x + 0.01, 0.0, 0.0, k) for k, x in enumerate(hard)]
    low, high = paired_difference(first, second)["energy_mae"]["interval"]
    assert high < 0
    assert high - low < 1e-6
    assert spread(first) > 0.2  # unpaired the difference is lost


def test_pairs_are_the_frames_that_both_computed() -> None:
    every, some = frame_errors(EMT(), ALLOYS).errors, frame_errors(Picky(), ALLOYS).errors
    assert paired_difference(every, some)["frames"] == len(some) < len(every)
    blind = [replace(error, energy=np.nan) for error in every]
    result = paired_difference(every, blind)
    assert "energy_mae" not in result
    assert "forces_mae" in result
    with pytest.raises(ValueError, match="got none"):
        paired_difference(every, [])


def test_values_that_one_lacks_count_for_neither() -> None:
    first = [FrameError(f"A{k}", 1, 0.0, 0.0, float(k), k) for k in range(4)]
    second = [replace(e, stress=np.nan if e.index == 3 else e.stress) for e in first]
    row = paired_difference(first, second)["stress_mae"]
    assert row["first"] == row["second"] == pytest.approx(1.0)


def test_split_by_frame() -> None:
    split = Split.of_training(
        {"val": 0.1, "test": 0.1, "split_seed": 0, "split_by": "frame"}, "test"
    )
    assert split.select(["Cu"] * 10) == [False] * 9 + [True]
    with pytest.raises(ValueError, match="by formula"):
        split.holds("Cu")
    old = Split.of_training({"val": 0.1, "test": 0.1, "split_seed": 0}, "test")
    assert old.by == "formula"
    formulas = [f"Cu{k}Al" for k in range(1, 50)]
    assert old.select(formulas) == [old.holds(formula) for formula in formulas]
