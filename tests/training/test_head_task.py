"""New heads on a trained model: they learn, the others do not change, domains are their own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from click.testing import CliRunner
from pymatgen.core import Lattice, Structure

from qdgnn_ase import Predictor, predict
from qdgnn_ase.cli.predict import predict as predict_command
from qdgnn_ase.cli.train import train
from qdgnn_ase.data.splits import reduced_formula
from qdgnn_ase.data.targets import bound_table, read_labelled
from qdgnn_ase.inference.evaluate_properties import evaluate_properties
from qdgnn_ase.nn.domain import HeadDomain
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.training.checkpoint import load_property_model, load_tensors
from qdgnn_ase.training.config import PropertyTrainConfig, Source
from qdgnn_ase.training.fit import fit
from qdgnn_ase.training.head_task import HeadTask
from qdgnn_ase.training.losses import property_errors, property_loss
from qdgnn_ase.training.scaler import Scaler

ANIONS = ["F", "Cl", "Br", "I", "O", "S", "Se", "N", "P", "As"]
PARTNERS = ["Na", "Mg", "Al", "Zn", "Ti"]
TINY = QDGNNConfig(cutoff=4.0, hidden=16, n_layers=1, n_vectors=4, n_radial=6, n_pair=8, n_heads=2)
OLD, NEW = ("formation_energy", "band_gap", "metal_probability"), "ionic_conductivity"


def crystal(cation: str, anion: str) -> dict[str, object]:
    atoms = bulk(cation + anion, "rocksalt", a=5.0)
    return {
        "lattice": atoms.cell.array.tolist(),
        "species": list(atoms.symbols),
        "frac_coords": atoms.get_scaled_positions().tolist(),
    }


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of energies and gaps of ordered crystals."""
    folder = tmp_path_factory.mktemp("base")
    rows = [
        crystal(c, a) | {"e": -0.1 * k, "gap": 0.2 * k}
        for k, (c, a) in enumerate((c, a) for c in ["Li", *PARTNERS] for a in ANIONS)
    ]
    columns = {"formation_energy": "e", "band_gap": "gap"}
    source = Source(file=str(write(folder / "base.jsonl", rows)), columns=columns)
    config = PropertyTrainConfig(
        sources=(source,), trunk=TINY, epochs=1, n_members=3, val=0.2, test=0.2
    )
    return fit(config, folder / "run")


@pytest.fixture(scope="module")
def conductors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compounds of lithium, crystals and compositions; oxides and nitrides are poor conductors."""
    rows: list[dict[str, object]] = []
    for k, (partner, anion) in enumerate((c, a) for c in PARTNERS for a in ANIONS):
        poor = anion in ("O", "N")
        value: dict[str, object] = {"sigma": "<1e-10" if poor and k % 2 else 1e-9 if poor else 1e-3}
        rows.append({"formula": f"Li2{partner}{anion}3"} | value)
        if partner == "Na":
            rows.append(crystal("Li", anion) | value)
    return write(tmp_path_factory.mktemp("data") / "conductors.jsonl", rows)


@pytest.fixture(scope="module")
def config(base: Path, conductors: Path) -> PropertyTrainConfig:
    return PropertyTrainConfig(
        sources=(Source(file=str(conductors), columns={NEW: "sigma"}),),
        extend=str(base),
        trunk=TINY,
        n_members=3,
        epochs=20,
        learning_rate=1e-2,
        ema=0.5,
        val=0.2,
        test=0.2,
    )


@pytest.fixture(scope="module")
def extended(config: PropertyTrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(config, tmp_path_factory.mktemp("extended"))


DISORDERED = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.0), [{"Li": 0.5, "Na": 0.4}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)


def test_what_was_predicted_stays_bit_for_bit(base: Path, extended: Path) -> None:
    materials = [bulk("NaCl", "rocksalt", a=5.6), DISORDERED, "Li3PS4"]
    before, after = Predictor(base)(materials), Predictor(extended)(materials)
    for old, new in zip(before, after, strict=True):
        assert set(new) == {*old, NEW}
        assert {name: new[name] for name in old} == old
        assert new[NEW].own_domain
        assert not new["band_gap"].own_domain
    old_tensors, new_tensors = load_tensors(base)[0], load_tensors(extended)[0]
    for name, value in old_tensors.items():
        new = new_tensors[name]
        kept = new[: len(value)] if name.startswith("scaler.") else new
        torch.testing.assert_close(kept, value, rtol=0, atol=0, equal_nan=True, msg=name)


def test_the_head_learns(config: PropertyTrainConfig, extended: Path, conductors: Path) -> None:
    task = HeadTask(config)
    folds, _ = task.load()
    untrained = task.validate(task.start(folds["train"]), folds["val"])[NEW]
    added = load_property_model(extended)[2]["training"]["added"]
    assert [run["targets"] for run in added] == [[NEW]]
    assert added[0][f"val_{NEW}"] < 0.6 * untrained
    known = evaluate_properties(Predictor(extended), conductors, {NEW: "sigma"})[NEW]
    n_bounds = int(
        bound_table(
            read_labelled(conductors, {NEW: "sigma"}, partial=True, bounds=True), (NEW,)
        ).sum()
    )
    assert n_bounds > 0
    assert known["structures"] == 60 - n_bounds, "upper bounds tell no error"


def test_its_domain_is_its_own(extended: Path) -> None:
    predictor = Predictor(extended)
    lithium, sodium = predictor(["Li2MgCl3", bulk("NaCl", "rocksalt", a=5.0)])
    assert lithium[NEW].in_domain
    assert not lithium["band_gap"].in_domain, "no composition was in its training"
    assert not sodium[NEW].in_domain, "all conductors had lithium"
    assert not predictor([DISORDERED])[0][NEW].in_domain, "no disordered one was in its training"
    domain = predictor.model.head_domains()[NEW]
    assert torch.nonzero(domain.needed).flatten().tolist() == [3]


def test_few_structures_without_an_element_do_not_make_it_dispensable() -> None:
    """Structures from X-rays sometimes lack their lithium."""
    sites = torch.zeros(100, 12)
    sites[:, 8] = 2
    sites[5:, 3] = 1
    sites[:50, 11] = 1
    domain = HeadDomain(12, 4)
    domain.set_elements(sites)
    assert torch.nonzero(domain.needed).flatten().tolist() == [3, 8]
    assert domain.counts.tolist() == [0, 0, 0, 95, 0, 0, 0, 0, 200, 0, 0, 50]
    domain.set_elements(sites[:95])
    assert torch.nonzero(domain.needed).flatten().tolist() == [8]


def test_overall_domain_of_the_command_is_that_of_the_shared_training(
    extended: Path, tmp_path: Path
) -> None:
    bulk("NaCl", "rocksalt", a=5.0).write(tmp_path / "salt.extxyz")
    arguments = [str(tmp_path / "salt.extxyz"), "--model", str(extended)]
    output = tmp_path / "out.csv"
    result = CliRunner().invoke(predict_command, [*arguments, "--csv", str(output)])
    assert result.exit_code == 0, result.output
    assert output.read_text().splitlines()[1].endswith("True")


def test_a_second_head_can_follow(
    config: PropertyTrainConfig, extended: Path, tmp_path: Path
) -> None:
    source = dataclasses.replace(config.sources[0], columns={"thermal_stability": "sigma"})
    rows = [json.loads(line) for line in Path(source.file).read_text().splitlines()]
    data = write(
        tmp_path / "stable.jsonl", [row | {"sigma": 100.0 + len(str(row))} for row in rows]
    )
    source = dataclasses.replace(source, file=str(data))
    again = dataclasses.replace(config, sources=(source,), extend=str(extended), epochs=1)
    model, scaler, document = load_property_model(fit(again, tmp_path / "run"))
    assert model.config.added == (NEW, "thermal_stability")
    assert [row.name for row in scaler.properties] == [*OLD, NEW, "thermal_stability"]
    assert len(document["training"]["added"]) == 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"trunk": dataclasses.replace(TINY, hidden=8)}, "trunk and n_members must be those of"),
        ({"n_members": 4}, "trunk and n_members must be those of"),
    ],
)
def test_other_architectures_are_refused(
    config: PropertyTrainConfig, tmp_path: Path, changes: dict[str, object], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        fit(dataclasses.replace(config, **changes), tmp_path)  # type: ignore[arg-type]


def test_targets_must_be_new(config: PropertyTrainConfig, tmp_path: Path) -> None:
    source = dataclasses.replace(config.sources[0], columns={"band_gap": "sigma"})
    with pytest.raises(ValueError, match="must be new to the model"):
        fit(dataclasses.replace(config, sources=(source,)), tmp_path)
    with pytest.raises(ValueError, match="init must be None"):
        dataclasses.replace(config, init="default")


def test_command(base: Path, conductors: Path, tmp_path: Path) -> None:
    arguments = [str(conductors), "--target", f"{NEW}=sigma", "--epochs", "1", "-o", str(tmp_path)]
    result = CliRunner().invoke(train, [*arguments, "--extend", str(base)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert NEW in Predictor(tmp_path / "best.safetensors").targets
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["test"] == 0.2, "the split is that of the model"
    both = CliRunner().invoke(train, [*arguments, "--extend", str(base), "--init", "default"])
    assert both.exit_code == 2
    assert "exclude each other" in both.output


def test_loss_of_an_upper_bound_is_one_sided() -> None:
    scaler = Scaler((NEW,))
    labels, bag = torch.zeros(2, 1), torch.ones(2, 1)
    censored = torch.tensor([[True], [False]])
    for shift, wanted in ((2.0, 2.0), (-2.0, 1.0)):
        values = torch.full((2, 1, 3), shift)
        loss, _ = property_loss(values, labels, bag, scaler, {NEW: 1.0}, censored=censored)
        assert float(loss) == pytest.approx(wanted)
        errors = property_errors(values, labels, scaler, censored)
        assert errors[NEW] == pytest.approx(wanted)
    assert property_errors(torch.full((2, 1, 3), -2.0), labels, scaler)[NEW] == pytest.approx(2.0)


def test_bounds_do_not_calibrate(config: PropertyTrainConfig) -> None:
    task = HeadTask(config)
    values = torch.randn(40, 1, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(40, 1)
    task.calibrate({"values": values}, {"labels": labels})
    wanted = float(task.scaler.calibration[0])
    labels = torch.cat([labels, torch.full((40, 1), 50.0)])
    censored = torch.arange(80)[:, None] >= 40
    both = {"values": values.repeat(2, 1, 1)}
    task.calibrate(both, {"labels": labels, "censored": censored})
    assert float(task.scaler.calibration[0]) == pytest.approx(wanted)


def test_formulas_of_the_test_fold_are_not_seen(config: PropertyTrainConfig) -> None:
    folds, provenance = HeadTask(config).load()
    counts = provenance["files"][0]
    assert counts["test"] > 0
    assert counts["train"] + counts["val"] + counts["test"] == 60
    assert len(folds["train"]) == counts["train"]
    assert (
        len(
            {
                reduced_formula(row.atoms)
                for row in read_labelled(
                    config.sources[0].file, config.sources[0].columns, partial=True, bounds=True
                )
            }
        )
        == 60
    )
    assert np.isfinite(folds["train"][0].targets["atoms"].numpy()).all()


def test_embedded_weights_tell_conductors_of_lithium_from_the_rest() -> None:
    sulfide, salt = predict(["Li6PS5Cl", "NaCl"])
    assert sulfide[NEW].in_domain
    assert sulfide[NEW].value > 100 * predict("Li2O")[NEW].value
    assert not salt[NEW].in_domain
    assert not sulfide["band_gap"].in_domain
