"""The experiment finds what there is to find, and nothing where there is nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from click.testing import CliRunner

import qdgnn_bench.t1_experiment as t1_experiment
from qdgnn_ase import Predictor, Split, read_structures, reduced_formula, tight_binding
from qdgnn_bench.t1 import held_out, t1
from qdgnn_bench.t1_experiment import Table, experiment, out_of_fold
from qdgnn_bench.t1_features import composition_features, electronic_features
from qdgnn_bench.t1_report import markdown

pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t1_experiment, "FOLDS", 4)
    monkeypatch.setitem(t1_experiment._REGRESSOR, "max_iter", 60)


@pytest.fixture(scope="module")
def table() -> Table:
    """Errors of the model that the first T1 feature explains to one half, T0 not at all."""
    rng = np.random.default_rng(0)
    n = 500
    t1_values = rng.normal(size=(n, 3))
    gap = 3.0 + rng.normal(size=n) * 0.3
    error = t1_values[:, 0] + 0.3 * rng.normal(size=n)
    return Table(
        formulas=[f"formula {k % 250}" for k in range(n)],
        gap=gap,
        predicted=gap - error,
        fold=np.where(np.arange(n) % 3, "test", "val"),
        output=rng.normal(size=(n, 3)),
        t0=rng.normal(size=(n, 4)),
        t1=t1_values,
        t1_names=["a", "b", "c"],
        n_atoms=rng.integers(1, 21, size=n),
        t1_seconds=np.full(n, 0.01),
        predict_seconds=0.001,
    )


def test_signal_is_found_and_its_shuffled_copy_is_not(table: Table) -> None:
    result = experiment(table, seeds=1)
    for row in result["corrected"].values():
        real, shuffled = (row["reduction"][arm] for arm in ("T0 + T1", "T0 + shuffled T1"))
        assert real["share"] > 0.4
        assert real["interval"][0] > 0.3
        assert abs(shuffled["share"]) < 0.1
        assert row["mae"]["T0 + T1"] < 0.6 * result["model_mae"]
    assert result["built_in"]
    assert "is built in" in markdown(report(result))


def test_noise_is_not_built_in(table: Table) -> None:
    """Negative control: features without knowledge of the error."""
    noise = np.random.default_rng(1).normal(size=table.t1.shape)
    result = experiment(replace(table, t1=noise), seeds=1)
    for row in result["corrected"].values():
        low, high = row["reduction"]["T0 + T1"]["interval"]
        assert low < 0.03
        assert high < 0.1
    assert not result["built_in"]
    assert "stays outside the model" in markdown(report(result))


def test_undoing_harm_decides_nothing() -> None:
    """The loss that makes the model worse shows a larger share, and is not asked."""

    def row(t0: float, t1_error: float, share: float) -> dict[str, Any]:
        mae = {"T0": t0, "T0 + T1": t1_error, "T0 + shuffled T1": t0}
        return {"mae": mae, "reduction": {"T0 + T1": {"share": share}}}

    rows = {"absolute_error": row(0.177, 0.174, 0.013), "squared_error": row(0.197, 0.186, 0.062)}
    assert t1_experiment.decisive(rows)["share"] == 0.013


def test_the_control_learns_though_most_gaps_are_zero(table: Table) -> None:
    """With the absolute error as loss it does not: the median of every leaf is 0."""
    gap = np.where(table.t1[:, 0] > 0.5, 2.0 + table.t1[:, 1], 0.0)
    gap = np.maximum(gap, 0.0)
    result = experiment(replace(table, gap=gap, predicted=gap + 0.1), seeds=1)
    assert result["control"]["reduction"]["T0 + T1"]["interval"][0] > 0.3
    assert abs(result["control"]["reduction"]["T0 + shuffled T1"]["share"]) < 0.1


def report(result: dict[str, Any]) -> dict[str, Any]:
    extra = {"date": "today", "machine": "m", "versions": "v", "file": "f", "max_atoms": 20}
    extra["model_quantum"] = "t0"
    return result | extra


def test_no_formula_is_in_training_and_test(table: Table) -> None:
    """A target that only the formula tells cannot be learned, though each formula comes twice."""
    rng = np.random.default_rng(2)
    codes = np.array([int(name.split()[1]) for name in table.formulas])
    target = rng.normal(size=250)[codes]
    features = np.stack([np.sin(codes), np.cos(codes)], axis=1)
    features = np.round(features, 9)
    grouped = out_of_fold(features, target, table.formulas, loss="squared_error", seeds=1)
    alone = out_of_fold(
        features, target, [str(k) for k in range(len(codes))], loss="squared_error", seeds=1
    )
    errors = [np.abs(values - target).mean() for values in (grouped, alone)]
    assert errors[0] > 0.9 * np.abs(target - np.median(target)).mean()
    assert errors[1] < 0.95 * errors[0]


def test_features_of_a_crystal() -> None:
    atoms = bulk("MgO", "rocksalt", a=4.21)
    result, features = tight_binding(atoms), electronic_features(atoms)
    assert features["charge_max"] == pytest.approx(result.charges.max().item())
    assert features["charge_mean"] == pytest.approx(0.0, abs=1e-9)
    to_first = result.graph.edge_index[1] == 0
    orders = sorted([result.bond_orders[to_first].sum(), result.bond_orders[~to_first].sum()])
    assert features["valence_min"] == pytest.approx(orders[0].item())
    assert features["soft_gap"] == pytest.approx(result.soft_gap.item())
    silicon = bulk("Si")
    small, large = electronic_features(silicon), electronic_features(silicon * (2, 2, 2))
    assert list(large) == list(small) == list(features)
    np.testing.assert_allclose(list(large.values()), list(small.values()), atol=1e-6)
    composition = composition_features(atoms)
    assert composition.shape == (76,)
    np.testing.assert_allclose(composition_features(atoms * (1, 1, 2)), composition)


def test_a_lone_atom_has_no_bonds() -> None:
    features = electronic_features(Atoms("Ar"))
    assert features["largest_bond_order"] == 0.0
    assert np.isfinite(list(features.values())).all()


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rock salts of the default property model's held-out folds, and others of training."""
    metals = "Li Na K Rb Mg Ca Sr Ba Sc Ti V Cr Mn Fe Co Ni Y Zr Nb Mo Ag Cd La Ce Zn Al Ga In"
    others = "H F Cl Br I O S Se Te N P As Sb Bi C Si Ge Sn B"
    rows = []
    for metal in metals.split():
        for k, (other, lattice) in enumerate(product(others.split(), ("rocksalt", "zincblende"))):
            atoms = bulk(metal + other, lattice, a=4.6 + 0.03 * k)
            rows.append(
                {
                    "lattice": atoms.cell.array.tolist(),
                    "species": list(atoms.symbols),
                    "frac_coords": atoms.get_scaled_positions().tolist(),
                    "gap": float(k % 4) if k != 2 else None,
                }
            )
    path = tmp_path_factory.mktemp("crystals") / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_only_held_out_structures(crystals: Path) -> None:
    predictor = Predictor()
    config = predictor.document["training"]["train_config"]
    train = Split.of_training(config, "train")
    rows = held_out(predictor, str(crystals), "gap", 20, 105)
    assert len(rows) == 105
    assert {fold for _, _, fold in rows} == {"val", "test"}
    assert not any(train.holds(reduced_formula(atoms)) for atoms, _, _ in rows)
    assert all(np.isfinite(gap) for _, gap, _ in rows)
    assert any(train.holds(reduced_formula(atoms)) for atoms in read_structures(crystals))


def test_command(crystals: Path, tmp_path: Path) -> None:
    output = tmp_path / "t1.json"
    arguments = [str(crystals), "--column", "gap", "--max-structures", "60", "--seeds", "1"]
    result = CliRunner().invoke(t1, [*arguments, "-o", str(output)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads(output.read_text())
    assert document["structures"] == 60
    assert document["cross_validation"]["folds"] == 4
    subsets = document["subsets"]["squared_error"]
    folds = [subsets[name]["structures"] for name in ("validation fold", "test fold")]
    assert sum(folds) == 60
    assert min(folds) > 0
    total = sum(subsets[k]["structures"] * subsets[k]["model"] for k in ("gap = 0", "gap > 0"))
    assert total / 60 == pytest.approx(document["model_mae"])
    text = output.with_suffix(".md").read_text()
    assert f"{document['model_mae']:.3f} eV" in text
    assert str(crystals.parent) not in text + json.dumps(document)


def test_wrong_column_and_no_data(crystals: Path, tmp_path: Path) -> None:
    arguments = [str(crystals), "--column", "nonsense", "-o", str(tmp_path / "out.json")]
    result = CliRunner().invoke(t1, arguments)
    assert result.exit_code == 2
    assert "'nonsense'" in result.output
    few = CliRunner().invoke(
        t1, [str(crystals), "--column", "gap", "--max-atoms", "1", "-o", str(tmp_path / "out.json")]
    )
    assert few.exit_code == 2
    assert "got 0" in few.output


def test_output_that_would_overwrite_itself(crystals: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(t1, [str(crystals), "-o", str(tmp_path / "out.md")])
    assert result.exit_code == 2
    assert "must end in .json" in result.output


def test_without_scikit_learn(
    crystals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = CliRunner().invoke(t1, [str(crystals), "-o", str(tmp_path / "out.json")])
    assert result.exit_code == 1
    assert "pip install 'qdgnn-ase[bench]'" in result.output
