"""Folds, censored rows and structural features of the conductivity experiment."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from click.testing import CliRunner
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase import Predictor, as_atoms, read_labelled, reduced_formula
from qdgnn_bench import conductivity_rows
from qdgnn_bench.conductivity import compare, conductivity, markdown
from qdgnn_bench.conductivity_rows import (
    Conductors,
    most_likely,
    read_conductors,
    structure_features,
    training_rows,
)

pytest.importorskip("sklearn")


def test_most_likely_element_and_empty_sites() -> None:
    species = [{"Li": 0.3}, {"Na": 0.6, "K": 0.4}, {"O": 1.0}]
    structure = Structure(np.eye(3) * 5, species, [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0]])
    assert str(most_likely(structure).symbols) == "NaO"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A crystal, and a composition with a censored conductivity."""
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
    return table, cifs


def test_rows_with_and_without_structure(files: tuple[Path, Path]) -> None:
    rows = read_conductors(*files, Predictor())
    assert rows.log_conductivity.tolist() == [-6.0, -10.0]
    assert rows.censored.tolist() == [False, True]
    assert rows.has_structure.tolist() == [True, False]
    assert np.isfinite(rows.structure[0]).all()
    np.testing.assert_array_equal(rows.structure[1, :-2], rows.formula[1])
    assert np.isnan(rows.structure[1, -2:]).all()
    assert not np.allclose(rows.structure[0, :-2], rows.formula[0])
    np.testing.assert_array_equal(rows.structure, rows.most_likely, "it is ordered")
    assert rows.composition[1, 2] == pytest.approx(3 / 8), "share of lithium"


def test_rows_for_training(files: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = [str(files[0]), "--cifs", str(files[1]), "--rows", str(tmp_path / "rows")]
    result = CliRunner().invoke(conductivity, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    columns = {"ionic_conductivity": "ionic_conductivity"}
    salt, other = read_labelled(
        tmp_path / "rows" / "table.jsonl", columns, partial=True, bounds=True
    )
    assert salt.atoms.get_volume() == pytest.approx(5.1**3 / 4, rel=1e-3)
    assert reduced_formula(other.atoms) == "Li3PS4"
    assert (salt.censored, other.censored) == (frozenset(), frozenset(columns))
    (again,) = read_labelled(
        tmp_path / "rows" / "table_compositions.jsonl", columns, partial=True, bounds=True
    )
    assert reduced_formula(again.atoms) == "LiCl"
    assert again.labels == salt.labels


def test_structure_of_another_composition_is_not_used(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conductivity_rows, "_fold", lambda material: type(material).__name__)
    measured, compositions = training_rows(*files)
    assert not compositions
    assert measured[0]["composition"] == {"Li": 1.0, "Cl": 1.0}
    assert not any("structure" in row for row in measured)


def test_disordered_crystals_are_taken_as_they_are() -> None:
    species = [{"Li": 0.4, "Na": 0.6}, {"Cl": 1.0}]
    structure = Structure(np.eye(3) * 4, species, [[0, 0, 0], [0.5, 0.5, 0.5]])
    predictor = Predictor()
    formula = predictor.embedding(["LiCl"])
    (ours,) = structure_features([structure], formula, predictor, as_atoms)
    (likely,) = structure_features([structure], formula, predictor, most_likely)
    np.testing.assert_allclose(ours[:-2], predictor.embedding([structure])[0])
    assert not np.allclose(ours, likely)
    assert ours[-1] == 0.0, "the trees are told"


def _rows(n: int = 100) -> Conductors:
    """Labels that the embedding decides."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=n)
    structure = np.stack([signal, np.where(np.arange(n) % 2, np.nan, 1.0)], axis=1)
    return Conductors(
        formulas=[f"Li{k}" for k in range(n)],
        publications=[str(k // 4) for k in range(n)],
        composition=rng.normal(size=(n, 3)),
        formula=signal[:, None],
        structure=structure,
        most_likely=structure[rng.permutation(n)],
        has_structure=np.arange(n) % 2 == 0,
        log_conductivity=3 * signal,
        censored=np.zeros(n, bool),
    )


def test_informative_embeddings_win_and_shuffled_ones_do_not() -> None:
    rows = _rows()
    found = compare(rows, rows.publications, seeds=1)
    assert found["boosted trees: composition"]["difference"] == 0.0
    assert found["mean with extra trees: composition"]["gain"] == 0.0
    assert found["boosted trees: composition and structure"]["difference_interval"][0] > 0
    for name in ("mean with extra trees: composition and its embedding",):
        assert found[name]["gain_interval"][0] > 0
    another = found["mean with extra trees: composition and another's embedding"]
    assert another["gain_interval"][0] < 0.05
    chosen = found["hybrid chosen in the training rows"]
    assert chosen["difference_interval"][0] > 0
    assert sum(chosen["chosen"].values()) == 5
    document = {
        "file": "x.csv",
        "rows": 100,
        "with structure": 50,
        "censored": 0,
        "seeds": 1,
        "date": "today",
        "machine": "this",
        "errors": {"publication": found},
    }
    text = markdown(document)
    assert "| boosted trees: composition and structure |" in text
    assert "is better than boosted trees" in text
    chosen["difference_interval"][0] = -0.1
    assert "is not clearly better than boosted trees" in markdown(document)


def test_a_censored_row_errs_above_its_bound_only() -> None:
    rows = _rows(40)
    low = replace(rows, log_conductivity=np.full(40, 5.0), censored=np.arange(40) < 40)
    found = compare(low, low.formulas, seeds=1)
    assert found["boosted trees: composition"]["mae"] == pytest.approx(0.0, abs=1e-9)
