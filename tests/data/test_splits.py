"""Grouped splits: no formula in two folds, whatever else is there."""

from __future__ import annotations

import warnings
from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.data import chemical_symbols

from qdgnn_ase.data.splits import SplitBy, fold_of, folds_of, reduced_formula, split_indices

SHARES = {"val": 0.2, "test": 0.3, "seed": 1}


def frames(n: int, seed: int = 0) -> list[Atoms]:
    """Cells of two elements and 2 to 8 atoms; many share a reduced formula."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(n):
        pair = [chemical_symbols[z] for z in rng.choice(np.arange(3, 12), size=2, replace=False)]
        counts = rng.integers(1, 5, size=2)
        result.append(Atoms(f"{pair[0]}{counts[0]}{pair[1]}{counts[1]}"))
    return result


def test_no_formula_is_in_two_folds() -> None:
    structures = frames(2000)
    folds = split_indices(structures, **SHARES)
    formulas = {
        name: {reduced_formula(structures[k]) for k in indices} for name, indices in folds.items()
    }
    assert all(formulas.values())
    assert not formulas["train"] & formulas["val"]
    assert not formulas["train"] & formulas["test"]
    assert not formulas["val"] & formulas["test"]


def test_every_frame_is_in_one_fold_in_order() -> None:
    folds = split_indices(frames(300), **SHARES)
    assert sorted(chain(*folds.values())) == list(range(300))
    assert all(indices == sorted(indices) for indices in folds.values())


def test_fold_does_not_depend_on_what_else_is_present() -> None:
    structures = frames(300)
    alone = split_indices(structures[:50], **SHARES)
    together = split_indices(structures[:50] + frames(500, seed=9), **SHARES)
    assert {name: [k for k in v if k < 50] for name, v in together.items()} == alone


def test_supercell_order_and_positions_do_not_matter() -> None:
    cell = bulk("NaCl", "rocksalt", a=5.6)
    large = make_supercell(cell, [[2, 0, 0], [0, 1, 0], [0, 0, 3]])
    large.rattle(0.1, seed=0)
    assert reduced_formula(cell) == reduced_formula(large[::-1]) == "NaCl"
    assert reduced_formula(Atoms("O4PFeLi")) == "LiFePO4"


@pytest.mark.parametrize(("val", "test"), [(0.05, 0.10), (0.3, 0.3), (0.0, 0.5), (0.5, 0.0)])
def test_shares(val: float, test: float) -> None:
    n = 5000
    counts = Counter(fold_of(f"A{k}B", val=val, test=test, seed=3) for k in range(n))
    for name, share in {"val": val, "test": test, "train": 1 - val - test}.items():
        tolerance = 4 * np.sqrt(share * (1 - share) / n)  # four standard deviations
        assert counts[name] / n == pytest.approx(share, abs=tolerance)


def test_test_fold_is_the_same_for_every_validation_share() -> None:
    formulas = [f"A{k}B" for k in range(500)]
    tested = [{f for f in formulas if fold_of(f, val=v, test=0.1) == "test"} for v in (0.0, 0.2)]
    assert tested[0] == tested[1]


def test_seed_changes_the_split() -> None:
    folds = [[fold_of(f"A{k}B", seed=seed) for k in range(500)] for seed in (0, 0, 1)]
    assert folds[0] == folds[1]
    assert folds[0] != folds[2]


def test_split_stays_what_it_was() -> None:
    """A changed hash would put test formulas of old checkpoints into training."""
    known = ["LiFePO4", "NaCl", "Li3PS4", "MgO", "SiO2", "Cs3Bi2I9"]
    assert [fold_of(formula, val=0.3, test=0.3) for formula in known] == [
        "test",
        "val",
        "train",
        "val",
        "val",
        "val",
    ]


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (0.0, 1.0)])
def test_bad_shares(val: float, test: float) -> None:
    with pytest.raises(ValueError, match=f"val and test must be >= 0 .* got {val} and {test}"):
        fold_of("NaCl", val=val, test=test)


def test_noble_gases_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reduced_formula(Atoms("XeF2")) == "XeF2"
        assert reduced_formula(Atoms("NeHe2")) in ("NeHe2", "He2Ne")


def by_frame(formulas: list[str], val: float = 0.1, test: float = 0.1) -> str:
    """First letters of the folds."""
    folds = folds_of(formulas, val=val, test=test, seed=0, by="frame")
    return "".join({"train": "-", "val": "v", "test": "t"}[fold] for fold in folds)


def test_frames_of_one_material_are_split_in_blocks() -> None:
    assert by_frame(["Cu"] * 100) == ("-" * 16 + "vvtt") * 5
    assert by_frame(["Cu"] * 25) == ("-" * 10 + "vt" + "-" * 11 + "vt")
    assert by_frame(["Cu"] * 6, test=0.0) == "-----v"


def test_every_part_of_a_file_is_in_every_fold() -> None:
    folds = by_frame(["Cu"] * 500)
    for part in range(5):
        assert set(folds[100 * part : 100 * (part + 1)]) == {"-", "v", "t"}


def test_neighbouring_frames_stay_together() -> None:
    """Negative control: a random choice of the same size changes fold ten times as often."""
    folds = by_frame(["Cu"] * 1000)
    changes = sum(a != b for a, b in pairwise(folds))
    shuffled = np.random.default_rng(0).permutation(list(folds))
    assert changes == 14
    assert sum(a != b for a, b in pairwise(shuffled)) > 10 * changes


def test_each_formula_of_a_file_is_split_for_itself() -> None:
    mixed = by_frame(["Cu", "Ag"] * 50)
    assert mixed[::2] == mixed[1::2] == by_frame(["Cu"] * 50)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_frames_are_all_for_training(n: int) -> None:
    assert by_frame(["Cu"] * n) == "-" * n


@pytest.mark.parametrize("by", ["formula", "frame"])
@pytest.mark.parametrize("shares", [(0.6, 0.4), (-0.1, 0.1)])
def test_shares_that_leave_nothing_are_refused(by: SplitBy, shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="with a sum below 1"):
        folds_of(["Cu"], val=shares[0], test=shares[1], seed=0, by=by)


def test_turns_test_every_formula_once() -> None:
    formulas = [reduced_formula(atoms) for atoms in frames(400)]
    for formula in set(formulas):
        folds = [fold_of(formula, val=0.1, test=0.25, turn=k / 4) for k in range(4)]
        assert folds.count("test") == 1
        assert folds[0] == fold_of(formula, val=0.1, test=0.25)
