"""Folds, censored rows and structural features of the conductivity experiment."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase import Predictor, as_atoms
from qdgnn_bench.conductivity import (
    Conductors,
    compare,
    markdown,
    most_likely,
    read_conductors,
    structure_features,
)

pytest.importorskip("sklearn")


def test_most_likely_element_and_empty_sites() -> None:
    species = [{"Li": 0.3}, {"Na": 0.6, "K": 0.4}, {"O": 1.0}]
    structure = Structure(np.eye(3) * 5, species, [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0]])
    assert str(most_likely(structure).symbols) == "NaO"


def test_rows_with_and_without_structure(tmp_path: Path) -> None:
    table, cifs = tmp_path / "table.csv", tmp_path / "cifs.jsonl.gz"
    fields = ["ID", "True Composition", "Ionic conductivity (S cm-1)", "DOI", "reduced_formula"]
    with table.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(fields)
        writer.writerow(["a", "Li1.0Cl1.0", "1e-6", "10.1/x", "LiCl"])
        writer.writerow(["b", "Li3.0P1.0S4.0", "<1E-10", "10.1/y", "Li3PS4"])
    crystal = AseAtomsAdaptor.get_structure(bulk("LiCl", "rocksalt", a=5.1))
    with gzip.open(cifs, "wt") as texts:
        texts.write(json.dumps({"ID": "a", "cif": crystal.to(fmt="cif")}) + "\n")
    rows = read_conductors(table, cifs, Predictor())
    assert rows.log_conductivity.tolist() == [-6.0, -10.0]
    assert rows.censored.tolist() == [False, True]
    assert np.isfinite(rows.structure[0]).all()
    assert np.isnan(rows.structure[1]).all()
    np.testing.assert_array_equal(rows.structure, rows.most_likely, "it is ordered")
    assert rows.composition[1, 2] == pytest.approx(3 / 8), "share of lithium"


def test_disordered_crystals_are_taken_as_they_are() -> None:
    species = [{"Li": 0.4, "Na": 0.6}, {"Cl": 1.0}]
    structure = Structure(np.eye(3) * 4, species, [[0, 0, 0], [0.5, 0.5, 0.5]])
    predictor = Predictor()
    (ours,) = structure_features([structure], predictor, as_atoms)
    (likely,) = structure_features([structure], predictor, most_likely)
    np.testing.assert_allclose(ours[:-7], predictor.embedding([structure])[0])
    assert not np.allclose(ours, likely)
    assert ours[-1] == 0.0, "the trees are told"


def _rows(n: int = 120) -> Conductors:
    """Labels that the structure decides; half of the rows have one."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=n)
    structure = np.where(np.arange(n)[:, None] % 2 == 0, signal[:, None], np.nan)
    return Conductors(
        formulas=[f"Li{k}" for k in range(n)],
        publications=[str(k // 4) for k in range(n)],
        composition=rng.normal(size=(n, 3)),
        structure=structure,
        most_likely=structure[rng.permutation(n)],
        log_conductivity=3 * signal,
        censored=np.zeros(n, bool),
    )


def test_informative_structures_win_and_shuffled_ones_do_not() -> None:
    rows = _rows()
    found = compare(rows, rows.publications, seeds=1)
    assert found["composition"]["difference"] == 0.0
    assert found["composition and structure"]["difference_interval"][0] > 0
    assert found["composition and another's structure"]["difference_interval"][0] < 0
    document = {
        "file": "x.csv",
        "rows": 120,
        "with structure": 60,
        "censored": 0,
        "seeds": 1,
        "date": "today",
        "machine": "this",
        "errors": {"publication": found},
    }
    assert "| composition and structure |" in markdown(document)


def test_a_censored_row_errs_above_its_bound_only() -> None:
    rows = _rows(40)
    low = Conductors(
        formulas=rows.formulas,
        publications=rows.publications,
        composition=rows.composition,
        structure=rows.structure,
        most_likely=rows.most_likely,
        log_conductivity=np.full(40, 5.0),
        censored=np.arange(40) < 40,
    )
    assert compare(low, low.formulas, seeds=1)["composition"]["mae"] == pytest.approx(0.0, abs=1e-9)
