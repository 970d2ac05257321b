"""Training of property models: it learns, repeats, goes on, and keeps folds apart."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.data import covalent_radii
from pymatgen.core import Structure

from qdgnn_ase import Predictor, Split, evaluate_properties, predict
from qdgnn_ase.data.dataset import join
from qdgnn_ase.data.splits import fold_of, reduced_formula
from qdgnn_ase.data.targets import read_labelled
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.segment import Edges
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.training.checkpoint import (
    CheckpointError,
    load_model,
    load_property_model,
    load_tensors,
    save_model,
)
from qdgnn_ase.training.config import PropertyTrainConfig, Source, parse_config
from qdgnn_ase.training.fit import fit
from qdgnn_ase.training.losses import property_loss
from qdgnn_ase.training.property_task import PropertyTask
from qdgnn_ase.training.step import compiled_step, eager_step, example_batch

ELEMENTS = ["Li", "Na", "K", "Mg", "Ca", "Sr", "Ti", "Mn", "Ni", "Zn"]
ANIONS = ["O", "S", "Se", "F", "Cl", "Br", "N"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rock salts whose 'properties' are functions of lattice constant and elements."""
    path = tmp_path_factory.mktemp("data") / "salts.jsonl"
    lines = []
    for k, (cation, anion) in enumerate((c, a) for c in ELEMENTS for a in ANIONS):
        radii = [covalent_radii[bulk(s, "fcc", a=4).numbers[0]] for s in (cation, anion)]
        constant = 2.1 * sum(radii)
        atoms = bulk(cation + anion, "rocksalt", a=constant)
        row = {
            "lattice": atoms.cell.array.tolist(),
            "species": list(atoms.symbols),
            "frac_coords": atoms.get_scaled_positions().tolist(),
            "energy": -0.5 * constant + 0.1 * float(atoms.numbers[0] % 3),
            "gap": max(0.0, 6.0 - constant) if k % 9 else None,
            "modulus": 4000.0 / constant**3,
        }
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def config(data: Path) -> PropertyTrainConfig:
    columns = {"formation_energy": "energy", "band_gap": "gap", "bulk_modulus": "modulus"}
    trunk = QDGNNConfig(cutoff=4.5, hidden=16, n_layers=1, n_vectors=4, n_pair=8, n_heads=2)
    return PropertyTrainConfig(
        sources=(Source(file=str(data), columns=columns),),
        trunk=trunk,
        n_members=4,
        epochs=12,
        learning_rate=1e-2,
        ema=0.5,
        max_edges=600,
        val=0.2,
        test=0.2,
    )


@pytest.fixture(scope="module")
def run(config: PropertyTrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fit(config, folder)
    return folder


def test_it_learns(config: PropertyTrainConfig, run: Path) -> None:
    task = PropertyTask(config)
    folds, _ = task.load()
    untrained = task.validate(task.start(folds["train"]), folds["val"])
    model, _, document = load_property_model(run / "best.safetensors")
    trained = task.validate(model, folds["val"])
    for name in ("formation_energy", "band_gap", "bulk_modulus"):
        assert trained[name] < 0.6 * untrained[name], name
        assert document["training"][f"val_{name}"] == pytest.approx(trained[name], rel=1e-4)


def test_errors_are_in_the_units_of_the_properties(
    config: PropertyTrainConfig, run: Path, data: Path
) -> None:
    """The validation error of the run is that of `predict` on the validation fold."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    folds, _ = PropertyTask(config).load()
    assert len(folds["train"]) + len(folds["val"]) < len(rows)
    labelled = read_labelled(data, config.sources[0].columns)
    val = [
        row for row in labelled if fold_of(reduced_formula(row.atoms), val=0.2, test=0.2) == "val"
    ]
    found = predict([row.atoms for row in val], run / "best.safetensors")
    training = load_property_model(run / "best.safetensors")[2]["training"]
    energy = [
        abs(p["formation_energy"].value - row.labels["formation_energy"])
        for p, row in zip(found, val, strict=True)
    ]
    # Of learned energies some 1e-7 eV/atom are the rounding of single precision.
    assert np.mean(energy) == pytest.approx(training["val_formation_energy"], rel=1e-3, abs=2e-7)
    modulus = [
        abs(np.log10(p["bulk_modulus"].value / row.labels["bulk_modulus"]))
        for p, row in zip(found, val, strict=True)
    ]
    assert np.mean(modulus) == pytest.approx(training["val_bulk_modulus"], rel=1e-3)


def test_a_killed_run_goes_on_with_the_same_weights(
    config: PropertyTrainConfig, run: Path, tmp_path: Path
) -> None:
    def die(epoch: int, share: float, parts: dict[str, float]) -> None:
        if epoch == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path, die)
    fit(config, tmp_path)
    wanted, got = (load_tensors(folder / "best.safetensors")[0] for folder in (run, tmp_path))
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, equal_nan=True, msg=name)


def test_scaler_sees_the_training_fold_only(
    config: PropertyTrainConfig, data: Path, tmp_path: Path
) -> None:
    """Labels of other folds may change as they like."""
    changed = tmp_path / data.name
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows:
        if fold_of("".join(row["species"]), val=0.2, test=0.2) != "train":
            row["energy"] = 1e3
    changed.write_text("\n".join(json.dumps(row) for row in rows))
    source = dataclasses.replace(config.sources[0], file=str(changed))
    tasks = [PropertyTask(config), PropertyTask(dataclasses.replace(config, sources=(source,)))]
    for task in tasks:
        task.load()
    for name, value in tasks[0].scaler.state_dict().items():
        assert torch.equal(tasks[1].scaler.state_dict()[name], value), name


def test_missing_labels_have_no_gradient(config: PropertyTrainConfig) -> None:
    task = PropertyTask(config)
    folds, _ = task.load()
    batch = join(folds["train"][:8])
    values = torch.zeros(8, len(config.targets), 4, requires_grad=True)
    labels = batch.targets["labels"].clone()
    labels[3] = torch.nan
    loss, _ = property_loss(values, labels, torch.ones(8, 4), task.scaler, task.weights, beta=0.0)
    (gradient,) = torch.autograd.grad(loss, values)
    assert float(gradient[3].abs().max()) == 0.0
    assert float(gradient[2].abs().min()) > 0.0


def test_values_below_the_bound_cost_more(config: PropertyTrainConfig) -> None:
    """Negative control: a positive gap costs nothing."""
    task = PropertyTask(config)
    task.load()
    k = config.targets.index("band_gap")
    labels = torch.full((2, len(config.targets)), torch.nan)
    losses = []
    for value in (-100.0, 100.0):
        values = torch.zeros(2, len(config.targets), 4)
        values[:, k] = value
        losses.append(
            float(property_loss(values, labels, torch.ones(2, 4), task.scaler, task.weights)[0])
        )
    assert losses[0] > 1.0
    assert losses[1] == 0.0


def test_bags_differ(config: PropertyTrainConfig) -> None:
    folds, _ = PropertyTask(config).load()
    bags = torch.cat([sample.targets["bag"] for sample in folds["train"]])
    assert 0.3 < float(bags.mean()) < 0.7
    assert not torch.equal(bags[:, 0], bags[:, 1])
    assert bool((torch.cat([s.targets["bag"] for s in folds["val"]]) == 1).all())


def check_step(config: PropertyTrainConfig) -> None:
    """The compiled step has the loss and the gradient of the eager one."""
    task = PropertyTask(config)
    samples = task.load()[0]["train"]
    model = task.start(samples)
    eager = eager_step(model, task.objective)
    compiled = compiled_step(model, task.objective, example_batch(model, samples))
    for batch in (join(samples[:9]), join(samples[5:22])):
        loss, parts, gradients = compiled(batch)
        wanted_loss, wanted_parts, wanted = eager(batch)
        assert float(loss) == pytest.approx(float(wanted_loss), rel=1e-5)
        assert parts.keys() == wanted_parts.keys()
        for got, want in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("autoencoder", [0.0, 0.5])
def test_compiled_step_equals_the_eager_one(
    config: PropertyTrainConfig, autoencoder: float
) -> None:
    check_step(dataclasses.replace(config, autoencoder=autoencoder))


def test_autoencoder_adds_its_loss_and_the_features_learn_the_edges(
    config: PropertyTrainConfig,
) -> None:
    weighted = PropertyTask(dataclasses.replace(config, autoencoder=100.0))
    samples = weighted.load()[0]["train"]
    model, batch = weighted.start(samples), join(samples)
    alone = PropertyTask(config)
    alone.scaler, alone.weights = weighted.scaler, weighted.weights
    base, parts = alone.objective(model, batch.graph, batch.targets)
    assert "edges" not in parts
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    found = []
    for _ in range(20):
        loss, parts = weighted.objective(model, batch.graph, batch.targets)
        found.append((float(loss.detach()), float(parts["edges"])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found[0][0] == pytest.approx(base.item() + 100.0 * found[0][1], rel=1e-5)
    assert found[-1][1] < 0.9 * found[0][1]


def test_config_round_trip(config: PropertyTrainConfig) -> None:
    assert parse_config(json.loads(json.dumps(config.to_dict()))) == config
    assert "metal_probability" in config.targets


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sources": ()}, "sources must name"),
        ({"bag": 0.0}, "bag must lie"),
        ({"penalty": -0.1}, "penalty must be"),
        ({"autoencoder": float("nan")}, "autoencoder must be at least 0"),
        ({"autoencoder": 0.1, "extend": "properties"}, "init must be None and autoencoder 0"),
        ({"weights": {"shear_modulus": 1.0}}, "weights must be of targets"),
        ({"epochs": 0}, "epochs must be larger"),
    ],
)
def test_bad_configs(config: PropertyTrainConfig, changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def test_no_formula_for_validation(config: PropertyTrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="val fold must hold at least one labelled structure"):
        fit(dataclasses.replace(config, val=0.0), tmp_path)


def test_the_two_kinds_of_models_are_not_mixed_up(run: Path) -> None:
    with pytest.raises(CheckpointError, match="must be a potential, got a property model"):
        load_model(run / "best.safetensors")
    with pytest.raises(CheckpointError, match="must be a property model, got a potential"):
        load_property_model("default")


def test_labels_have_weights(config: PropertyTrainConfig) -> None:
    """A weight per label: 0 is as good as missing, and only the ratio counts."""
    task = PropertyTask(config)
    folds, _ = task.load()
    labels = join(folds["train"][:8]).targets["labels"]
    values = torch.zeros(8, len(config.targets), 4)

    def loss(weights: torch.Tensor, wanted: torch.Tensor = labels) -> float:
        total, _ = property_loss(values, wanted, weights, task.scaler, task.weights, beta=0.0)
        return float(total)

    ones = torch.ones(8, len(config.targets), 4)
    assert loss(ones) == pytest.approx(loss(torch.ones(8, 4)))
    assert loss(0.01 * ones) == pytest.approx(loss(ones))
    some, fewer = ones.clone(), labels.clone()
    some[:3, 0], fewer[:3, 0] = 0.0, torch.nan
    assert loss(some) == pytest.approx(loss(ones, fewer))
    assert loss(some) != pytest.approx(loss(ones))


def test_init_gives_the_trunk_of_a_potential(
    config: PropertyTrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    potential = QDGNN(dataclasses.replace(config.trunk, quantum="none"), neighbors=17.0)
    path = tmp_path / "potential.safetensors"
    split = {"val": config.val, "test": config.test, "split_seed": config.split_seed}
    save_model(path, potential, {"train_config": split})
    task = PropertyTask(dataclasses.replace(config, init=str(path)))
    folds, provenance = task.load()
    assert provenance["init"]["train_config"] == split
    assert provenance["train_config"]["init"] == path.name
    assert "split" not in caplog.text
    model = task.start(folds["train"])
    assert model.neighbors == 17.0
    graph = join(folds["train"][:4]).graph
    vector = graph.edge_vectors()
    edges = Edges(graph.edge_index, len(graph.numbers))
    arguments = (graph.numbers, vector, vector.norm(dim=1, keepdim=True), edges)
    torch.testing.assert_close(model.trunk(*arguments), potential.trunk(*arguments))
    untrained = PropertyTask(config).start(folds["train"])
    assert not torch.allclose(untrained.trunk(*arguments), potential.trunk(*arguments))

    save_model(path, potential, {"train_config": split | {"split_seed": 7}})
    task.load()
    assert "may be among those it has seen" in caplog.text

    deeper = dataclasses.replace(config.trunk, n_layers=2)
    with pytest.raises(ValueError, match="architecture of init"):
        PropertyTask(dataclasses.replace(config, init=str(path), trunk=deeper)).start(
            folds["train"]
        )


@pytest.fixture(scope="module")
def mixed(
    config: PropertyTrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> PropertyTrainConfig:
    """Every other salt is a formula only, and every fifth has vacancies."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.jsonl"
    lines = []
    for k, line in enumerate(Path(config.sources[0].file).read_text().splitlines()):
        row = json.loads(line)
        if k % 2:
            row["formula"] = "".join(row["species"])
            del row["lattice"]
        elif k % 5 == 0:
            cation, anion = row["species"]
            structure = Structure(row["lattice"], [{cation: 0.9}, anion], row["frac_coords"])
            row = {"structure": structure.as_dict(), "energy": row["energy"]}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines))
    source = dataclasses.replace(config.sources[0], file=str(path))
    return dataclasses.replace(config, sources=(source,))


def test_training_takes_disorder_and_formulas(mixed: PropertyTrainConfig, tmp_path: Path) -> None:
    best = fit(dataclasses.replace(mixed, epochs=3), tmp_path)
    bases = load_property_model(best)[2]["training"]["bases"]
    assert set(bases) == {"structure", "disordered", "composition"}
    found = predict(["LiF", bulk("NaCl", "rocksalt", a=5.6)], best)
    assert [row["band_gap"].basis for row in found] == ["composition", "structure"]
    assert found[0]["band_gap"].in_domain, "compositions were in training"
    history = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert float(history[-1]["train_formation_energy"]) < float(
        history[0]["train_formation_energy"]
    )


def test_every_graph_has_the_same_fields(
    mixed: PropertyTrainConfig, config: PropertyTrainConfig
) -> None:
    """A compiled program is traced once."""
    for run_config, wanted in ((mixed, True), (config, False)):
        samples = PropertyTask(run_config).load()[0]["train"]
        assert {sample.graph.occupancies is not None for sample in samples} == {wanted}


@pytest.mark.slow
def test_traced_step_with_occupancies(
    mixed: PropertyTrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced, and run without inductor, which takes minutes."""
    monkeypatch.setattr(torch, "compile", lambda program, **_: program)
    check_step(mixed)


@pytest.mark.slow
def test_compiled_step_with_occupancies(mixed: PropertyTrainConfig) -> None:
    check_step(mixed)


def test_scaler_counts_by_occupancy(mixed: PropertyTrainConfig) -> None:
    """Labels that follow the composition leave nothing for the network."""
    task = PropertyTask(mixed)
    samples = task.load()[0]["train"]
    task.scaler.elements.copy_(torch.arange(95.0).expand_as(task.scaler.elements))
    task.scaler.mean.zero_()
    for sample in samples[:9]:
        occupancies = sample.graph.occupancies
        assert occupancies is not None
        shares = occupancies.sum(dim=0) / occupancies.sum()
        wanted = float(shares @ torch.arange(119.0))
        values = torch.zeros(1, len(mixed.targets), 4)
        found = task.scaler.transformed_values(values, sample.graph)
        assert float(found[0, 0, 0]) == pytest.approx(wanted, rel=1e-5)


def test_frames_of_one_material_are_split_by_frame(tmp_path: Path) -> None:
    """By formula one fold is empty; by frame neighbours in the file stay together."""
    frames = [bulk("NaCl", "rocksalt", a=5.2 + 0.04 * k) for k in range(20)]
    for k, atoms in enumerate(frames):
        atoms.info["energy_label"] = 0.1 * k
    file = tmp_path / "salt.extxyz"
    ase.io.write(file, frames)
    config = PropertyTrainConfig(
        sources=(Source(file=str(file), columns={"formation_energy": "energy_label"}),),
        trunk=QDGNNConfig(cutoff=3.0, hidden=8, n_layers=1, n_vectors=2, n_pair=4, n_heads=2),
        n_members=2,
        epochs=1,
        val=0.2,
        test=0.2,
    )
    with pytest.raises(ValueError, match="split_by 'frame'"):
        PropertyTask(config).load()
    config = dataclasses.replace(config, split_by="frame")
    best = fit(config, tmp_path / "run")
    (counts,) = load_property_model(best)[2]["training"]["files"]
    assert (counts["train"], counts["val"], counts["test"]) == (12, 4, 4)
    assert parse_config(config.to_dict()) == config
    split = Split.of_training(config.to_dict(), "test")
    columns = config.sources[0].columns
    report = evaluate_properties(Predictor(best), file, columns, split=split)
    assert report["formation_energy"]["structures"] == 4
    whole = evaluate_properties(Predictor(best), file, columns)
    assert whole["formation_energy"]["mae"] != report["formation_energy"]["mae"]
    with pytest.raises(ValueError, match="split_turn must be 0"):
        dataclasses.replace(config, split_turn=0.5)
    with pytest.raises(ValueError, match="split_by must be"):
        dataclasses.replace(config, split_by="atom")  # type: ignore[arg-type]
