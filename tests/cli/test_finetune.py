"""Fine-tuning in one command, on frames that EMT labelled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from click.testing import CliRunner, Result

from qdgnn_ase import QDGNNConfig, TrainConfig, fit, load_model, read_structures
from qdgnn_ase.cli import group
from qdgnn_ase.training.replay import replay_frames

ALLOYS = Path(__file__).parent.parent / "data_files" / "alloys_emt.extxyz"
TINY = QDGNNConfig(cutoff=4.0, hidden=8, n_layers=1, n_vectors=2, n_radial=4, n_pair=4, n_heads=2)
SHIFT = 3.0

pytestmark = pytest.mark.filterwarnings("ignore::qdgnn_ase.ExtrapolationWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short run on alloys without silver and gold."""
    folder = tmp_path_factory.mktemp("model")
    known = [atoms for atoms in read_structures(ALLOYS) if not {"Ag", "Au"} & set(atoms.symbols)]
    ase.io.write(folder / "known.extxyz", known)
    config = TrainConfig(
        files=(str(folder / "known.extxyz"),), model=TINY, epochs=2, val=0.2, test=0.2
    )
    return str(fit(config, folder / "run"))


def known_file(model: str) -> Path:
    return Path(model).parents[1] / "known.extxyz"


def labelled(atoms: Atoms, shift: float) -> Atoms:
    atoms.calc = EMT()
    values = {
        "energy": atoms.get_potential_energy() + shift * len(atoms),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(),
    }
    atoms.calc = SinglePointCalculator(atoms, **values)
    return atoms


def crystal(symbol: str, n: int) -> list[Atoms]:
    """Frames of one material, as from dynamics, in a method with energies elsewhere."""
    frames = []
    for seed in range(n):
        atoms = bulk(symbol, cubic=True)
        atoms.rattle(0.1, seed=seed)
        frames.append(labelled(atoms, SHIFT))
    return frames


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    ase.io.write(tmp_path / "copper.extxyz", crystal("Cu", 30))
    return tmp_path / "copper.extxyz"


def finetune(*arguments: Any, code: int = 0) -> Result:
    """Run the command in this process."""
    result = CliRunner().invoke(group, ["finetune", *map(str, arguments)])
    if code != 1 and result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_one_material(model: str, copper: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--model", model, "-o", run, "--epochs", 2, "--old", known_file(model))
    result = finetune(copper, *options)
    assert "Split by frame" in result.output
    assert "24 frames to train on, 3 to choose the best epoch, 3 to test" in result.output
    report = json.loads((run / "report.json").read_text())
    before, refitted, after = report["held_out"].values()
    assert [row["frames"] for row in (before, refitted, after)] == [3, 3, 3]
    assert before["energy_mae"] > 1.0  # the shift of 3 eV/atom, and what two epochs did not learn
    assert refitted["energy_mae"] < 0.1
    assert refitted["forces_mae"] == pytest.approx(before["forces_mae"])
    assert after["forces_mae"] < before["forces_mae"]
    old = report["old"]["known.extxyz"]
    assert old["as it was"]["frames"] == old["fine-tuned"]["frames"] > 0
    assert old["as it was"]["energy_mae"] < old["fine-tuned"]["energy_mae"]
    assert "as it was" in result.output
    tuned, document = load_model(run / "best.safetensors")
    assert document["training"]["train_config"]["split_by"] == "frame"
    assert document["training"]["init"]["train_config"]["files"] == ["known.extxyz"]
    assert tuned.config == TINY


def test_fold_of_the_tuned_model(model: str, copper: Path, tmp_path: Path) -> None:
    """`evaluate --fold test` sees the frames of the report: the split by frame is stored."""
    run = tmp_path / "run"
    finetune(copper, "--model", model, "-o", run, "--epochs", 1)
    arguments = ["evaluate", str(copper), "--model", str(run / "best.safetensors")]
    arguments += ["--fold", "test", "--json", str(tmp_path / "e.json")]
    result = CliRunner().invoke(group, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    row = json.loads((tmp_path / "e.json").read_text())["files"]["copper.extxyz"]
    wanted = json.loads((run / "report.json").read_text())["held_out"]["fine-tuned"]
    assert row["frames"] == wanted["frames"] == 3
    assert row["energy_mae"] == pytest.approx(wanted["energy_mae"])


def test_many_materials_are_split_by_formula(model: str, tmp_path: Path) -> None:
    result = finetune(ALLOYS, "--model", model, "-o", tmp_path / "run", "--epochs", 1)
    assert "Split by formula" in result.output
    assert "new to the model: Ag, Au" in result.output
    tuned = load_model(tmp_path / "run" / "best.safetensors")[0]
    assert int(tuned.counts[47]) > 0
    assert int(tuned.counts[79]) > 0


def test_own_frames_are_trained_along(model: str, copper: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--model", model, "-o", run, "--epochs", 1, "--keep", known_file(model))
    result = finetune(copper, *options)
    kept = read_structures(run / "keep.extxyz")
    assert f"{len(kept)} frames of the model's own training" in result.output
    assert 0 < len(kept) <= 30
    document = load_model(run / "best.safetensors")[1]
    assert [row["name"] for row in document["training"]["files"]] == [
        "copper.extxyz",
        "keep.extxyz",
    ]
    finetune(copper, *options)  # the same run again: nothing left to do, nothing refused


def test_replay_follows_the_references_and_leaves_the_test_fold(model: str) -> None:
    config = load_model(model)[1]["training"]["train_config"]
    change = np.zeros(95)
    change[[13, 29]] = 1.0, -2.0
    frames = replay_frames([known_file(model)], config, change, 1000)
    originals = {tuple(a.positions.ravel()): a for a in read_structures(known_file(model))}
    counts = load_model(model)[1]["training"]["files"][0]
    assert len(frames) == counts["train"] < len(originals)
    for atoms in frames:
        old = originals[tuple(atoms.positions.ravel())]
        n_al, n_cu = (int((atoms.numbers == z).sum()) for z in (13, 29))
        wanted = old.get_potential_energy() + n_al - 2.0 * n_cu
        assert atoms.get_potential_energy() == pytest.approx(wanted)
        np.testing.assert_array_equal(atoms.get_forces(), old.get_forces())
        np.testing.assert_allclose(atoms.get_stress(), old.get_stress())
    assert len(replay_frames([known_file(model)], config, change, 4)) == 4


def test_forces_alone_leave_the_references(model: str, tmp_path: Path) -> None:
    frames = crystal("Cu", 20)
    for atoms in frames:
        del atoms.calc.results["energy"]
    ase.io.write(tmp_path / "f.extxyz", frames)
    finetune(tmp_path / "f.extxyz", "--model", model, "-o", tmp_path / "run", "--epochs", 1)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["held_out"]["fine-tuned"]["energy_mae"] is None
    assert report["held_out"]["fine-tuned"]["forces_mae"] > 0
    tuned = load_model(tmp_path / "run" / "best.safetensors")[0]
    assert (tuned.element_energies == load_model(model)[0].element_energies).all()


def test_unlabelled_file_is_refused(model: str, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "bare.extxyz", [bulk("Cu"), bulk("Al")])
    result = finetune(tmp_path / "bare.extxyz", "--model", model, "-o", tmp_path / "run", code=2)
    assert "must hold energies, forces or stress" in result.output
    assert not (tmp_path / "run").exists()


def test_folder_of_another_run_is_refused(model: str, copper: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    other = replace(TrainConfig(files=("other.extxyz",)), epochs=3)
    (run / "config.json").write_text(json.dumps(other.to_dict()))
    options = ("--model", model, "-o", run, "--keep", known_file(model))
    with pytest.raises(ValueError, match="must hold a run of this config"):
        finetune(copper, *options, code=2)
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_too_few_frames_are_refused(model: str, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "two.extxyz", crystal("Cu", 2))
    with pytest.raises(ValueError, match="val fold must hold at least one frame"):
        finetune(tmp_path / "two.extxyz", "--model", model, "-o", tmp_path / "run", code=2)


def test_model_without_a_split_cannot_tell_what_it_forgets(copper: Path, tmp_path: Path) -> None:
    bare = Path(__file__).parents[1] / "data_files" / "checkpoint_format1.safetensors"
    options = ("--model", bare, "-o", tmp_path / "run", "--old", ALLOYS)
    assert "stores its split" in finetune(copper, *options, code=2).output
