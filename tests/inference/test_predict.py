"""predict: names, units, domain, order, and what it refuses; its evaluation and commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from click.testing import CliRunner
from pymatgen.core import Composition, Lattice, Structure

from qdgnn_ase import PROPERTIES, Predictor, predict
from qdgnn_ase.cli.evaluate import evaluate
from qdgnn_ase.cli.predict import predict as predict_command
from qdgnn_ase.inference.evaluate_properties import calibration, evaluate_properties, metrics
from qdgnn_ase.nn.property_model import PropertyConfig, PropertyModel
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.quantum.references import elemental_cohesive_energies
from qdgnn_ase.training.checkpoint import save_property_model
from qdgnn_ase.training.scaler import Scaler

TARGETS = ("formation_energy", "band_gap", "metal_probability", "bulk_modulus", "shear_modulus")
CRYSTALS = [bulk("NaCl", "rocksalt", a=5.6), bulk("Si"), bulk("MgO", "rocksalt", a=4.2)]
DERIVED = {
    "cohesive_energy",
    "young_modulus",
    "poisson_ratio",
    "debye_temperature",
    "lindemann_temperature",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that know Na, Cl and Si."""
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    trunk = QDGNNConfig(cutoff=4.5, hidden=16, n_layers=1, n_vectors=4, n_pair=8, n_heads=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PropertyModel(PropertyConfig(targets=TARGETS, trunk=trunk, n_members=4))
    model.counts[[11, 17, 14]] = 10
    model.limit.fill_(torch.inf)
    scaler = Scaler(TARGETS)
    scaler.mean[3:] = 2.0
    train_config = {"val": 0.2, "test": 0.4, "split_seed": 0}
    save_property_model(path, model, scaler, {"train_config": train_config})
    return path


def test_names_and_units(checkpoint: Path) -> None:
    row = predict(CRYSTALS[0], checkpoint)
    assert set(row) == {*TARGETS, *DERIVED}
    for name, prediction in row.items():
        assert prediction.unit == PROPERTIES[name].unit
        assert prediction.derived == (name in DERIVED)
        assert np.isfinite(prediction.value)
        assert prediction.std >= 0


def test_sequence_equals_singles_in_order(checkpoint: Path) -> None:
    together = predict(CRYSTALS, checkpoint)
    for atoms, row in zip(CRYSTALS, together, strict=True):
        single = predict(atoms, Predictor(checkpoint))
        for name, prediction in row.items():
            assert prediction.value == pytest.approx(single[name].value, rel=1e-4)
    small = Predictor(checkpoint)(CRYSTALS, max_edges=1)
    assert small[2]["band_gap"].value == pytest.approx(together[2]["band_gap"].value, abs=1e-5)


def test_derived_values_follow_the_moduli(checkpoint: Path) -> None:
    row = predict(CRYSTALS[0], checkpoint)
    k, g = row["bulk_modulus"].value, row["shear_modulus"].value
    assert row["young_modulus"].value == pytest.approx(9 * k * g / (3 * k + g))


def test_cohesive_energy_is_left_out_where_it_is_unknown(checkpoint: Path) -> None:
    assert "cohesive_energy" not in predict(bulk("Xe", "fcc", a=6.2), checkpoint)


def test_values_stay_within_their_bounds(checkpoint: Path) -> None:
    predictor = Predictor(checkpoint)
    predictor.scaler.mean[1] = -100.0
    row = predictor([CRYSTALS[0]])[0]
    assert row["band_gap"].value == 0.0
    assert 0 <= row["metal_probability"].value <= 1
    assert row["bulk_modulus"].value > 0


def test_unseen_elements_and_far_structures_are_out_of_domain(checkpoint: Path) -> None:
    predictor = Predictor(checkpoint)
    inside = [row["band_gap"].in_domain for row in predictor(CRYSTALS)]
    assert inside == [True, True, False]  # Mg and O were not in training
    predictor.model.limit.fill_(-1.0)
    assert not predictor([CRYSTALS[0]])[0]["young_modulus"].in_domain


def test_calibration_scales_the_uncertainty(checkpoint: Path) -> None:
    predictor = Predictor(checkpoint)
    before = predictor([CRYSTALS[0]])[0]["formation_energy"].std
    predictor.scaler.calibration[0] = 3.0
    assert predictor([CRYSTALS[0]])[0]["formation_energy"].std == pytest.approx(3 * before)


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        (Atoms("Fm", cell=[4.0] * 3, pbc=True), r"structure 1: .*1\.\.94, got \[100\]"),
        (Atoms("Na2", [[0, 0, 0], [np.nan, 0, 0]], cell=[4.0] * 3, pbc=True), "structure 1"),
        (Atoms(), "structure 1"),
    ],
)
def test_broken_structure_is_named(checkpoint: Path, broken: Atoms, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        predict([CRYSTALS[0], broken], checkpoint)


def test_unknown_model() -> None:
    with pytest.raises(FileNotFoundError, match="nonsense"):
        predict(CRYSTALS[0], "nonsense")


def test_structure_is_not_changed(checkpoint: Path) -> None:
    atoms = CRYSTALS[0].copy()
    predict(atoms, checkpoint)
    assert atoms == CRYSTALS[0]


SALTS = [{"Na": 0.5, "K": 0.5}, {"K": 0.5, "Na": 0.5}, {"Na": 1.0}]


def test_disorder_and_formulas_are_flagged(checkpoint: Path) -> None:
    """Whatever the order of species; a site with one element is no disorder."""
    lattice, places = Lattice.cubic(4.0), [[0, 0, 0], [0.5] * 3]
    salts = [Structure(lattice, [site, "Cl"], places) for site in SALTS]
    salts.append(Structure(lattice, ["Na", "Cl"], places))
    one, two, full, ordered, formula = predict([*salts, "Na4Cl4"], checkpoint)
    assert {row.basis for row in one.values()} == {"disordered"}
    assert {row.basis for row in full.values()} == {"structure"}
    assert {row.basis for row in formula.values()} == {"composition"}
    assert ordered["formation_energy"].basis == "structure"
    for name, row in one.items():
        assert not row.in_domain, "training had ordered structures only"
        assert row.value == pytest.approx(two[name].value, rel=1e-6)
    for name, row in ordered.items():
        assert full[name].value == pytest.approx(row.value, rel=1e-6, abs=1e-6)
    assert not formula["formation_energy"].in_domain
    assert "debye_temperature" not in one
    assert "debye_temperature" in ordered
    fractions = {"Na": 0.25, "K": 0.25, "Cl": 0.5}
    energies = elemental_cohesive_energies()
    cohesion = sum(x * energies[atomic_numbers[symbol]] for symbol, x in fractions.items())
    assert one["cohesive_energy"].value == pytest.approx(cohesion - one["formation_energy"].value)


def test_a_composition_is_the_same_in_any_amount(checkpoint: Path) -> None:
    small, large = predict(["NaCl", Composition("Na8Cl8")], checkpoint)
    assert small["band_gap"] == large["band_gap"]


def test_wrong_material_is_named(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="structure 1: formula must be one such as Li3PS4"):
        predict(["NaCl", "nonsense7"], checkpoint)


def test_command_flags_disorder(checkpoint: Path, tmp_path: Path) -> None:
    cif, table = tmp_path / "a.cif", tmp_path / "b.csv"
    Structure(Lattice.cubic(4.0), [SALTS[0], "Cl"], [[0, 0, 0], [0.5] * 3]).to(str(cif))
    table.write_text("formula\nNaCl\n")
    arguments = ["--model", str(checkpoint), "--csv", str(tmp_path / "o.csv")]
    result = CliRunner().invoke(predict_command, [str(cif), str(table), *arguments])
    assert result.exit_code == 0, result.output
    assert "disordered" in result.output
    assert "composition only" in result.output
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    assert [row["basis"] for row in rows] == ["disordered", "composition"]
    assert [row["formula"] for row in rows] == ["KNaCl2", "NaCl"]
    assert [row["in_domain"] for row in rows] == ["False", "False"]


def test_command(checkpoint: Path, tmp_path: Path) -> None:
    good, mixed, broken = (tmp_path / name for name in ("a.extxyz", "b.extxyz", "c.cif"))
    ase.io.write(good, CRYSTALS)
    ase.io.write(mixed, [CRYSTALS[0], Atoms("Fm", cell=[4.0] * 3, pbc=True), CRYSTALS[1]])
    broken.write_text("nonsense")
    arguments = ["--model", str(checkpoint), "--json", str(tmp_path / "o.json")]
    arguments += ["--csv", str(tmp_path / "o.csv")]
    result = CliRunner().invoke(predict_command, [str(good), *arguments])
    assert result.exit_code == 0, result.output
    assert "3 structures predicted, 0 left out" in result.output
    result = CliRunner().invoke(predict_command, [str(mixed), str(broken), str(good), *arguments])
    assert result.exit_code == 1
    assert "5 structures predicted, 2 left out" in result.output
    assert "b.extxyz, structure 1: atomic numbers must lie" in result.output.replace("\n", " ")
    rows = json.loads((tmp_path / "o.json").read_text())
    assert [row["index"] for row in rows] == [0, 2, 0, 1, 2]
    with (tmp_path / "o.csv").open() as lines:
        table = list(csv.DictReader(lines))
    wanted = predict(CRYSTALS[0], checkpoint)["band_gap"].value
    assert float(table[0]["band_gap"]) == pytest.approx(wanted, abs=1e-5)


@pytest.fixture
def labelled(tmp_path: Path, checkpoint: Path) -> Path:
    """Predictions of 20 crystals with known errors as labels."""
    symbols = ["Cu", "Al", "Si", "Ge", "Fe", "Cr", "W", "Ag", "Au", "Ni"]
    crystals = [bulk(s) for s in symbols] + [bulk(s).repeat((1, 1, 2)) for s in symbols]
    for k, (atoms, row) in enumerate(zip(crystals, predict(crystals, checkpoint), strict=True)):
        atoms.info["energy_label"] = row["formation_energy"].value + 0.1 * (-1) ** k
        atoms.info["modulus"] = row["bulk_modulus"].value * 10**0.2
    path = tmp_path / "labelled.extxyz"
    ase.io.write(path, crystals)
    return path


def test_evaluation(labelled: Path, checkpoint: Path) -> None:
    columns = {"formation_energy": "energy_label", "bulk_modulus": "modulus"}
    report = evaluate_properties(Predictor(checkpoint), labelled, columns)
    energy, modulus = report["formation_energy"], report["bulk_modulus"]
    assert (energy["structures"], energy["formulas"], energy["unit"]) == (20, 10, "eV/atom")
    assert energy["mae"] == pytest.approx(0.1, abs=1e-4)
    assert energy["rmse"] == pytest.approx(0.1, abs=1e-4)
    assert energy["mae_interval"] == pytest.approx([0.1, 0.1], abs=1e-4)
    assert modulus["log10_mae"] == pytest.approx(0.2, abs=1e-4)
    assert report["timing"]["batch_1_ms"] > 0
    with pytest.raises(ValueError, match="got \\['last_phonon_peak'\\]"):
        evaluate_properties(Predictor(checkpoint), labelled, {"last_phonon_peak": "modulus"})


def test_evaluate_command(labelled: Path, checkpoint: Path, tmp_path: Path) -> None:
    arguments = [str(labelled), "--model", str(checkpoint), "--json", str(tmp_path / "o.json")]
    target = ["--target", "formation_energy=energy_label"]
    result = CliRunner().invoke(evaluate, [*arguments, *target])
    assert result.exit_code == 0, result.output
    every = json.loads((tmp_path / "o.json").read_text())["files"][labelled.name]
    result = CliRunner().invoke(evaluate, [*arguments, *target, "--fold", "test"])
    assert result.exit_code == 0, result.output
    fold = json.loads((tmp_path / "o.json").read_text())["files"][labelled.name]
    assert 0 < fold["formation_energy"]["structures"] < every["formation_energy"]["structures"]
    wrong = CliRunner().invoke(evaluate, [*arguments, "--target", "formation_energy"])
    assert "must be NAME=COLUMN" in wrong.output


def test_evaluation_of_metals_alone(checkpoint: Path, tmp_path: Path) -> None:
    """Neither an area under the curve nor R2 exists; the other figures are written all the same."""
    crystals = [bulk(symbol) for symbol in ("Cu", "Al", "Na")]
    for atoms in crystals:
        atoms.info["gap"] = 0.0
    path, output = tmp_path / "metals.extxyz", tmp_path / "o.json"
    ase.io.write(path, crystals)
    arguments = [str(path), "--model", str(checkpoint), "--target", "band_gap=gap"]
    result = CliRunner().invoke(evaluate, [*arguments, "--json", str(output)])
    assert result.exit_code == 0, result.output
    report = json.loads(output.read_text())["files"]["metals.extxyz"]
    assert report["metal_probability"]["auc"] is None
    assert "auc_interval" not in report["metal_probability"]
    assert report["band_gap"]["r2"] is None
    assert len(report["band_gap"]["mae_interval"]) == 2


def test_evaluate_command_takes_a_cif_folder(checkpoint: Path, tmp_path: Path) -> None:
    for symbol in ("Cu", "Si"):
        ase.io.write(tmp_path / f"{symbol}.cif", bulk(symbol))
    (tmp_path / "id_prop.csv").write_text("Cu,0.0\nSi,0.6\n")
    folder = [str(tmp_path), "--model", str(checkpoint)]
    result = CliRunner().invoke(evaluate, [*folder, "--target", "band_gap=1"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(evaluate, [str(tmp_path)])
    assert "a folder of CIF files needs --target" in result.output
    result = CliRunner().invoke(evaluate, [*folder, "--target", "band_gap=1", "--dtype", "float64"])
    assert "--dtype is of potentials" in result.output


def test_metrics_against_hand_made_numbers() -> None:
    values, labels = np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 2.0])
    found = metrics("band_gap", values, labels)
    assert found["mae"] == pytest.approx(1.0)
    assert found["rmse"] == pytest.approx((5 / 3) ** 0.5)
    assert found["r2"] == pytest.approx(1 - 5 / (2 / 3))
    assert found["mape"] == pytest.approx((0 + 1 + 1) / 3)
    assert "mape" not in metrics("band_gap", values, np.array([0.0, 1.0, 2.0]))
    doubled = metrics("band_gap", values, labels, np.array([0.0, 0.0, 1.0]))
    assert doubled["mae"] == pytest.approx(2.0)


def test_area_under_the_curve() -> None:
    labels = np.array([0.0, 0.0, 1.0, 1.0])
    perfect = metrics("metal_probability", np.array([0.1, 0.2, 0.8, 0.9]), labels)
    assert perfect == {"accuracy": 1.0, "auc": 1.0}
    assert metrics("metal_probability", np.full(4, 0.3), labels)["auc"] == pytest.approx(0.5)
    assert metrics("metal_probability", 1 - labels, labels)["auc"] == 0.0


def test_calibration_of_right_and_wrong_sigmas() -> None:
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.5, 2.0, size=20_000)
    errors = sigma * rng.normal(size=20_000)
    right, small = calibration(errors, sigma), calibration(errors, 0.3 * sigma)
    assert right["calibration_error"] < 0.01
    assert right["within_sigma"] == pytest.approx(0.683, abs=0.01)
    assert right["spearman"] > 0.3
    assert small["calibration_error"] > 0.2  # negative control
    assert abs(calibration(errors, rng.permutation(sigma))["spearman"]) < 0.05
