"""T0 table: literature values, physical order, completeness, provenance, negative control."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_numbers

from qdgnn_ase.quantum import make_atomic_table
from qdgnn_ase.quantum.atomic import (
    FEATURE_NAMES,
    N_ELEMENTS,
    atomic_features,
    atomic_sources,
    atomic_table,
    permuted_features,
)

LITERATURE = [  # column, element, value, tolerance
    ("ionization_energy_ev", "H", 13.598, 0.001),
    ("ionization_energy_ev", "Li", 5.392, 0.001),
    ("ionization_energy_ev", "O", 13.618, 0.001),
    ("ionization_energy_ev", "Cs", 3.894, 0.001),
    ("ionization_energy_ev", "Au", 9.226, 0.001),
    ("ionization_energy_ev", "U", 6.194, 0.001),
    ("electron_affinity_ev", "H", 0.754, 0.001),
    ("electron_affinity_ev", "O", 1.461, 0.001),
    ("electron_affinity_ev", "Cl", 3.613, 0.001),
    ("electron_affinity_ev", "Au", 2.309, 0.001),
    ("hardness_ev", "Na", 2.30, 0.01),  # Parr and Pearson 1983
    ("hardness_ev", "F", 7.01, 0.01),
    ("electronegativity_pauling", "F", 3.98, 0.005),
    ("electronegativity_pauling", "O", 3.44, 0.005),
    ("electronegativity_pauling", "Cs", 0.79, 0.005),
    ("polarizability_bohr3", "H", 4.507, 0.001),
    ("polarizability_bohr3", "He", 1.383, 0.002),
    ("polarizability_bohr3", "Cs", 400.9, 1.0),
    ("covalent_radius_angstrom", "C", 0.75, 0.005),  # Pyykkö 2009
    ("vdw_radius_angstrom", "C", 1.70, 0.005),
    ("lda_level_s_ev", "H", -6.353, 0.001),  # NIST: -0.233471 hartree
    ("lda_level_p_ev", "O", -9.208, 0.001),  # NIST: -0.338381 hartree
    ("level_p_ev", "H", -3.401, 0.001),  # hydrogen 2p, exact
    ("level_d_ev", "Li", -1.513, 0.005),  # NIST: Li 3d, 1.513 eV below the limit
    ("level_d_ev", "Na", -1.522, 0.015),  # NIST: Na 3d
    ("level_d_ev", "Zn", -17.2, 1.0),  # 3d by photoemission of the vapour
]
CONFIGURATIONS = [  # element, n_s, n_p, n_d, n_f
    ("H", 1, 0, 0, 0),
    ("O", 2, 4, 0, 0),
    ("Ar", 2, 6, 0, 0),
    ("Cr", 1, 0, 5, 0),
    ("Zn", 2, 0, 10, 0),
    ("Ga", 2, 1, 0, 0),
    ("Pd", 0, 0, 10, 0),
    ("La", 2, 0, 1, 0),
    ("Gd", 2, 0, 1, 7),
    ("Yb", 2, 0, 0, 14),
    ("Lu", 2, 0, 1, 0),
    ("Pb", 2, 2, 0, 0),
    ("U", 2, 0, 1, 3),
]


def value(column: str, symbol: str) -> float:
    return float(atomic_table()[column][atomic_numbers[symbol] - 1])


@pytest.mark.parametrize(("column", "symbol", "expected", "tolerance"), LITERATURE)
def test_literature_values(column: str, symbol: str, expected: float, tolerance: float) -> None:
    assert value(column, symbol) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("symbol", "n_s", "n_p", "n_d", "n_f"), CONFIGURATIONS)
def test_valence_counts(symbol: str, n_s: int, n_p: int, n_d: int, n_f: int) -> None:
    counts = [value(name, symbol) for name in ("n_s", "n_p", "n_d", "n_f", "n_valence")]
    assert counts == [n_s, n_p, n_d, n_f, n_s + n_p + n_d + n_f]


def test_valence_is_the_group_number_in_the_d_block() -> None:
    for row in (range(21, 31), range(39, 49), range(71, 81)):
        counts = [atomic_table()["n_valence"][z - 1] for z in row]
        assert counts == list(range(3, 13))


def test_columns_are_complete_and_read_only() -> None:
    table = atomic_table()
    assert table["atomic_number"].tolist() == list(range(1, N_ELEMENTS + 1))
    for name, column in table.items():
        assert column.shape == (N_ELEMENTS,), name
        assert np.isfinite(column).all(), name
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0.0


def test_no_value_is_zero_except_counts() -> None:
    for name, column in atomic_table().items():
        if not name.startswith("n_"):
            assert (column != 0).all(), name


def test_signs() -> None:
    table = atomic_table()
    for name, column in table.items():
        if name.endswith(("_angstrom", "_bohr3", "ionization_energy_ev", "hardness_ev")):
            assert (column > 0).all(), name
    assert (table["level_s_ev"] < 0).all()
    assert (table["lda_level_s_ev"] < 0).all()


@pytest.mark.parametrize("column", ["level", "lda_level"])
def test_s_lies_below_p(column: str) -> None:
    table = atomic_table()
    gap = table[f"{column}_p_ev"] - table[f"{column}_s_ev"]
    above = np.flatnonzero(gap < 0) + 1
    expected = {"level": {74, 76, 77}, "lda_level": set()}[column]  # W, Os, Ir in GFN1 itself
    assert set(above) == expected


def test_levels_fall_along_a_row_of_the_p_block() -> None:
    for first in (5, 13, 31, 49, 81):
        for name in ("lda_level_s_ev", "lda_level_p_ev"):
            assert (np.diff(atomic_table()[name][first - 1 : first + 5]) < 0).all(), (name, first)


def test_empty_d_shells_of_main_group_elements_are_shallow() -> None:
    table = atomic_table()
    empty = (table["n_d"] == 0) & (table["n_f"] == 0)
    assert (table["level_d_ev"][empty] > -5).all()
    assert (table["level_d_ev"][table["n_d"] > 0] < -3.5).all()


def test_trends() -> None:
    table = atomic_table()
    alkali = np.array([3, 11, 19, 37, 55]) - 1
    assert (np.diff(table["ionization_energy_ev"][alkali]) < 0).all()
    assert (np.diff(table["covalent_radius_angstrom"][alkali]) > 0).all()
    noble = np.array([2, 10, 18, 36, 54, 86]) - 1
    for row in noble:
        window = table["ionization_energy_ev"][row - 1 : row + 2]
        assert window.argmax() == 1
        assert table["electron_affinity_ev"][row] < 0  # no bound anion
    assert table["electronegativity_pauling"][4:9].tolist() == [2.04, 2.55, 3.04, 3.44, 3.98]
    assert np.argmax(table["electron_affinity_ev"]) == atomic_numbers["Cl"] - 1


def test_hardness_is_half_of_ionization_energy_minus_affinity() -> None:
    table = atomic_table()
    half = (table["ionization_energy_ev"] - table["electron_affinity_ev"]) / 2
    np.testing.assert_allclose(table["hardness_ev"], half, atol=1e-6)


def test_every_column_has_a_source() -> None:
    names = set(atomic_table()) - {"atomic_number"}
    assert set(atomic_sources()) == names
    for name, source in atomic_sources().items():
        for key in ("unit", "description", "library", "version", "licence", "reference"):
            assert source[key], (name, key)
        assert source["missing_value_rule"], name
        filled = source["filled_atomic_numbers"]
        assert ("none needed" in source["missing_value_rule"]) == (filled == []), name


def test_filled_values_lie_inside_the_range_of_their_column() -> None:
    for name, source in atomic_sources().items():
        filled = np.zeros(N_ELEMENTS, dtype=bool)
        filled[np.array(source["filled_atomic_numbers"], dtype=int) - 1] = True
        column = atomic_table()[name]
        known = column[~filled]
        spread = 0.6 * np.ptp(known)  # 4d10 of Cd lies below, empty p above all known levels
        assert (column[filled] >= known.min() - spread).all(), name
        assert (column[filled] <= known.max() + spread).all(), name


def test_csv_is_the_one_named_in_the_sources() -> None:
    folder = files("qdgnn_ase.quantum")
    named = json.loads(folder.joinpath("atomic_sources.json").read_text(encoding="utf-8"))["table"]
    content = folder.joinpath(named["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == named["sha256"]


def test_features_are_standardised() -> None:
    features = atomic_features()
    assert features.shape == (N_ELEMENTS + 1, len(FEATURE_NAMES))
    assert features.dtype == np.float64
    assert np.isnan(features[0]).all()
    np.testing.assert_allclose(features[1:].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(features[1:].std(axis=0), 1, atol=1e-12)


def test_no_two_elements_have_the_same_features() -> None:
    assert len(np.unique(atomic_features()[1:], axis=0)) == N_ELEMENTS


def test_polarizability_enters_as_logarithm() -> None:
    column = atomic_features()[1:, FEATURE_NAMES.index("polarizability_bohr3")]
    log = np.log(atomic_table()["polarizability_bohr3"])
    assert np.corrcoef(column, log)[0, 1] == pytest.approx(1)


def test_permuted_features_are_a_permutation_that_differs() -> None:
    features, permuted = atomic_features(), permuted_features(0)
    assert np.isnan(permuted[0]).all()
    rows, permuted_rows = map(tuple, features[1:]), map(tuple, permuted[1:])
    assert sorted(rows) == sorted(permuted_rows)
    moved = (features[1:] != permuted[1:]).any(axis=1)
    assert moved.mean() > 0.9
    assert np.array_equal(permuted[1:], permuted_features(0)[1:])
    assert not np.array_equal(permuted[1:], permuted_features(1)[1:])


def test_script_fills_a_gap_by_a_straight_line() -> None:
    filled = make_atomic_table.fill_linear(np.array([1.0, np.nan, 5.0]), np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(filled, [1.0, 3.0, 5.0])


def test_script_makes_the_committed_files_again(tmp_path: Path) -> None:
    pytest.importorskip("mendeleev")
    pytest.importorskip("dxtb")
    make_atomic_table.main(str(tmp_path))
    for name in ("atomic.csv", "atomic_sources.json"):
        committed = files("qdgnn_ase.quantum").joinpath(name).read_bytes()
        assert (tmp_path / name).read_bytes() == committed
