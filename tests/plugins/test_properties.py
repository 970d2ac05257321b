"""Baselines on our graphs, their training, and the comparison on the same rows."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from click.testing import CliRunner

from qdgnn_ase import (
    AtomGraph,
    PropertyTrainConfig,
    Scaler,
    collate,
    composition_matrix,
    fold_of,
    from_atoms,
    reduced_formula,
)
from qdgnn_bench.baseline_training import Examples, predictions, train
from qdgnn_bench.baselines import BASELINES, element_table, nearest
from qdgnn_bench.properties import properties, report
from qdgnn_bench.property_report import markdown, summarise
from qdgnn_bench.property_rows import Rows, compared, select, write_rows
from qdgnn_bench.property_runs import Protocol, best_model, run
from qdgnn_bench.property_timing import _call
from qdgnn_bench.trivial import composition_features, trivial_predictions

pytest.importorskip("deepchem")
pytest.importorskip("torch_geometric")

SYMBOLS = ["Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba"]
ANIONS = ["F", "Cl", "Br", "I", "O", "S", "Se", "Te"]


def crystals() -> list[Atoms]:
    """64 compounds of 8 cations and 8 anions, slightly distorted."""
    rows = []
    for k, (cation, anion) in enumerate((a, b) for a in SYMBOLS for b in ANIONS):
        atoms = bulk(cation + anion, "rocksalt", a=5.0 + 0.02 * k)
        atoms.rattle(0.05, seed=k)
        rows.append(atoms)
    return rows


def label(atoms: Atoms) -> float:
    return float(atoms.numbers.mean() / 10)


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    rows = crystals()
    path = tmp_path / "rows.jsonl"
    labels = np.array([[label(atoms), 10.0 + k] for k, atoms in enumerate(rows)])
    write_rows(path, [Rows(rows, labels)], ["formation_energy", "bulk_modulus"])
    return path


COLUMNS = {"formation_energy": "formation_energy", "bulk_modulus": "bulk_modulus"}


@pytest.mark.parametrize("name", BASELINES)
def test_a_batch_equals_its_structures_and_images(name: str) -> None:
    torch.manual_seed(0)
    baseline = BASELINES[name]
    model = baseline.build(2).eval()
    structures = [
        bulk("NaCl", "rocksalt", a=5.64),
        bulk("Cu", cubic=True),
        bulk("TiN", "zincblende", a=4.2),
    ]
    structures[0].rattle(0.1, seed=1)
    moved = structures[0].copy()
    moved.positions += moved.cell[0] + [0.3, 0.2, 0.1]
    moved.wrap()
    with torch.no_grad():
        batch = model(collate([baseline.graph(atoms) for atoms in [*structures, moved]]))
        singles = [model(baseline.graph(atoms)) for atoms in structures]
    assert batch.shape == (4, 2)
    torch.testing.assert_close(batch[:3], torch.cat(singles), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(batch[3], batch[0], rtol=1e-4, atol=1e-5)
    assert (batch[0] - batch[1]).abs().max() > 1e-4, "structures must not look alike"


@pytest.mark.parametrize("name", BASELINES)
def test_a_network_sees_distances(name: str) -> None:
    torch.manual_seed(0)
    baseline = BASELINES[name]
    model = baseline.build(1).eval()
    values = [
        float(model(baseline.graph(bulk("NaCl", "rocksalt", a=a))).detach()) for a in (5.2, 6.0)
    ]
    assert values[0] != pytest.approx(values[1], abs=1e-5)


def test_nearest_keeps_the_shortest_edges_of_each_atom() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64) * (2, 1, 1)
    atoms.rattle(0.1, seed=0)
    graph = from_atoms(atoms, 8.0)
    kept = nearest(graph, 12)
    assert np.bincount(kept.edge_index[1]).tolist() == [12] * len(atoms)
    for atom in range(len(atoms)):
        wanted = _lengths(graph, atom).sort().values[:12]
        torch.testing.assert_close(_lengths(kept, atom).sort().values, wanted)


def _lengths(graph: AtomGraph, atom: int) -> torch.Tensor:
    lengths: torch.Tensor = graph.edge_vectors().norm(dim=1)
    return lengths[graph.edge_index[1] == atom]


def test_element_table() -> None:
    """Iron: group 8, period 4, d block, one bin of each feature."""
    table = element_table()
    assert not table[0].any()
    assert table[26].sum() == 9
    assert table[26, 7] == 1
    assert table[26, 18 + 3] == 1
    assert len({tuple(row.tolist()) for row in table[1:]}) > 85, "elements must be told apart"


def _examples(structures: list[Atoms]) -> tuple[Examples, Scaler]:
    baseline = BASELINES["MEGNet"]
    scaler = Scaler(["band_gap"])
    labels = np.array([[label(atoms)] for atoms in structures])
    scaler.fit(composition_matrix([atoms.numbers for atoms in structures]), labels)
    graphs = [baseline.graph(atoms) for atoms in structures]
    scaled = torch.cat(
        [
            scaler.scaled(row[None], g)
            for row, g in zip(torch.as_tensor(labels).float(), graphs, strict=True)
        ]
    )
    return Examples(graphs, scaled), scaler


def test_training_learns_and_a_missing_label_is_masked() -> None:
    examples, _ = _examples(crystals())
    masked = examples.labels.clone()
    masked[::5] = torch.nan
    torch.manual_seed(0)
    model = BASELINES["MEGNet"].build(1)
    before = (predictions(model, examples.graphs) - examples.labels).abs().mean()
    trained = train(
        model,
        replace(examples, labels=masked),
        examples,
        cpu_seconds=4.0,
        learning_rate=5e-3,
        seed=0,
        batch_size=16,
    )
    after = (predictions(trained.model, examples.graphs) - examples.labels).abs().mean()
    assert after < 0.85 * before
    assert float(after) == pytest.approx(trained.val_error, rel=1e-4)
    assert 4.0 <= trained.cpu_seconds < 8.0
    assert trained.epochs > 1


def test_training_that_is_not_finite_is_an_error() -> None:
    examples, _ = _examples(crystals()[:8])
    broken = replace(examples, labels=torch.full_like(examples.labels, torch.nan))
    with pytest.raises(FloatingPointError, match="validation error must be finite"):
        train(
            BASELINES["MEGNet"].build(1),
            examples,
            broken,
            cpu_seconds=0.2,
            learning_rate=1e-3,
            seed=0,
        )


def test_trivial_baselines() -> None:
    """The linear model, not the mean, learns labels that are linear in the composition."""
    every = crystals()
    structures = [every[k] for k in np.random.default_rng(0).permutation(len(every))]
    labels = np.array([[label(atoms)] for atoms in structures])
    found = trivial_predictions(structures[:48], labels[:48], structures[48:])
    errors = {name: np.abs(values - labels[48:]).mean() for name, values in found.items()}
    assert errors["linear in elements"] < 0.01
    assert errors["mean"] == pytest.approx(np.abs(labels[48:] - labels[:48].mean()).mean())
    assert errors["boosted trees of composition"] < errors["mean"]
    features = composition_features([bulk("NaCl", "rocksalt", a=5.6)])[0]
    assert features[[10, 16]].tolist() == [0.5, 0.5]
    assert features[94] == 14.0, "mean atomic number"


def test_folds_share_no_formula(rows_file: Path) -> None:
    folds = select(rows_file, COLUMNS, train=1000, max_atoms=40)
    names = {fold: {str(a.symbols) for a in rows.structures} for fold, rows in folds.items()}
    assert not names["train"] & names["test"]
    assert not names["train"] & names["val"]
    assert sum(len(rows.structures) for rows in folds.values()) == 64
    atoms, labels = folds["test"].structures[0], folds["test"].labels[0]
    assert labels[0] == pytest.approx(label(atoms)), "labels must stay with their structures"


def test_no_rows_of_a_fold_is_an_error(rows_file: Path) -> None:
    with pytest.raises(ValueError, match="at most 1 atoms, got none for"):
        select(rows_file, COLUMNS, train=100, max_atoms=1)


def test_summary_is_paired() -> None:
    structures = crystals()
    labels = np.array([[label(atoms), 100.0] for atoms in structures])
    wanted = compared(("formation_energy", "bulk_modulus"), labels)
    assert wanted[0].tolist() == [pytest.approx(label(structures[0])), 2.0]
    rng = np.random.default_rng(0)
    noise = rng.normal(size=wanted.shape)
    values = {
        "qdgnn": [wanted + 0.1 * noise],
        "CGCNN": [wanted + 0.2 * noise, wanted - 0.2 * noise],
    }
    found = summarise(("formation_energy", "bulk_modulus"), Rows(structures, labels), values)
    row = found["CGCNN"]["formation_energy"]
    assert row["ratio"] == pytest.approx(0.5)
    assert row["mae_std"] == pytest.approx(0.0)
    assert row["difference"] == pytest.approx(0.1 * np.abs(noise[:, 0]).mean())
    low, high = row["difference_interval"]
    assert 0 < low < row["difference"] < high
    assert found["qdgnn"]["formation_energy"]["difference"] == 0.0


def formulas_of(rows: Rows) -> list[str]:
    return [reduced_formula(atoms) for atoms in rows.structures]


def _protocol(rows_file: Path, folder: Path) -> Protocol:
    folds = select(rows_file, COLUMNS, train=48, max_atoms=40)
    (folder / "tuning").mkdir(parents=True)
    return Protocol(folds, tuple(COLUMNS), minutes=0.02, folder=folder)


def test_a_finished_run_is_kept(rows_file: Path, tmp_path: Path) -> None:
    protocol = _protocol(rows_file, tmp_path / "runs")
    first = run(protocol, "SchNet", 0)
    assert first["mae"].keys() == COLUMNS.keys()
    assert first["cpu_minutes"] >= 0.02
    stored = (tmp_path / "runs" / "SchNet-0.json").read_text()
    assert run(protocol, "SchNet", 0) == json.loads(stored)
    assert (tmp_path / "runs" / "SchNet-0.json").read_text() == stored


@pytest.mark.parametrize(("counts", "epochs"), [(True, 5), (False, 10)])
def test_compilation_counts_in_a_run_of_few_rows_too(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: bool, epochs: int
) -> None:
    """10 s, epochs of 1 s after 5 s of compilation; while tuning the 5 s are left out."""
    protocol = replace(
        _protocol(rows_file, tmp_path / "runs"), minutes=10 / 60, counts_compilation=counts
    )
    seen: list[int] = []

    def stop(config: PropertyTrainConfig, folder: Path) -> Path:
        seen.append(config.epochs)
        raise KeyboardInterrupt

    monkeypatch.setattr("qdgnn_bench.property_runs.fit", stop)
    (protocol.folder / "qdgnn-timing.json").write_text("[1.0, 5.0]")
    (protocol.folder / "qdgnn-tuning.json").write_text('{"0.002": 1.0}')
    with pytest.raises(KeyboardInterrupt):
        run(protocol, "qdgnn", 0)
    assert seen == [epochs]


@pytest.mark.parametrize(("name", "init"), [("qdgnn", None), ("qdgnn, pretrained", "default")])
def test_only_the_pretrained_model_starts_from_the_potential(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, init: str | None
) -> None:
    protocol = _protocol(rows_file, tmp_path / "runs")
    slug = name.replace(", ", "-")
    (protocol.folder / f"{slug}-timing.json").write_text("[1.0, 5.0]")
    (protocol.folder / f"{slug}-tuning.json").write_text('{"0.002": 1.0}')
    seen: list[str | None] = []

    def stop(config: PropertyTrainConfig, folder: Path) -> Path:
        seen.append(config.init)
        raise KeyboardInterrupt

    monkeypatch.setattr("qdgnn_bench.property_runs.fit", stop)
    with pytest.raises(KeyboardInterrupt):
        run(protocol, name, 0)
    assert seen == [init]


def test_single_task_is_a_run_of_each_target(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = _protocol(rows_file, tmp_path / "runs")
    (protocol.folder / "qdgnn-single-task-tuning.json").write_text('{"0.002": 1.0}')
    n = len(protocol.folds["test"].structures)
    seen: list[tuple[tuple[str, ...], float, str, bool]] = []

    def trained(
        part: Protocol, name: str, rows: Path, seed: int, learning_rate: float
    ) -> tuple[np.ndarray, dict[str, float]]:
        seen.append((part.targets, part.minutes, part.folder.name, rows.is_file()))
        k = list(COLUMNS).index(part.targets[0])
        result = {"parameters": 10, "epochs": 3, "cpu_minutes": 2.0, "val_error": 0.1}
        return np.full((n, 1), float(k)), result

    monkeypatch.setattr("qdgnn_bench.property_runs._our_run", trained)
    result = run(protocol, "qdgnn, single-task", 0)
    assert seen == [
        ((target,), protocol.minutes, f"qdgnn-single-task-{target}", True) for target in COLUMNS
    ]
    with monkeypatch.context() as patched:  # all of its networks are timed
        patched.setattr("qdgnn_bench.property_timing.Predictor", lambda path: lambda _: path)
        for target in COLUMNS:
            folder = protocol.folder / f"qdgnn-single-task-{target}" / "qdgnn-single-task-0-0.002"
            folder.mkdir(parents=True)
            (folder / "best.safetensors").touch()
        paths = _call(protocol, "qdgnn, single-task")([])
    assert [path.parent.parent.name for path in paths] == [row[2] for row in seen]
    assert result["parameters"] == 10 * len(COLUMNS)
    assert result["cpu_minutes"] == 2.0 * len(COLUMNS)
    values = np.load(protocol.folder / "qdgnn-single-task-0.npy")
    assert values.tolist() == [[float(k) for k in range(len(COLUMNS))]] * n


@pytest.mark.parametrize("n", [4, 10])
def test_folds_of_a_cross_validation_hold_every_row_once(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    """Each run predicts its turn; the table is of all test rows in the order of the folds."""
    tested: list[list[str]] = []

    def trained(
        protocol: Protocol, name: str, seed: int, learning_rate: float
    ) -> tuple[np.ndarray, dict[str, float]]:
        test = protocol.folds["test"]
        formulas = {name: formulas_of(part) for name, part in protocol.folds.items()}
        assert not set(formulas["test"]) & {*formulas["train"], *formulas["val"]}
        tested.append(formulas["test"])
        values = compared(protocol.targets, test.labels) + protocol.turn
        result = {"learning_rate": learning_rate, "parameters": 1, "epochs": 2, "cpu_minutes": 0.1}
        return values, result | {"val_error": learning_rate}

    monkeypatch.setattr("qdgnn_bench.property_runs._baseline", trained)
    monkeypatch.setattr("qdgnn_bench.properties.inference", lambda *_: {})
    arguments = [str(rows_file), "--folds", str(n), "--seeds", "0", "--models", "CGCNN"]
    arguments += ["--rows", "24"]
    arguments += ["--target", "formation_energy=formation_energy", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(properties, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    turns = [formulas for k, formulas in enumerate(tested) if k % 3 == 2]  # two runs to tune
    assert sorted(chain(*turns)) == sorted(map(reduced_formula, crystals()))
    document = json.loads((tmp_path / "out" / "properties.json").read_text())
    assert document["rows"]["test"] == 64
    sizes = [len(formulas) for formulas in turns]
    wanted = np.average(np.arange(n) / n, weights=sizes)
    found = document["errors"]["CGCNN"]["formation_energy"]["mae"]
    assert found == pytest.approx(wanted)
    assert len(document["runs"]["CGCNN"]) == n
    assert f"64 rows of at most 40 atoms, {n} folds by reduced formula" in done.output


def test_tables_are_written_again_from_saved_results(tmp_path: Path) -> None:
    """Those of the repository; what is no result, or has no place for them, stays as it was."""
    saved = Path(__file__).parents[2] / "plugins/qdgnn_bench/results/properties.json"
    (tmp_path / "properties.json").write_text(saved.read_text())
    readme = tmp_path / "README.md"
    readme.write_text("<!-- comparison: made by X -->\nold\n<!-- end of comparison -->\nkept")
    arguments = [str(tmp_path / "properties.json"), "--readme", str(readme)]
    done = CliRunner().invoke(report, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "properties.md").read_text() == saved.with_suffix(".md").read_text()
    assert "| qdgnn |" in readme.read_text()
    assert readme.read_text().endswith("\nkept")
    other = tmp_path / "other.json"
    for text in ("[]", "{}", "no"):
        other.write_text(text)
        refused = CliRunner().invoke(report, [str(other)])
        assert refused.exit_code == 2
        assert "must be a properties.json" in refused.output
    assert not other.with_suffix(".md").exists()


def test_the_split_of_a_run_is_that_of_its_rows(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = select(rows_file, COLUMNS, train=48, max_atoms=40, test=0.25, turn=0.5)
    (tmp_path / "tuning").mkdir()
    protocol = Protocol(folds, tuple(COLUMNS), 0.02, tmp_path, 0.25, 0.5)
    (tmp_path / "qdgnn-timing.json").write_text("[1.0, 5.0]")
    (tmp_path / "qdgnn-tuning.json").write_text('{"0.002": 1.0}')
    seen: list[PropertyTrainConfig] = []

    def stop(config: PropertyTrainConfig, folder: Path) -> Path:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("qdgnn_bench.property_runs.fit", stop)
    with pytest.raises(KeyboardInterrupt):
        run(protocol, "qdgnn", 0)
    shares = {"val": seen[0].val, "test": seen[0].test, "turn": seen[0].split_turn}
    for name, part in folds.items():
        for atoms in part.structures:
            assert fold_of(reduced_formula(atoms), **shares) == name


def test_model_of_any_seed_is_timed(tmp_path: Path) -> None:
    for name in ("qdgnn-3-0.002", "qdgnn-no-quantum-1-0.002", "qdgnn-timing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.safetensors").touch()
    assert best_model(tmp_path, "qdgnn").parent.name == "qdgnn-3-0.002"
    assert best_model(tmp_path, "qdgnn, no quantum").parent.name == "qdgnn-no-quantum-1-0.002"


@pytest.mark.slow
def test_command(rows_file: Path, tmp_path: Path) -> None:
    """A baseline and ours from start to tables; the folder belongs to these rows."""
    output = tmp_path / "out"
    arguments = [str(rows_file), "--target", "formation_energy=formation_energy", "--minutes"]
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- comparison: made by x -->\n<!-- end of comparison -->\nb\n")
    options = ["--seeds", "0", "--models", "CGCNN,qdgnn", "-o", str(output)]
    options += ["--readme", str(readme)]
    done = CliRunner().invoke(properties, [*arguments, "0.02", *options])
    assert done.exit_code == 0, done.output
    document = json.loads((output / "properties.json").read_text())
    assert {"CGCNN", "qdgnn", "mean"} <= document["errors"].keys()
    timed = {"CGCNN", "CGCNN, DeepChem's featurizer", "MEGNet", "qdgnn"}
    assert document["inference"].keys() == timed
    assert (output / "properties.md").read_text() == markdown(document)
    assert (output / "parity.png").stat().st_size > 1000
    assert "| boosted trees of composition | " in readme.read_text()
    with pytest.raises(ValueError, match="choose another folder"):
        CliRunner().invoke(properties, [*arguments, "0.05", *options], catch_exceptions=False)


def test_unknown_model(rows_file: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        properties,
        [str(rows_file), "--target", "band_gap=x", "--models", "ALIGNN", "-o", str(tmp_path)],
    )
    assert done.exit_code == 2
    assert "--models must be of" in done.output
