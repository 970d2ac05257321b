"""The DeepChem plugin: DeepChem's own cycle, the core's numbers, what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii
from click import UsageError
from click.testing import CliRunner
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

import qdgnn_deepchem as qd
import qdgnn_deepchem.bench as bench_module
from qdgnn_ase import (
    AtomGraph,
    Predictor,
    Property,
    QDGNNConfig,
    from_atoms,
    load_property_model,
    predict,
    reduced_formula,
)

pytestmark = [
    pytest.mark.skipif(find_spec("deepchem") is None, reason="no deepchem"),
    pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning"),
]

TRUNK = QDGNNConfig(cutoff=4.5, hidden=16, n_layers=1, n_vectors=4, n_pair=8, n_heads=2)
CATIONS = ["Li", "Na", "K", "Mg", "Ca", "Sr", "Ti", "Mn", "Ni", "Zn"]
ANIONS = ["O", "S", "Se", "F", "Cl", "Br", "N"]


@pytest.fixture(scope="module")
def dc() -> Any:
    """DeepChem, whose import warns and prints."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepchem
        import deepchem.models.torch_models
    return deepchem


def _salt(cation: str, anion: str) -> Atoms:
    radii = [covalent_radii[Atoms(symbol).numbers[0]] for symbol in (cation, anion)]
    atoms = bulk(cation + anion, "rocksalt", a=2.1 * sum(radii))
    constant = 2.1 * sum(radii)
    atoms.info |= {
        "energy_label": -0.5 * constant + 0.1 * float(atoms.numbers[0] % 3),
        "gap_label": max(0.0, 6.0 - constant),
        "is_large": float(constant > 4.6),
    }
    return atoms


SALTS = [_salt(cation, anion) for cation in CATIONS for anion in ANIONS]


def _labels(*names: str) -> np.ndarray:
    return np.array([[atoms.info[name] for name in names] for atoms in SALTS])


@pytest.fixture(scope="module")
def graphs(dc: Any) -> Any:
    return qd.QDGNNFeaturizer(cutoff=4.5).featurize(SALTS)


@pytest.fixture
def folds(dc: Any, graphs: Any) -> Any:
    """Training, validation and test by formula."""
    dataset = dc.data.NumpyDataset(graphs, _labels("energy_label"))
    return qd.FormulaSplitter().train_valid_test_split(
        dataset, frac_train=0.6, frac_valid=0.2, frac_test=0.2
    )


def small(**options: Any) -> Any:
    defaults = {"trunk": TRUNK, "n_members": 4, "batch_size": 16, "learning_rate": 5e-3}
    return qd.QDGNNModel(**defaults | options)


# DeepChem's cycle


def cycle(dc: Any, model_class: Any, features: Any, folder: Path, **options: Any) -> float:
    """Fit, predict, evaluate, save, restore, transfer as DeepChem documents for CGCNNModel."""
    datasets = [dc.data.NumpyDataset(features, _labels("energy_label"))]
    transformer = dc.trans.NormalizationTransformer(transform_y=True, dataset=datasets[0])
    dataset = transformer.transform(datasets[0])
    train, test = dataset.select(range(0, 60)), dataset.select(range(60, 70))
    create = partial(model_class, mode="regression", batch_size=32, learning_rate=0.001, **options)
    model = create(n_tasks=1, model_dir=str(folder / "first"))
    losses: list[float] = []
    model.fit(train, nb_epoch=3, all_losses=losses)
    assert np.isfinite(losses).all()
    metric = dc.metrics.Metric(dc.metrics.mae_score)
    score = model.evaluate(test, [metric], [transformer])["mae_score"]
    before = model.predict(test)
    assert before.shape == (10, 1)
    in_units = model.predict(test, [transformer])
    assert score == pytest.approx(np.abs(in_units - transformer.untransform(test.y)).mean())

    restored = create(n_tasks=1, model_dir=str(folder / "first"))
    restored.restore()
    np.testing.assert_array_equal(restored.predict(test), before)

    two = dc.data.NumpyDataset(features, _labels("energy_label", "gap_label"))
    other = create(n_tasks=2, model_dir=str(folder / "second"))
    other.load_from_pretrained(restored, include_top=False)
    other.fit(two, nb_epoch=1)
    assert other.predict(test).shape == (10, 2)
    return float(score)


def test_documented_cycle_with_the_class_name_exchanged(
    dc: Any, graphs: Any, tmp_path: Path
) -> None:
    """The same function, once as documented and once with QDGNNModel."""
    dims = {"in_node_dim": graphs[0].node_features.shape[1], "in_edge_dim": 1}
    assert np.isfinite(cycle(dc, dc.models.CGCNNModel, graphs, tmp_path / "cgcnn", **dims))
    assert np.isfinite(cycle(dc, qd.QDGNNModel, graphs, tmp_path / "ours", trunk=TRUNK))


def test_it_learns(dc: Any, folds: Any) -> None:
    train, valid, _ = folds
    task = Property(name="energy", unit="eV", description="a test", pooling="atoms")
    model = small(tasks=[task])
    metric = dc.metrics.Metric(dc.metrics.mae_score)
    model.fit(train, nb_epoch=1)
    untrained = model.evaluate(valid, [metric])["mae_score"]
    model.fit(train, nb_epoch=25)
    assert model.evaluate(valid, [metric])["mae_score"] < 0.6 * untrained


def test_callbacks_schedule_and_progress(
    dc: Any, folds: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, valid, _ = folds
    schedule = dc.models.optimizers.ExponentialDecay(5e-3, 0.5, 3)
    model = small(learning_rate=schedule, model_dir=str(tmp_path / "model"))
    text = io.StringIO()
    metric = dc.metrics.Metric(dc.metrics.mae_score)
    validation = dc.models.ValidationCallback(
        valid, 3, [metric], output_file=text, save_dir=str(tmp_path / "best")
    )
    model.fit(train, nb_epoch=3, callbacks=[validation], progress=True)
    steps = model.get_global_step()
    assert steps == 3 * -(-len(train) // 16)
    assert model._pytorch_optimizer.param_groups[0]["lr"] == pytest.approx(
        5e-3 * 0.5 ** (steps / 3)
    )
    assert text.getvalue().count("validation: mae_score=") == steps // 3
    model.restore(model_dir=str(tmp_path / "best"))
    best = model.evaluate(valid, [metric])["mae_score"]
    assert best == pytest.approx(validation.get_best_score())
    assert "training" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["PolynomialDecay", "LinearCosineDecay"])
@pytest.mark.parametrize("within", ["model", "optimizer", "variables"])
def test_schedules_that_deepchem_squares(dc: Any, folds: Any, kind: str, within: str) -> None:
    """Ours runs at the rate that is asked for; DeepChem's own model at its square (2.8)."""
    optimizers = dc.models.optimizers
    schedule = (
        optimizers.PolynomialDecay(4e-3, 2e-3, 4)
        if kind == "PolynomialDecay"
        else optimizers.LinearCosineDecay(4e-3, 4, alpha=0.0, beta=0.5)
    )
    wanted = 3e-3 if kind == "PolynomialDecay" else 4e-3 * 0.75  # half way
    options: dict[str, Any] = {"learning_rate": schedule}
    if within == "optimizer":
        options = {"optimizer": optimizers.Adam(learning_rate=schedule)}
    model = small(**options | {"batch_size": -(-len(folds[0]) // 2)})
    variables = model.head_parameters if within == "variables" else None
    model.fit(folds[0], nb_epoch=1, variables=variables)
    optimizer = model._pytorch_optimizer
    if variables:
        ((optimizer, _),) = model._optimizer_for_vars.values()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(wanted)
    faulty = torch.optim.Adam(model.head_parameters, lr=4e-3)
    schedule._create_pytorch_schedule(faulty)
    assert faulty.param_groups[0]["lr"] < 0.01 * 4e-3


def test_fit_goes_on_from_a_checkpoint(dc: Any, folds: Any, tmp_path: Path) -> None:
    train = folds[0]
    create = partial(small, learning_rate=dc.models.optimizers.PolynomialDecay(1e-2, 1e-4, 8))
    straight = create()
    straight.fit(train, nb_epoch=2, deterministic=True)
    halves = [create(model_dir=str(tmp_path)) for _ in range(2)]
    halves[0].fit(train, nb_epoch=1, deterministic=True)
    halves[1].fit(train, nb_epoch=1, deterministic=True, restore=True)
    assert halves[1].get_global_step() == straight.get_global_step()
    rates = [model._pytorch_optimizer.param_groups[0]["lr"] for model in (halves[1], straight)]
    assert rates[0] == pytest.approx(rates[1])
    np.testing.assert_allclose(halves[1].predict(train), straight.predict(train), rtol=1e-5)


def test_normalization_changes_nothing(dc: Any, folds: Any) -> None:
    """Labels are scaled anyway; predictions come back in the labels' units."""
    train, _, test = folds
    transformer = dc.trans.NormalizationTransformer(transform_y=True, dataset=train)
    plain, normal = small(), small()
    plain.fit(train, nb_epoch=3, deterministic=True)
    normal.fit(transformer.transform(train), nb_epoch=3, deterministic=True)
    np.testing.assert_allclose(
        normal.predict(test, [transformer]), plain.predict(test), rtol=1e-3, atol=1e-4
    )
    valid = folds[1]
    plain.calibrate(valid)
    normal.calibrate(transformer.transform(valid))
    value, std = normal.predict_uncertainty(test, transformers=[transformer])
    np.testing.assert_allclose(value, normal.predict(test, [transformer]), rtol=1e-6)
    np.testing.assert_allclose(std, plain.predict_uncertainty(test)[1], rtol=2e-2)


# labels


def test_weight_zero_masks_a_label(dc: Any, graphs: Any) -> None:
    """Whatever stands there, and NaN too; a weight that is not 0 does not (the control)."""
    labels = _labels("energy_label", "gap_label")
    weights = np.ones_like(labels)
    weights[::3, 1] = 0.0

    def trained(fill: float, w: np.ndarray) -> np.ndarray:
        y = np.where(weights > 0, labels, fill)
        model = small(n_tasks=2)
        model.fit(dc.data.NumpyDataset(graphs, y, w), nb_epoch=2, deterministic=True)
        return model.predict(dc.data.NumpyDataset(graphs))

    masked = trained(0.0, weights)
    np.testing.assert_array_equal(trained(1e3, weights), masked)
    np.testing.assert_array_equal(trained(np.nan, np.ones_like(labels)), masked)
    assert np.abs(trained(1e3, np.ones_like(labels)) - masked).max() > 1.0


def test_weights_weigh(dc: Any, graphs: Any) -> None:
    """Two contradicting labels of one structure: the heavier wins."""
    few = np.concatenate([graphs[:8], graphs[:8]])
    y = np.repeat([[0.0], [1.0]], 8, axis=0)
    w = np.repeat([[0.2], [1.0]], 8, axis=0)
    model = small(bag=1.0)
    model.fit(dc.data.NumpyDataset(few, y, w), nb_epoch=60)
    assert model.predict(dc.data.NumpyDataset(graphs[:8])).mean() > 0.8


def test_classification(dc: Any, graphs: Any) -> None:
    labels = _labels("is_large")
    dataset = dc.data.NumpyDataset(graphs, labels)
    model = small(mode="classification")
    model.fit(dataset, nb_epoch=20)
    shares = model.predict(dataset)
    assert shares.shape == (len(SALTS), 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    auc = dc.metrics.Metric(dc.metrics.roc_auc_score)
    assert model.evaluate(dataset, [auc])["roc_auc_score"] > 0.95
    _, std = model.predict_uncertainty(dataset)  # shares need no calibration
    assert std.shape == (len(SALTS), 2)
    assert (std >= 0).all()
    assert (std <= 0.58).all()
    several = small(mode="classification", n_tasks=3).predict(dataset)
    assert several.shape == (len(SALTS), 3, 2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mode": "classification", "n_classes": 3}, "n_classes must be 2"),
        ({"mode": "ranking"}, "mode must be"),
        ({"mode": "classification", "tasks": ["band_gap"]}, "must be probabilities"),
        ({"tasks": ["young_modulus"]}, "target must be one of"),
        ({"n_tasks": 0}, "at least one"),
        ({"bag": 0.0}, "bag must lie"),
        ({"n_members": 1}, "n_members must be at least 2"),
    ],
)
def test_bad_arguments(dc: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        small(**options)


def test_bad_labels_and_graphs(dc: Any, graphs: Any) -> None:
    two = dc.data.NumpyDataset(graphs, _labels("energy_label", "gap_label"))
    with pytest.raises(ValueError, match="got an empty data set"):
        small().calibrate(two.select([]))
    with pytest.raises(ValueError, match="labels must be of 1 tasks, got 2"):
        small().fit(two)
    nothing = dc.data.NumpyDataset(graphs, _labels("gap_label"), np.zeros((len(SALTS), 1)))
    with pytest.raises(ValueError, match="at least one label of task_0"):
        small().fit(nothing)
    with pytest.raises(ValueError, match="bulk_modulus must be larger than 0 GPa"):
        small(tasks=["bulk_modulus"]).fit(dc.data.NumpyDataset(graphs, _labels("energy_label")))
    other = dc.data.NumpyDataset(qd.QDGNNFeaturizer(cutoff=4.0).featurize(SALTS[:2]), [[0], [1]])
    with pytest.raises(ValueError, match=r"cutoff 4\.5 Å, got 4\.0"):
        small().predict(other)


# uncertainty and embeddings


def test_uncertainty_is_calibrated_or_refused(dc: Any, folds: Any, tmp_path: Path) -> None:
    train, valid, test = folds
    model = small(model_dir=str(tmp_path))
    with pytest.raises(ValueError, match="call calibrate"):
        model.predict_uncertainty(test)
    model.fit(train, nb_epoch=4)
    with pytest.raises(ValueError, match="call calibrate"):
        model.predict_uncertainty(test)
    model.calibrate(valid)
    value, std = model.predict_uncertainty(valid)
    np.testing.assert_array_equal(value, model.predict(valid))
    within = (np.abs(value - valid.y) <= std).mean()
    assert within == pytest.approx(0.683, abs=1.5 / len(valid))
    again = model.predict_uncertainty_on_batch(valid.X)
    np.testing.assert_array_equal(again[1], std)
    model.save_checkpoint()
    kept = small(model_dir=str(tmp_path))
    kept.restore()
    np.testing.assert_array_equal(
        kept.predict_uncertainty(test)[1], model.predict_uncertainty(test)[1]
    )
    model.fit(train, nb_epoch=1)
    with pytest.raises(ValueError, match="call calibrate"):
        model.predict_uncertainty(test)


def test_embeddings(dc: Any, graphs: Any) -> None:
    model = small()
    embedding = model.predict_embedding(dc.data.NumpyDataset(graphs))
    assert embedding.shape == (len(SALTS), TRUNK.hidden)
    with torch.no_grad():
        one = model.model.core(graphs[3].to_atom_graph())["embedding"][0]
    np.testing.assert_allclose(embedding[3], one, atol=1e-5)


# the core's model


def test_same_predictions_as_the_core(dc: Any) -> None:
    """With the embedded weights: every task, its value and its standard deviation."""
    structures = np.empty(4, dtype=object)
    structures[:] = [bulk("MgO", "rocksalt", a=4.21), bulk("Si"), bulk("Cu"), SALTS[5]]
    model = qd.QDGNNModel.from_pretrained()
    assert model.config.targets == Predictor().targets
    dataset = dc.data.NumpyDataset(structures)
    value, std = model.predict_uncertainty(dataset)
    wanted = predict(list(structures))
    for k, name in enumerate(model.config.targets):
        np.testing.assert_allclose(value[:, k], [row[name].value for row in wanted], rtol=1e-6)
        np.testing.assert_allclose(std[:, k], [row[name].std for row in wanted], rtol=1e-6)
    np.testing.assert_array_equal(value, model.predict(dataset))


def test_the_core_reads_a_checkpoint(dc: Any, folds: Any, tmp_path: Path) -> None:
    train, valid, test = folds
    task = Property(name="heat", unit="eV", description="a test", pooling="atoms")
    model = small(tasks=[task], model_dir=str(tmp_path))
    model.fit(train, nb_epoch=2)
    model.calibrate(valid)
    model.save_checkpoint()
    file = tmp_path / "qdgnn.safetensors"
    value, std = model.predict_uncertainty(test)
    structures = [atoms for atoms in SALTS if reduced_formula(atoms) in {x.formula for x in test.X}]
    rows = Predictor(file)(structures)
    np.testing.assert_allclose([row["heat"].value for row in rows], value[:, 0], rtol=1e-5)
    np.testing.assert_allclose([row["heat"].std for row in rows], std[:, 0], rtol=1e-4)
    assert rows[0]["heat"].unit == "eV"
    back = qd.QDGNNModel.from_pretrained(file)
    np.testing.assert_array_equal(back.predict(test), model.predict(test))


def test_pretrained_with_and_without_heads(dc: Any, graphs: Any, tmp_path: Path) -> None:
    dataset = dc.data.NumpyDataset(
        qd.QDGNNFeaturizer().featurize(SALTS[:20]), _labels("gap_label")[:20]
    )
    core, _, _ = load_property_model("properties")
    model = qd.QDGNNModel(tasks=["band_gap"], batch_size=20)
    model.load_from_pretrained()
    gaps = [row["band_gap"].value for row in predict(SALTS[:20])]
    np.testing.assert_allclose(model.predict(dataset)[:, 0], gaps, rtol=1e-5, atol=1e-6)

    own = qd.QDGNNModel(n_tasks=1, batch_size=20, learning_rate=1e-3)
    heads = [parameter.clone() for parameter in own.head_parameters]
    with pytest.raises(ValueError, match="include_top=False"):
        own.load_from_pretrained()
    own.load_from_pretrained(include_top=False)
    assert all(torch.equal(a, b) for a, b in zip(heads, own.head_parameters, strict=True))
    for fitted in (False, True):  # before and after a training of the heads
        if fitted:
            own.fit(dataset, nb_epoch=2, variables=own.head_parameters)
        trunk = dict(own.model.core.trunk.named_parameters())
        assert all(torch.equal(v, trunk[k]) for k, v in core.trunk.named_parameters())
        assert own.model.core.neighbors == core.neighbors
    assert not torch.equal(heads[0], own.head_parameters[0])
    with pytest.raises(ValueError, match="trunk must be that of the pretrained model"):
        small().load_from_pretrained(include_top=False)


def test_restore_refuses_another_architecture(folds: Any, tmp_path: Path) -> None:
    small(model_dir=str(tmp_path)).fit(folds[0], nb_epoch=1)
    trunk = QDGNNConfig(**TRUNK.to_dict() | {"cutoff": 4.0})  # weights of the same shapes
    with pytest.raises((ValueError, RuntimeError), match="architecture"):
        small(trunk=trunk, model_dir=str(tmp_path)).restore()
    with pytest.raises(ValueError, match="No checkpoint"):
        small().restore()


# featurizer


def test_every_kind_of_structure_gives_the_same_graph(dc: Any, tmp_path: Path) -> None:
    atoms = bulk("MgO", "rocksalt", a=4.21, cubic=True)
    structure = AseAtomsAdaptor.get_structure(atoms, cls=Structure)
    ase.io.write(tmp_path / "MgO.cif", atoms)
    line = {
        "lattice": atoms.cell.array.tolist(),
        "species": list(atoms.symbols),
        "frac_coords": atoms.get_scaled_positions().tolist(),
    }
    kinds = [atoms, structure, structure.as_dict(), line, tmp_path / "MgO.cif"]
    graphs = qd.QDGNNFeaturizer().featurize(kinds)
    wanted = from_atoms(atoms, 5.0)
    for graph in graphs:
        assert graph.formula == "MgO"
        assert graph.edge_index.shape[1] == wanted.n_edges
        lengths = graph.to_atom_graph().edge_vectors().norm(dim=1)
        np.testing.assert_allclose(
            np.sort(lengths), np.sort(wanted.edge_vectors().norm(dim=1)), atol=1e-4
        )
    single = qd.QDGNNFeaturizer().featurize(atoms)
    assert single.shape == (1,)


def _disordered() -> Structure:
    return Structure(np.eye(3) * 3.6, [{"Cu": 0.5, "Ag": 0.5}], [[0, 0, 0]])


@pytest.mark.parametrize(
    ("structure", "match"),
    [
        (_disordered(), "fully occupied"),
        (Structure(np.eye(3) * 3, ["X"], [[0, 0, 0]]), "elements only"),
        (Atoms("Cu", positions=[[np.nan] * 3]), "finite"),
        (Atoms(), "at least one atom"),
        ({"lattice": 1}, "without"),
        ("no_such_file.cif", "must exist"),
        (3.7, "got float"),
    ],
)
def test_bad_structures_raise_where_deepchem_swallows(dc: Any, structure: Any, match: str) -> None:
    featurizer = qd.QDGNNFeaturizer()
    with pytest.raises(ValueError, match=rf"structure 1: .*{match}"):
        featurizer.featurize([bulk("Cu"), structure])

    class Swallowing(qd.QDGNNFeaturizer):
        featurize = dc.feat.MaterialStructureFeaturizer.featurize

    (swallowed,) = Swallowing().featurize([structure])
    assert swallowed.size == 0  # an empty array, and training goes on


def test_quantum_descriptors_are_selectable(dc: Any) -> None:
    shapes = {}
    for quantum in ("none", "t0", "t0_moments", "permuted"):
        graph = qd.QDGNNFeaturizer(quantum=quantum).featurize([SALTS[0]])[0]
        shapes[quantum] = graph.node_features.shape[1]
    assert shapes["none"] == 0
    assert shapes["t0"] == shapes["permuted"] > 0
    assert shapes["t0_moments"] > shapes["t0"]
    squeezed = SALTS[0].copy()
    squeezed.set_cell(squeezed.cell * 0.9, scale_atoms=True)
    featurizer = qd.QDGNNFeaturizer(quantum="t0_moments")
    one, two = (graph.node_features for graph in featurizer.featurize([SALTS[0], squeezed]))
    n = shapes["t0"]
    np.testing.assert_array_equal(one[:, :n], two[:, :n])
    assert np.abs(one[:, n:] - two[:, n:]).max() > 1e-3
    with pytest.raises(ValueError, match="quantum must be one of"):
        qd.QDGNNFeaturizer(quantum="t9")


def test_disk_dataset_keeps_graphs(dc: Any, graphs: Any, tmp_path: Path) -> None:
    dc.data.DiskDataset.from_numpy(graphs, _labels("energy_label"), data_dir=str(tmp_path))
    back = dc.data.DiskDataset(str(tmp_path))
    model = small()
    np.testing.assert_array_equal(model.predict(back), model.predict(dc.data.NumpyDataset(graphs)))
    assert [graph.formula for graph in back.X] == [graph.formula for graph in graphs]


def test_dgl_graph_serves_our_model_and_deepchems(dc: Any, graphs: Any) -> None:
    core = small().model.core.eval()
    dgl_graph = graphs[0].to_dgl_graph()
    with torch.no_grad():
        torch.testing.assert_close(
            core(dgl_graph)["values"], core(graphs[0].to_atom_graph())["values"]
        )
    back = AtomGraph.from_dgl(dgl_graph)
    distance = back.edge_vectors().norm(dim=1, keepdim=True)
    torch.testing.assert_close(dgl_graph.edata["edge_attr"], distance)
    assert dgl_graph.ndata["x"].shape == graphs[0].node_features.shape


# splitter and loaders


def test_formulas_stay_together(dc: Any, graphs: Any) -> None:
    features = np.concatenate([graphs, graphs[::2]])
    dataset = dc.data.NumpyDataset(features, np.zeros(len(features)))
    parts = qd.FormulaSplitter().train_valid_test_split(dataset, seed=3)
    names = [{graph.formula for graph in part.X} for part in parts]
    assert sum(len(part) for part in parts) == len(features)
    assert sum(map(len, names)) == len(set.union(*names))
    folds = qd.FormulaSplitter().k_fold_split(dataset, 4)
    held = [graph.formula for _, valid in folds for graph in valid.X]
    assert len(held) == len(features)
    for train, valid in folds:
        assert len(valid)
        assert not {g.formula for g in train.X} & {g.formula for g in valid.X}
    other = qd.FormulaSplitter().train_valid_test_split(dataset, seed=4)
    assert {graph.formula for graph in other[0].X} != names[0]
    by_id = dc.data.NumpyDataset(np.zeros((2, 1)), np.zeros(2), ids=["NaCl", "Na2Cl2"])
    assert sorted(map(len, qd.FormulaSplitter().split(by_id))) == [0, 0, 2]
    with pytest.raises(ValueError, match="formulas for ids"):
        qd.FormulaSplitter().split(dc.data.NumpyDataset(np.zeros((2, 1)), np.zeros(2)))
    with pytest.raises(ValueError, match="add up to 1"):
        qd.FormulaSplitter().split(dataset, frac_train=0.5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        {
            "lattice": atoms.cell.array.tolist(),
            "species": list(atoms.symbols),
            "frac_coords": atoms.get_scaled_positions().tolist(),
            "heat": atoms.info["energy_label"],
            "gap": atoms.info["gap_label"] if k % 4 else None,
        }
        for k, atoms in enumerate(SALTS)
    ]
    path = tmp_path / "salts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_local_file(dc: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = partial(
        qd.load_qdgnn_dataset,
        file,
        ["heat", "gap"],
        transformers=["normalization"],
        save_dir=tmp_path / "cache",
        shard_size=16,
    )
    tasks, parts, (transformer,) = load()
    assert tasks == ["heat", "gap"]
    assert sum(len(part) for part in parts) == len(SALTS)
    labels = {reduced_formula(atoms): atoms.info for atoms in SALTS}
    for part in parts:
        back = transformer.untransform(part.y)
        for row, weight, graph in zip(back, part.w, part.X, strict=True):
            assert row[0] == pytest.approx(labels[graph.formula]["energy_label"])
            assert weight[1] == 0 or row[1] == pytest.approx(labels[graph.formula]["gap_label"])
    assert sum((part.w[:, 1] == 0).sum() for part in parts) == -(-len(SALTS) // 4)
    with monkeypatch.context() as patch:
        patch.delattr(qd.QDGNNFeaturizer, "featurize")  # the second time nothing is featurized
        _, again, _ = load()
    np.testing.assert_array_equal(again[0].y, parts[0].y)
    text = file.read_text().splitlines()
    file.write_text("\n".join(text[:-1]))
    assert sum(len(part) for part in load()[1]) == len(SALTS) - 1


def test_what_a_loader_refuses(dc: Any, file: Path, tmp_path: Path) -> None:
    load = partial(qd.load_qdgnn_dataset, reload=False, splitter=None)
    with pytest.raises(FileNotFoundError, match="must exist"):
        load(tmp_path / "absent.jsonl", ["heat"])
    with pytest.raises(ValueError, match="must have a column 'cold'"):
        load(file, ["heat", "cold"])
    lines = file.read_text().splitlines()
    bad = json.loads(lines[4]) | {"frac_coords": [[0, 0, 0], [0, 0, 0.01]]}
    file.write_text("\n".join([*lines[:4], json.dumps(bad)]))
    with pytest.raises(ValueError, match=r"salts\.jsonl, row 5: .*at least 0\.3 Å apart"):
        load(file, ["heat"])

    class Failing(dc.feat.MaterialStructureFeaturizer):
        def _featurize(self, datapoint: Structure, **_: Any) -> Any:
            raise KeyError("element")

    with pytest.raises(ValueError, match=r"salts\.jsonl, row 1: .*could not featurize"):
        load(file, {"e": "heat"}, Failing())


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of a local server and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", folder
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def _document(column: str, values: list[Any]) -> bytes:
    """As matbench writes it."""
    rows = [
        [AseAtomsAdaptor.get_structure(atoms).as_dict(), value]
        for atoms, value in zip(SALTS, values, strict=True)
    ]
    document = {"index": list(range(len(rows))), "columns": ["structure", column], "data": rows}
    return gzip.compress(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("name", "loader", "column", "factor"),
    [
        ("perovskites", "load_perovskite", "e_form", 0.5),
        ("mp_e_form", "load_mp_formation_energy", "e_form", 1.0),
        ("mp_gap", "load_band_gap", "gap pbe", 1.0),
        ("mp_is_metal", "load_metallicity", "is_metal", 1.0),
    ],
)
def test_download(
    dc: Any,
    server: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    loader: str,
    column: str,
    factor: float,
) -> None:
    from dataclasses import replace

    from qdgnn_deepchem.matbench import SOURCES

    address, folder = server
    key = "is_large" if name == "mp_is_metal" else "gap_label"
    values = [bool(a.info[key]) if name == "mp_is_metal" else a.info[key] for a in SALTS]
    content = _document(column, values)
    (folder / "data.json.gz").write_bytes(content)
    source = replace(
        SOURCES[name], url=f"{address}/data.json.gz", sha256=hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setitem(SOURCES, name, source)
    load = partial(getattr(qd, loader), data_dir=tmp_path, save_dir=tmp_path, splitter=None)
    tasks, (dataset,), _ = load()
    assert tasks == [source.task]
    np.testing.assert_allclose(dataset.y[:, 0], factor * _labels(key)[:, 0])
    (folder / "data.json.gz").unlink()
    np.testing.assert_array_equal(load()[1][0].y, dataset.y)  # no second download


def test_download_that_fails(
    dc: Any, server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from qdgnn_deepchem.matbench import SOURCES, download

    address, folder = server
    source = replace(SOURCES["mp_gap"], url=f"{address}/gaps.json.gz")
    monkeypatch.setitem(SOURCES, "mp_gap", source)
    data = tmp_path / "data"
    with pytest.raises(ConnectionError, match=r"404.*bring the file to .*gaps\.json\.gz"):
        qd.load_band_gap(data_dir=data)
    assert list(data.iterdir()) == []  # no half file
    with pytest.raises(ConnectionError, match="refused"):
        download("http://127.0.0.1:9/x", data / "x")
    with pytest.raises(ValueError, match="must begin with https"):
        download("file:///etc/hostname", data / "x")
    (folder / "gaps.json.gz").write_bytes(_document("gap pbe", [0.0] * len(SALTS))[:-20])
    with pytest.raises(ValueError, match="must have the sha256"):
        qd.load_band_gap(data_dir=data)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qd, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'qdgnn-ase\[deepchem\]'"):
        _ = qd.QDGNNModel
    with pytest.raises(AttributeError, match="no attribute"):
        _ = qd.nonsense
    assert "QDGNNModel" in dir(qd)


# benchmark


def test_bench_beside_deepchems_models(
    dc: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every model on every fold; a second call takes what is there."""
    out = tmp_path / "bench"
    arguments = [str(file), "--column", "heat", "--folds", "2", "--epochs", "1", "-o", str(out)]
    arguments += ["--structures", "30", "--rate", "0.01"]
    monkeypatch.setattr(bench_module, "VALIDATION", 0.3)
    result = CliRunner().invoke(bench_module.bench, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    runs = json.loads((out / "bench.json").read_text())["runs"]
    models = ["linear in composition", "QDGNNModel", "CGCNNModel", "MEGNetModel"]
    assert [run["model"] for run in runs] == [name for name in models for _ in range(2)]
    assert all(0 < run["mae"] < 100 for run in runs)
    assert all(("calibration_error" in run) == (run["model"] == "QDGNNModel") for run in runs)
    assert all(f"| {name} |" in result.output for name in models)
    monkeypatch.delattr(bench_module, "trained")
    again = CliRunner().invoke(bench_module.bench, arguments, catch_exceptions=False)
    assert again.output == result.output
    arguments += ["--epochs", "2"]
    with pytest.raises(ValueError, match=r"must hold this study.*epochs: 1, not 2"):
        CliRunner().invoke(bench_module.bench, arguments, catch_exceptions=False)


def test_gradients_are_clipped(dc: Any, folds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain descent moves by the rate times the clipped norm at most."""
    clip = 1e-3
    monkeypatch.setattr("qdgnn_deepchem.optimizers.CLIP", clip)
    model = small(optimizer=dc.models.optimizers.GradientDescent(learning_rate=0.5))
    before = [parameter.detach().clone() for parameter in model.model.parameters()]
    steps: list[int] = []
    model.fit(folds[0], nb_epoch=1, callbacks=lambda _, step: steps.append(step))
    moved = [a - b for a, b in zip(model.model.parameters(), before, strict=True)]
    distance = float(torch.cat([part.flatten() for part in moved]).norm())
    assert 0 < distance <= 1.001 * 0.5 * clip * len(steps)


def test_a_loss_that_is_not_finite_ends_the_training(folds: Any) -> None:
    model = small(learning_rate=1e9)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        model.fit(folds[0], nb_epoch=5)


def test_bench_leaves_out_rates_that_diverge(
    dc: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(file), "--column", "heat", "--folds", "2", "--epochs", "5", "--structures"]
    arguments += ["30", "--only", "QDGNNModel", "--rate", "1e9"]
    monkeypatch.setattr(bench_module, "VALIDATION", 0.3)
    failed = CliRunner().invoke(bench_module.bench, [*arguments, "-o", str(tmp_path / "a")])
    assert failed.exit_code == 1
    assert "QDGNNModel needs a lower --rate" in failed.output
    arguments += ["--rate", "0.01", "-o", str(tmp_path / "b")]
    done = CliRunner().invoke(bench_module.bench, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    first = json.loads((tmp_path / "b" / "QDGNNModel_0.json").read_text())
    assert first["rate"] == 0.01
    assert list(first["rates_tried"]) == ["0.01"]


def test_bench_keeps_formulas_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="none for"):
        bench_module.parts_of(SALTS[:2], 3, 0)
    monkeypatch.setattr(bench_module, "VALIDATION", 0.3)
    crystals = [*SALTS, *SALTS[:10]]
    held: list[int] = []
    for fold in range(3):
        parts = bench_module.parts_of(crystals, 3, fold)
        names = [{reduced_formula(crystals[k]) for k in part} for part in parts.values()]
        assert sum(map(len, names)) == len(set.union(*names)) == len(SALTS)
        assert all(len(part) for part in parts.values())
        held += parts["test"].tolist()
    assert sorted(held) == list(range(len(crystals)))
