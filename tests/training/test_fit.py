"""Training: it learns, it survives being killed, and the test fold stays unseen.

``alloys_emt.extxyz`` holds 60 rattled and strained fcc cells of 30 formulas of Cu, Al, Ag, Au and
Ni with the energies, forces and stresses of ASE's EMT (checked in ``tests/data/test_io.py``).
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from pymatgen.core import Composition

from qdgnn_ase.data.dataset import Sample, make_samples
from qdgnn_ase.data.io import read_structures
from qdgnn_ase.data.splits import fold_of, reduced_formula, split_indices
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.training import fit as fit_module
from qdgnn_ase.training import state as state_module
from qdgnn_ase.training.checkpoint import load_model, load_tensors
from qdgnn_ase.training.config import TrainConfig
from qdgnn_ase.training.fit import fit
from qdgnn_ase.training.folds import load_folds
from qdgnn_ase.training.history import draw_history
from qdgnn_ase.training.potential import PotentialTask
from qdgnn_ase.training.start import new_model
from qdgnn_ase.training.state import TrainState, _moving_average

ALLOYS = Path(__file__).parent.parent / "data_files" / "alloys_emt.extxyz"
TINY = QDGNNConfig(cutoff=4.0, hidden=16, n_layers=2, n_vectors=4, n_radial=6, n_pair=8, n_heads=2)
CONFIG = TrainConfig(
    files=(str(ALLOYS),),
    model=TINY,
    epochs=4,
    learning_rate=2e-2,
    ema=0.8,
    max_edges=800,
    val=0.2,
    test=0.2,
    seed=1,
)


def rows(folder: Path) -> list[dict[str, float]]:
    """The curve of a run without the seconds."""
    with (folder / "history.csv").open() as handle:
        table = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(handle)]
    for row in table:
        del row["seconds"], row["cpu_seconds"]
    return table


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: value.nan_to_num(7.0) for name, value in load_tensors(path)[0].items()}


def assert_same_run(folder: Path, other: Path) -> None:
    assert rows(folder) == rows(other)
    for name in ("best.safetensors", "last.safetensors"):
        first, second = weights(folder / name), weights(other / name)
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes ten times as long as the training of these runs."""
    monkeypatch.setattr("qdgnn_ase.training.history._plot", lambda history: b"")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole run of ``CONFIG``."""
    folder = tmp_path_factory.mktemp("run")
    assert fit(CONFIG, folder) == folder / "best.safetensors"
    return folder


def test_loss_falls(tmp_path: Path) -> None:
    model = dataclasses.replace(TINY, n_layers=1, n_radial=8, n_pair=16)
    config = dataclasses.replace(CONFIG, model=model, epochs=15, max_edges=300, learning_rate=1e-2)
    fit(config, tmp_path)
    table = rows(tmp_path)
    assert min(row["val_loss"] for row in table) < 0.8 * table[0]["val_loss"]
    assert table[-1]["train_forces"] < 0.7 * table[0]["train_forces"]


def test_files_of_a_run(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {
        "config.json",
        "last.safetensors",
        "best.safetensors",
        "history.csv",
        "history.png",
    }
    assert (run / "history.png").read_bytes().startswith(b"\x89PNG")
    assert TrainConfig.from_dict(json.loads((run / "config.json").read_text())) == CONFIG


def test_history(run: Path) -> None:
    table = rows(run)
    assert [row["epoch"] for row in table] == list(range(CONFIG.epochs))
    for row in table:
        total = sum(w * row[f"val_{name}"] for name, w in dataclasses.asdict(CONFIG.loss).items())
        assert row["val_loss"] == pytest.approx(total)
        assert {f"train_{name}" for name in ("energy", "forces", "stress")} <= row.keys()


def test_best_model_has_the_lowest_validation_loss(run: Path) -> None:
    model, document = load_model(run / "best.safetensors")
    best = min(rows(run), key=lambda row: row["val_loss"])
    assert document["training"]["epoch"] == best["epoch"]
    folds, _ = load_folds(CONFIG)
    for name, value in PotentialTask(CONFIG).validate(model, folds["val"]).items():
        assert value == pytest.approx(best[f"val_{name}"], rel=1e-5)


def test_model_knows_its_training_data(run: Path) -> None:
    model, document = load_model(run / "best.safetensors")
    frames = read_structures(ALLOYS)
    train = split_indices(frames, val=0.2, test=0.2, seed=0)["train"]
    numbers = np.concatenate([frames[k].numbers for k in train])
    assert torch.equal(model.counts, torch.as_tensor(np.bincount(numbers, minlength=95)))
    (file,) = document["training"]["files"]
    assert (file["name"], file["train"], file["test"]) == (ALLOYS.name, len(train), 10)
    stored = document["training"]["train_config"]
    assert stored == CONFIG.to_dict() | {"files": [ALLOYS.name]}  # no folder of this machine


def test_same_config_gives_the_same_run(run: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    torch.manual_seed(99)  # the caller's random numbers play no part
    fit(CONFIG, tmp_path)
    torch.set_rng_state(state)
    assert_same_run(tmp_path, run)


def test_other_seed_gives_another_run(run: Path, tmp_path: Path) -> None:
    fit(dataclasses.replace(CONFIG, seed=2, epochs=1), tmp_path)
    assert rows(tmp_path)[0] != rows(run)[0]


def test_finished_run_is_left_as_it_is(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.iterdir() if path.suffix != ".png"}
    fit(CONFIG, run)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_interrupted_run_goes_on(run: Path, tmp_path: Path, epoch: int) -> None:
    def interrupt(now: int, share: float, parts: dict[str, float]) -> None:
        if now == epoch and share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(CONFIG, tmp_path, interrupt)
    fit(CONFIG, tmp_path)
    assert_same_run(tmp_path, run)


@pytest.mark.parametrize(
    "point", ["PotentialTask.save", "write_history", "draw_history", "TrainState.save"]
)
def test_run_that_dies_between_two_files_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The last epoch is the worst place: no later epoch repairs what is missing."""
    at = (
        0 if point == "PotentialTask.save" else CONFIG.epochs - 1
    )  # the first epoch is always the best
    owners = {"PotentialTask": PotentialTask, "TrainState": TrainState}
    owner: Any = owners.get(point.split(".")[0], fit_module)
    name = point.split(".")[-1]

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:

        def progress(epoch: int, share: float, parts: dict[str, float]) -> None:
            if epoch == at:
                patch.setattr(owner, name, die)

        with pytest.raises(KeyboardInterrupt):
            fit(CONFIG, tmp_path, progress)
    fit(CONFIG, tmp_path)
    assert_same_run(tmp_path, run)


def qdgnn_train(config: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [Path(sys.executable).parent / "qdgnn", "train", config, "-o", folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, env=environment)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted run of 12 epochs by the command, its config beside."""
    folder = tmp_path_factory.mktemp("whole")
    config = folder / "c.json"
    config.write_text(json.dumps(dataclasses.replace(CONFIG, epochs=12).to_dict()))
    assert qdgnn_train(config, folder / "run").wait(120) == 0
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.13])
def test_killed_process_goes_on(whole: Path, tmp_path: Path, delay: float) -> None:
    config, killed = whole.parent / "c.json", tmp_path / "killed"
    process = qdgnn_train(config, killed)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (killed / "history.csv").is_file() and len(rows(killed)) >= 3:
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(10) == -signal.SIGKILL
    assert 3 <= len(rows(killed)) < 12
    assert qdgnn_train(config, killed).wait(120) == 0
    assert_same_run(killed, whole)


def test_folder_of_another_config_is_refused(run: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold a run of this config, got another one in"):
        fit(dataclasses.replace(CONFIG, learning_rate=1e-3), run)


def test_config_with_unknown_keys_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict() | {"newer": 1}))
    with pytest.raises(ValueError, match="must hold a run of this config"):
        fit(CONFIG, tmp_path)


def test_config_of_an_older_version_is_taken(run: Path, tmp_path: Path) -> None:
    """A key that was added since then has its default value."""
    old = CONFIG.to_dict()
    assert old.pop("patience") == 1000
    (tmp_path / "config.json").write_text(json.dumps(old))
    fit(dataclasses.replace(CONFIG), tmp_path)
    assert_same_run(tmp_path, run)


def test_failure_to_read_does_not_claim_the_folder(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.xyz"):
        fit(dataclasses.replace(CONFIG, files=("none.xyz",)), tmp_path)
    fit(CONFIG, tmp_path)
    assert_same_run(tmp_path, run)


def test_damaged_state_is_refused(run: Path, tmp_path: Path) -> None:
    fit(dataclasses.replace(CONFIG, epochs=1), tmp_path)
    last = tmp_path / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"last\.safetensors must be a safetensors checkpoint"):
        fit(dataclasses.replace(CONFIG, epochs=1), tmp_path)


def test_loss_that_is_not_finite_keeps_the_last_good_state(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainState.step

    def step(self: TrainState, loss: torch.Tensor, *rest: Any) -> None:
        original(self, loss * torch.nan, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(state_module, "MAX_LEFT_OUT", 1)

        def progress(epoch: int, share: float, parts: dict[str, float]) -> None:
            if epoch == 2:
                patch.setattr(TrainState, "step", step)

        with pytest.raises(FloatingPointError, match="must be finite, got nan"):
            fit(CONFIG, tmp_path, progress)
    assert rows(tmp_path) == rows(run)[:2]
    assert all(value.isfinite().all() for value in weights(tmp_path / "last.safetensors").values())
    fit(CONFIG, tmp_path)
    assert_same_run(tmp_path, run)


def test_single_batches_that_are_not_finite_are_left_out(samples: list[Sample]) -> None:
    state = TrainState(new_model(CONFIG, samples), CONFIG, steps=10)
    gradients = [torch.ones_like(p) for p in state.model.parameters()]
    before = [p.clone() for p in state.model.parameters()]
    for _ in range(3):  # never three in a row
        state.step(torch.tensor(torch.nan), gradients)
        state.step(torch.tensor(1.0), [g * torch.nan for g in gradients])
        if state.schedule.last_epoch == 0:
            after = list(state.model.parameters())
            assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
        state.step(torch.tensor(1.0), gradients)
    assert state.schedule.last_epoch == 3
    assert all(p.isfinite().all() for p in state.model.parameters())


def test_divergence_raises(tmp_path: Path) -> None:
    wild = dataclasses.replace(CONFIG, learning_rate=1e30, clip=1e30)
    with pytest.raises(FloatingPointError, match="must be finite"):
        fit(wild, tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


def test_validation_loss_that_is_not_finite_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"energy": np.nan, "forces": 1.0, "stress": 1.0}
    monkeypatch.setattr(PotentialTask, "validate", lambda *_: scores)
    with pytest.raises(FloatingPointError, match="validation loss must be finite"):
        fit(CONFIG, tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


def test_early_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = iter([3.0, 2.0, 2.5, 2.6, 1.0, 0.5])
    monkeypatch.setattr(
        PotentialTask,
        "validate",
        lambda *_: dict.fromkeys(("energy", "forces", "stress"), next(curve)),
    )
    config = dataclasses.replace(CONFIG, epochs=6, patience=2)
    for _ in range(2):  # the second call finds a run that has stopped
        fit(config, tmp_path)
        assert [row["val_energy"] for row in rows(tmp_path)] == [3.0, 2.0, 2.5, 2.6]
    assert load_model(tmp_path / "best.safetensors")[1]["training"]["epoch"] == 1


def test_folds_hold_no_test_formula() -> None:
    folds, provenance = load_folds(CONFIG)
    assert set(folds) == {"train", "val"}
    for name, samples in folds.items():
        for sample in samples:
            formula = Composition(str(Atoms(sample.graph.numbers).symbols)).reduced_formula
            assert fold_of(formula, val=0.2, test=0.2, seed=0) == name
    (file,) = provenance["files"]
    assert (file["train"], file["val"], file["test"]) == (32, 18, 10)


def test_labels_of_the_test_fold_play_no_part(run: Path, tmp_path: Path) -> None:
    frames = read_structures(ALLOYS)
    for atoms in frames:
        if fold_of(reduced_formula(atoms), val=0.2, test=0.2, seed=0) == "test":
            atoms.calc.results["energy"] = 1e6
            atoms.calc.results["forces"][:] = 40.0
    ase.io.write(tmp_path / "altered.extxyz", frames)
    fit(dataclasses.replace(CONFIG, files=(str(tmp_path / "altered.extxyz"),)), tmp_path / "run")
    assert_same_run(tmp_path / "run", run)


def test_labels_of_the_training_fold_do(run: Path, tmp_path: Path) -> None:
    """Negative control of the test above."""
    frames = read_structures(ALLOYS)
    for atoms in frames:
        if fold_of(reduced_formula(atoms), val=0.2, test=0.2, seed=0) == "train":
            atoms.calc.results["forces"] *= 1.01
    ase.io.write(tmp_path / "altered.extxyz", frames)
    config = dataclasses.replace(CONFIG, files=(str(tmp_path / "altered.extxyz"),), epochs=1)
    fit(config, tmp_path / "run")
    assert rows(tmp_path / "run") != rows(run)[:1]


def test_frames_left_out_are_counted(tmp_path: Path) -> None:
    frames = read_structures(ALLOYS)
    _, provenance = load_folds(dataclasses.replace(CONFIG, max_force=3.0))
    folds = split_indices(frames, val=0.2, test=0.2, seed=0)
    strongest = np.array([np.abs(atoms.get_forces()).max() for atoms in frames])
    wild = (strongest > 3.0)[folds["train"] + folds["val"]].sum()
    assert wild > 0
    assert provenance["files"][0]["too_wild"] == wild
    assert provenance["files"][0]["test"] == 10  # the test fold stays as wild as it is
    large = [frames[0], frames[0].repeat(2), *(atoms.copy() for atoms in frames[:3])]
    ase.io.write(tmp_path / "a.extxyz", [*frames, *large[1:]])
    config = dataclasses.replace(CONFIG, files=(str(tmp_path / "a.extxyz"),), max_atoms=8)
    counts = load_folds(config)[1]["files"][0]
    assert (counts["too_large"], counts["unlabelled"]) == (1, 3)


def test_empty_fold() -> None:
    with pytest.raises(ValueError, match="the val fold must hold at least one frame"):
        load_folds(dataclasses.replace(CONFIG, val=0.0))
    with pytest.raises(ValueError, match="the train fold must hold at least one frame"):
        load_folds(dataclasses.replace(CONFIG, max_force=1e-9))


def only(atoms: Atoms, *names: str) -> Atoms:
    """Copy with some of the labels."""
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, **{name: atoms.calc.results[name] for name in names})
    return copy


def test_frames_with_some_labels(tmp_path: Path) -> None:
    """Half of the frames without forces or stress, half without energy."""
    frames = read_structures(ALLOYS)
    mixed = [only(a, "energy") if k % 2 else only(a, "forces") for k, a in enumerate(frames)]
    ase.io.write(tmp_path / "a.extxyz", mixed)
    config = dataclasses.replace(CONFIG, files=(str(tmp_path / "a.extxyz"),))
    fit(config, tmp_path / "run")
    for row in rows(tmp_path / "run"):
        assert row["val_stress"] == row["train_stress"] == 0.0
        assert row["val_energy"] > 0
        assert row["train_forces"] > 0


def test_curve_of_a_label_that_is_missing_everywhere(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # draw
    row = rows(run)[0] | {"train_stress": 0.0, "val_stress": 0.0, "seconds": 1.0}
    draw_history(tmp_path, [row, row | {"epoch": 1}])
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


def test_no_energy_at_all_is_refused(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", [only(a, "forces") for a in read_structures(ALLOYS)])
    config = dataclasses.replace(CONFIG, files=(str(tmp_path / "a.extxyz"),))
    with pytest.raises(ValueError, match="the train fold must hold at least one energy"):
        fit(config, tmp_path / "run")


def test_molecules_train_too(tmp_path: Path) -> None:
    water = molecule("H2O")
    assert fold_of("H2O", val=0.2, test=0.2, seed=0) == "train"
    water.calc = SinglePointCalculator(water, energy=-14.0, forces=np.zeros((3, 3)))
    ase.io.write(tmp_path / "a.extxyz", [*read_structures(ALLOYS), water])
    fit(dataclasses.replace(CONFIG, files=(str(tmp_path / "a.extxyz"),)), tmp_path / "run")


def test_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    generator, dtype = torch.get_rng_state(), torch.get_default_dtype()
    fit(dataclasses.replace(CONFIG, epochs=1), tmp_path)
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_default_dtype() == dtype
    assert torch.is_grad_enabled()


def test_progress_reports_every_batch(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []
    config = dataclasses.replace(CONFIG, epochs=2)
    fit(config, tmp_path, lambda epoch, share, parts: seen.append((epoch, share)))
    assert [epoch for epoch, _ in seen] == sorted(epoch for epoch, _ in seen)
    for epoch in range(2):
        shares = [share for now, share in seen if now == epoch]
        np.testing.assert_allclose(shares, np.arange(1, len(shares) + 1) / len(shares))


def test_new_model_has_the_references_of_the_training_fold() -> None:
    folds, _ = load_folds(CONFIG)
    model = new_model(CONFIG, folds["train"])
    errors = []
    for sample in folds["train"]:
        sums = model.element_energies[sample.graph.numbers].sum()
        errors.append(float((sample.targets["energy"] - sums) / len(sample.graph.numbers)))
    assert abs(np.mean(errors)) < 0.02
    assert model.energy_scale.item() == pytest.approx(np.mean(np.abs(errors)), rel=1e-4)


def test_shortest_distances_are_those_of_the_training_fold() -> None:
    folds, _ = load_folds(CONFIG)
    model = new_model(CONFIG, folds["train"])
    for sample in folds["train"]:
        source, destination = sample.graph.numbers[sample.graph.edge_index]
        distance = sample.graph.edge_vectors().norm(dim=1)
        assert (distance >= model.shortest[source, destination] - 1e-5).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": ()}, "files must name at least one file"),
        ({"epochs": 0}, "epochs must be larger than 0, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be larger than 0"),
        ({"ema": 1.0}, r"ema must lie in \[0, 1\), got 1.0"),
        ({"warmup": -0.1}, "warmup must lie in"),
    ],
)
def test_bad_config(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_config_round_trip() -> None:
    assert TrainConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG
    assert TrainConfig.from_dict({"files": "one.xyz"}).files == ("one.xyz",)
    assert TrainConfig(files=(ALLOYS,)).to_dict()["files"] == [str(ALLOYS)]  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="nonsense"):
        TrainConfig.from_dict(CONFIG.to_dict() | {"nonsense": 1})


def test_samples_of_one_structure_are_enough_to_validate() -> None:
    frames = read_structures(ALLOYS)[:1]
    folds, _ = load_folds(CONFIG)
    model = new_model(CONFIG, folds["train"])
    scores = PotentialTask(CONFIG).validate(model, make_samples(frames, 4.0))
    assert np.isfinite(list(scores.values())).all()


def test_other_data_under_the_same_name_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "frames.extxyz"
    copy.write_bytes(ALLOYS.read_bytes())
    config = dataclasses.replace(CONFIG, files=(str(copy),), epochs=1)
    fit(config, tmp_path / "run")
    frames = read_structures(copy)
    ase.io.write(copy, frames[:-1])
    with pytest.raises(ValueError, match="data files must be those"):
        fit(config, tmp_path / "run")


def test_moving_average_forgets_its_start() -> None:
    """A short run is not an average with its untrained weights, a long one has the full decay."""
    average = _moving_average(0.99)
    weights = [torch.full((3,), 100.0)]
    for n in range(20):
        average(weights, [torch.ones(3)], n)
    assert float(weights[0].max()) < 1.01
    average(weights, [torch.full((3,), 2.0)], 10_000)
    assert float(weights[0].max()) == pytest.approx(1.01, abs=1e-3)
