"""The command line: files in and out, exit codes, one line for bad input."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.data import chemical_symbols
from click.testing import CliRunner, Result

from qdgnn_ase import QDGNN, QDGNNConfig, load_model, predict, save_model
from qdgnn_ase.cli import group, main
from qdgnn_ase.data.splits import fold_of, reduced_formula
from qdgnn_ase.inference.evaluate import METRICS

ALLOYS = Path(__file__).parent.parent / "data_files" / "alloys_emt.extxyz"
TINY = QDGNNConfig(cutoff=4.0, hidden=8, n_layers=1, n_vectors=2, n_radial=4, n_pair=4, n_heads=2)
SPLIT = {"val": 0.2, "test": 0.2, "split_seed": 0}

pytestmark = pytest.mark.filterwarnings("ignore::qdgnn_ase.ExtrapolationWarning")


@pytest.fixture(scope="module")
def model(small_potential: QDGNN, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a small checkpoint with random weights and a split."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(path, small_potential, {"train_config": SPLIT})
    return str(path)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def qdgnn(*arguments: Any, code: int = 0) -> Result:
    """Run a command in this process; nothing but an exit code may come out."""
    result = CliRunner().invoke(group, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def process(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed program."""
    command = [str(Path(sys.executable).parent / "qdgnn"), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def rattled() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


@pytest.fixture(params=["salt.cif", "salt.extxyz", "POSCAR"])
def structure(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    ase.io.write(tmp_path / request.param, rattled())
    return tmp_path / request.param


def test_relax_writes_beside_the_input(model: str, structure: Path) -> None:
    result = qdgnn("relax", structure, "--model", model, "--fmax", 100)
    stem = {"POSCAR": "poscar"}.get(structure.name, structure.stem)  # ASE reads *POSCAR* as VASP
    output = structure.with_name(f"{stem}_relaxed.extxyz")
    assert "converged" in result.output
    assert output.name in result.output.replace("\n", "")
    atoms = ase.io.read(output)
    assert atoms.get_chemical_formula() == "Cl4Na4"
    assert np.isfinite(atoms.get_potential_energy())
    assert atoms.get_forces().shape == (8, 3)
    assert atoms.get_stress().shape == (6,)


def test_relax_that_does_not_converge_says_so(model: str, tmp_path: Path) -> None:
    ase.io.write("a.extxyz", rattled())
    command = ("relax", "a.extxyz", "--model", model, "--steps", 3, "--fmax", 1e-9)
    result = qdgnn(*command, "-o", "new/b.cif", "--trajectory", "c.traj", code=1)
    assert "NOT converged" in result.output
    assert len(ase.io.read("c.traj", ":")) == 4
    assert len(ase.io.read("new/b.cif")) == 8


def test_relax_options(model: str) -> None:
    ase.io.write("a.extxyz", rattled())
    command = ("relax", "a.extxyz", "--model", model, "--steps", 3, "--fmax", 1e-9)
    cells = []
    for options in ((), ("--fixed-cell",), ("--pressure-gpa", 50)):
        qdgnn(*command, *options, "-o", "b.extxyz", code=1)
        cells.append(ase.io.read("b.extxyz").get_volume())
    assert cells[1] == pytest.approx(rattled().get_volume())
    assert cells[2] < cells[0] != cells[1]


def test_relax_takes_the_last_frame(model: str) -> None:
    ase.io.write("a.extxyz", [bulk("Cu"), rattled()])
    qdgnn("relax", "a.extxyz", "--model", model, "--fmax", 100)
    assert len(ase.io.read("a_relaxed.extxyz")) == 8


@pytest.mark.parametrize("name", ["molecule", "slab", "boxed molecule"])
def test_relax_keeps_the_cell_where_it_means_nothing(model: str, name: str) -> None:
    atoms = {
        "molecule": molecule("H2O"),
        "slab": fcc111("Al", (1, 1, 2), vacuum=4.0),
        "boxed molecule": molecule("H2O", vacuum=3.0),
    }[name]
    atoms.info.clear()
    ase.io.write("a.extxyz", atoms)
    qdgnn("relax", "a.extxyz", "--model", model, "--steps", 2, "--fmax", 1e-9, code=1)
    np.testing.assert_allclose(ase.io.read("a_relaxed.extxyz").cell.array, atoms.cell.array)


def test_names_with_dots_and_brackets(model: str) -> None:
    ase.io.write("mp-1.v2[red].extxyz", rattled())
    result = qdgnn("relax", "mp-1.v2[red].extxyz", "--model", model, "--fmax", 100)
    assert Path("mp-1.v2[red]_relaxed.extxyz").is_file()
    assert "v2[red]" in result.output


def test_md(model: str) -> None:
    ase.io.write("a.extxyz", bulk("NaCl", "rocksalt", a=5.6))
    command = ("md", "a.extxyz", "--model", model, "--time-ps", 0.01, "--interval", 5)
    qdgnn(*command, "--supercell", 2, 2, 1)
    frames = ase.io.read("a_md.extxyz", ":")
    assert [len(atoms) for atoms in frames] == [8, 8, 8]
    assert frames[-1].get_forces().shape == (8, 3)
    assert frames[-1].get_velocities().any()
    assert Path("a_md.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("ensemble", ["nve", "npt"])
def test_md_again_replaces_the_trajectory(model: str, ensemble: str) -> None:
    ase.io.write("a.extxyz", rattled())
    command = ("md", "a.extxyz", "--model", model, "--time-ps", 0.004, "--ensemble", ensemble)
    for _ in range(2):
        qdgnn(*command, "--interval", 2, "-o", "out/b.xyz")
        assert len(ase.io.read("out/b.xyz", ":")) == 3
    assert Path("out/b.png").is_file()


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_md_goes_on(model: str, ensemble: str) -> None:
    ase.io.write("a.extxyz", rattled())
    command = ("md", "a.extxyz", "--model", model, "--ensemble", ensemble, "--interval", 2)
    qdgnn(*command, "--time-ps", 0.008, "-o", "whole.xyz")
    qdgnn(*command, "--time-ps", 0.004, "-o", "part.xyz", "--resume")
    assert Path("part.xyz").read_bytes() != Path("whole.xyz").read_bytes()
    qdgnn(*command, "--time-ps", 0.008, "-o", "part.xyz", "--resume")
    assert Path("part.xyz").read_bytes() == Path("whole.xyz").read_bytes()


def test_md_with_another_state_gives_one_line(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    ase.io.write("a.extxyz", rattled())
    command = ("md", "a.extxyz", "--model", model, "--time-ps", 0.002)
    qdgnn(*command)
    text = bad_line(monkeypatch, capsys, *command, "--seed", 1, "--resume")
    assert text.startswith("qdgnn: seed must be that of a_md.extxyz.state, 0, got 1; write another")
    assert text.count("\n") == 1


@pytest.mark.parametrize("name", ["alloys.xyz", "alloys.xyz.gz"])
def test_evaluate(model: str, name: str) -> None:
    ase.io.write(name, ase.io.read(ALLOYS, ":8"), format="extxyz")
    result = qdgnn("evaluate", name, "--model", model, "--json", "new/report.json")
    assert name in result.output
    report = json.loads(Path("new/report.json").read_text())
    row = report["files"][name]
    assert (row["frames"], row["atoms"]) == (8, 32)
    for metric in METRICS:
        assert row[metric] > 0
        assert len(row[f"{metric}_interval"]) == 2
    assert row["skipped"] == {}
    assert (report["model"], report["dtype"], report["fold"]) == (model, "float32", None)
    assert report["units"] == METRICS
    assert {"date", "machine", "max_atoms"} <= report.keys()


def test_evaluate_one_fold(model: str) -> None:
    frames = ase.io.read(ALLOYS, ":")
    folds = [fold_of(reduced_formula(atoms), val=0.2, test=0.2, seed=0) for atoms in frames]
    qdgnn("evaluate", ALLOYS, "--model", model, "--fold", "test", "--json", "r.json")
    (row,) = json.loads(Path("r.json").read_text())["files"].values()
    assert row["frames"] == folds.count("test") > 0
    assert row["skipped"] == {"not in the test fold": 60 - row["frames"]}


def test_evaluate_skips_large_structures(model: str) -> None:
    frames = ase.io.read(ALLOYS, ":2")
    ase.io.write("a.extxyz", [*frames, frames[0].repeat(2)])
    result = qdgnn("evaluate", "a.extxyz", "--model", model, "--max-atoms", 4)
    assert "skipped 1: more than 4 atoms" in result.output


def test_evaluate_without_some_labels_writes_valid_json(model: str) -> None:
    atoms = ase.io.read(ALLOYS, "0")
    del atoms.calc.results["stress"]
    ase.io.write("a.extxyz", atoms)
    qdgnn("evaluate", "a.extxyz", "--model", model, "--json", "r.json")
    text = Path("r.json").read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["files"]
    assert row["a.extxyz"]["stress_mae"] is None
    assert row["a.extxyz"]["energy_mae"] > 0


def test_evaluate_two_files_of_one_name(model: str) -> None:
    for folder, frames in (("one", ":2"), ("two", ":5")):
        Path(folder).mkdir()
        ase.io.write(f"{folder}/a.xyz", ase.io.read(ALLOYS, frames), format="extxyz")
    qdgnn("evaluate", "one/a.xyz", "two/a.xyz", "--model", model, "--json", "r.json")
    rows = json.loads(Path("r.json").read_text())["files"]
    assert {name: row["frames"] for name, row in rows.items()} == {"one/a.xyz": 2, "two/a.xyz": 5}


def test_info(model: str) -> None:
    text = qdgnn("info", model).output
    assert "parameters" in text
    assert '"hidden": 8' in text
    assert "elements: X" not in text
    assert "default.safetensors" in qdgnn("info").output.replace("\n", "")


def test_doctor() -> None:
    text = qdgnn("doctor").output
    for name in ("python", "torch", "ase", "dgl", "default model", "phonopy"):
        assert name in text
    assert "fix:" not in text


def test_doctor_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from qdgnn_ase.cli import info

    monkeypatch.setitem(info._MINIMUM, "ase", "99.0")
    monkeypatch.setitem(info._MINIMUM, "no-such-package", "1.0")
    text = qdgnn("doctor", code=1).output
    assert "pip install 'ase>=99.0'" in text.replace("\n", "")
    assert "missing" in text


def test_help_lists_the_commands() -> None:
    text = qdgnn("--help").output
    for name in ("demo", "doctor", "evaluate", "info", "md", "relax", "train"):
        assert f"  {name}" in text
        assert "Usage:" in qdgnn(name, "--help").output


def bad_line(monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: Any) -> str:
    """Standard error of the program for bad input; it must end with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["qdgnn", *map(str, arguments)])
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # what main() sets, undone after the test
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    text: str = capsys.readouterr().err
    assert "Traceback" not in text
    return text


BAD_FILES = {  # name: (content, part of the message)
    "broken.extxyz": ("5\nProperties=species:S:1:pos:R:3\nH 0 0 0\n", "must be a structure file"),
    "empty.xyz": ("", "must hold at least one structure"),
    "broken.cif": ("data_x\n_cell_length_a 3\n", "must be a valid CIF"),
    "nan.xyz": ("1\n\nH 0 0 nan\n", "positions must be finite"),
    "close.xyz": ("2\n\nH 0 0 0\nH 0 0 0.01\n", "atoms must be at least 0.3 Å apart"),
    "heavy.xyz": ("1\n\nAm 0 0 0\n", r"atomic numbers must lie in 1..94, got [95]"),
}


@pytest.mark.parametrize("command", ["relax", "md"])
@pytest.mark.parametrize("name", list(BAD_FILES))
def test_bad_structures_give_one_line(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, command: str, name: str
) -> None:
    content, message = BAD_FILES[name]
    Path(name).write_text(content)
    text = bad_line(monkeypatch, capsys, command, name, "--model", model)
    assert text.count("\n") == 1
    assert text.startswith("qdgnn: ")
    assert message in text


@pytest.mark.parametrize("command", [("relax", "a.extxyz"), ("evaluate", "a.extxyz"), ("info",)])
def test_bad_models_give_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, command: tuple[str, ...]
) -> None:
    ase.io.write("a.extxyz", bulk("Cu"))
    Path("junk.safetensors").write_bytes(b"junk")
    option = () if command == ("info",) else ("--model",)
    for name, message in {
        "nonexistent": "model must be a checkpoint file or one of",
        "junk.safetensors": "must be a safetensors checkpoint",
    }.items():
        text = bad_line(monkeypatch, capsys, *command, *option, name)
        assert text.count("\n") == 1
        assert message in text


def test_explosion_gives_one_line(model: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    ase.io.write("a.extxyz", rattled())
    options = ("--timestep-fs", 1000, "--time-ps", 100, "--interval", 1, "--model", model)
    text = bad_line(monkeypatch, capsys, "md", "a.extxyz", *options)
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("relax",), "Missing argument"),
        (("relax", "none.cif"), "does not exist"),
        (("relax", "a.extxyz", "-o", "b.nonsense"), "must have a suffix that ASE writes"),
        (("relax", "a.extxyz", "-o", "b.vasprun.xml"), "must have a suffix that ASE writes"),
        (("relax", "a.extxyz", "--dtype", "float16"), "float16"),
        (("md", "a.extxyz", "-o", "b.traj"), "must end in .extxyz or .xyz"),
        (("md", "a.extxyz", "--supercell", 0, 1, 1), "three numbers from 1 up"),
        (("md", "a.extxyz", "--ensemble", "nph"), "nph"),
        (("md", "a.extxyz", "--interval", 0), "interval must be larger than 0"),
        (("md", "a.extxyz", "--time-ps", 0), "steps must be larger than 0"),
        (("md", "a.extxyz", "-T", -5), "temperature must be larger than 0"),
        (("evaluate",), "Missing argument"),
        (("train", "a.extxyz", "-o", "run"), "give --target NAME=COLUMN for data"),
        (("nonsense",), "No such command"),
        (("--threads", 0, "doctor"), "0 is not in the range x>=1"),
    ],
)
def test_bad_options(
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    arguments: tuple[Any, ...],
    message: str,
) -> None:
    ase.io.write("a.extxyz", bulk("NaCl", "rocksalt", a=5.6))
    option = ("--model", model) if arguments[0] in ("relax", "md") else ()
    assert message in bad_line(monkeypatch, capsys, *arguments, *option)
    assert sorted(path.name for path in Path().iterdir()) == ["a.extxyz"]


def test_fold_of_a_model_without_split(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    network, _ = load_model(model)
    save_model("bare.safetensors", network)
    arguments = ("evaluate", ALLOYS, "--model", "bare.safetensors", "--fold", "test")
    assert "needs a model that stores its split" in bad_line(monkeypatch, capsys, *arguments)


CONFIGS = {
    "[]": "must be a JSON object, got list",
    "{}": "files must name at least one file",
    '{"files": ["a"], "epoch": 3}': "unexpected keyword argument 'epoch'",
    '{"files": ["a"], "epochs": "3"}': "must hold a training config",
    '{"sources": []}': "sources must name at least one labelled file",
    '{"sources": [{"file": "a", "columns": {"gap": "b"}}]}': "target must be one of",
    '{"files": ["a"], "model": {"hidden": 7}}': "hidden must be divisible by",
    "not json": "must be a JSON config",
}


@pytest.fixture
def labelled() -> Path:
    """27 elements with a column "gap"."""
    rows = [
        {
            "lattice": (np.eye(3) * (3.0 + 0.1 * k)).tolist(),
            "species": [symbol],
            "frac_coords": [[0, 0, 0]],
            "gap": 0.1 * k,
        }
        for k, symbol in enumerate(chemical_symbols[3:30])
    ]
    path = Path("rows.jsonl")
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_train_on_labelled_data(
    labelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A column in, a model that predicts out; a wrong column is one line."""
    arguments = ["train", str(labelled), "-o", "run", "--epochs", "1", "--target"]
    line = bad_line(monkeypatch, capsys, *arguments, "band_gap=gapp")
    assert "must have a column 'gapp' for band_gap, got ['gap']" in line
    line = bad_line(monkeypatch, capsys, *arguments, "band_gap=gap", "--init", "no.safetensors")
    assert "no.safetensors" in line
    assert not Path("run").exists()
    qdgnn(*arguments, "band_gap=gap")
    assert set(predict(bulk("Na"), "run/best.safetensors")) == {"band_gap", "metal_probability"}
    config = json.loads(Path("run/config.json").read_text())
    assert config["init"] == "default"
    assert config["trunk"] == load_model("default")[0].config.to_dict()


@pytest.mark.parametrize("option", [("--init", "none"), ("--folds", "3"), ("--extend", "x")])
def test_init_extend_and_folds_are_for_labelled_data(
    option: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    Path("c.json").write_text(json.dumps(TRAINING))
    line = bad_line(monkeypatch, capsys, "train", "c.json", "-o", "run", *option)
    assert "--init, --extend and --folds need --target" in line


def test_folds_test_every_structure_once(labelled: Path) -> None:
    arguments = ["train", str(labelled), "-o", "run", "--epochs", "1", "--target", "band_gap=gap"]
    result = qdgnn(*arguments, "--folds", "3")
    assert "fold 2" in result.output
    document = json.loads(Path("run/folds.json").read_text())
    summary = document["summary"]["band_gap"]
    assert summary["n"] == len(labelled.read_text().splitlines())
    assert summary["mean"] == pytest.approx(np.mean(summary["values"]))
    assert [fold["band_gap"]["mae"] for fold in document["folds"]] == summary["values"]
    configs = [json.loads(Path(f"run/fold-{k}/config.json").read_text()) for k in range(3)]
    assert [config["split_turn"] for config in configs] == [0.0, 1 / 3, 2 / 3]
    assert all(config["init"] is None for config in configs)


@pytest.mark.parametrize("text", list(CONFIGS))
def test_bad_training_config(monkeypatch: pytest.MonkeyPatch, capsys: Any, text: str) -> None:
    Path("c.json").write_text(text)
    assert CONFIGS[text] in bad_line(monkeypatch, capsys, "train", "c.json", "-o", "run")
    assert not Path("run").exists()


def test_program_starts_without_numpy() -> None:
    """``main`` sets a variable that numpy reads when it is loaded."""
    code = "import sys, qdgnn_ase.cli; assert not {'numpy', 'torch', 'ase'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_installed_program_reports_bad_input_in_one_line() -> None:
    Path("bad.xyz").write_text("3\n\nH 0 0 0\n")
    result = process("relax", "bad.xyz")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("qdgnn: bad.xyz must be a structure file that ASE reads")


TRAINING = {
    "files": [str(ALLOYS)],
    "model": TINY.to_dict(),
    "epochs": 2,
    "max_edges": 2000,
    "val": 0.2,
    "test": 0.2,
}


def test_train(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qdgnn_ase.cli.train.tune_process", "logging.basicConfig"):
        monkeypatch.setattr(name, lambda **_: None)  # this process is not the command's own
    Path("c.json").write_text(json.dumps(TRAINING))
    result = qdgnn("train", "c.json", "-o", "run")
    assert "best model: run/best.safetensors" in result.output
    assert load_model("run/best.safetensors")[0].config == TINY


@pytest.mark.slow
def test_installed_program_trains_and_evaluates() -> None:
    Path("c.json").write_text(json.dumps(TRAINING))
    trained = process("train", "c.json", "-o", "run")
    assert trained.returncode == 0, trained.stderr
    assert "run/best.safetensors" in trained.stdout
    with Path("run/history.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == 2
    assert Path("run/history.png").is_file()
    evaluated = process(
        "evaluate", ALLOYS, "--model", "run/best.safetensors", "--fold", "test", "--json", "r.json"
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(Path("r.json").read_text())["files"][ALLOYS.name]["frames"] == 10


def test_training_on_a_missing_file_gives_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name in ("qdgnn_ase.cli.train.tune_process", "logging.basicConfig"):
        monkeypatch.setattr(name, lambda **_: None)
    Path("c.json").write_text('{"files": ["none.xyz"]}')
    text = bad_line(monkeypatch, capsys, "train", "c.json", "-o", "run")
    assert text == "qdgnn: structure file must exist, got none.xyz\n"
    assert not Path("run").exists()


@pytest.mark.slow
def test_demo() -> None:
    result = process("demo", "--time-ps", "0.01", "-o", "out")
    assert result.returncode == 0, result.stderr
    for name in ("LiFePO4", "Li3PS4", "NaCl"):
        assert name in result.stdout
        assert np.isfinite(ase.io.read(f"out/{name}.extxyz").get_potential_energy())
    assert len(ase.io.read("out/md.extxyz", ":")[-1]) == 224
    assert Path("out/md.png").is_file()


def test_demo_structures() -> None:
    """Published structures: right formulas, no two atoms too close."""
    from qdgnn_ase.cli.demo import MATERIALS

    shortest = {"LiFePO4": 1.5, "Li3PS4": 2.0, "NaCl": 2.8}
    n_atoms = {"LiFePO4": 28, "Li3PS4": 16, "NaCl": 8}
    for name, build in MATERIALS.items():
        atoms = build()
        assert reduced_formula(atoms) == name
        assert len(atoms) == n_atoms[name]
        distances = atoms.get_all_distances(mic=True)
        assert distances[distances > 0].min() > shortest[name] - 0.1


def test_md_that_cannot_start_keeps_the_old_trajectory(model: str, structure: Path) -> None:
    old = structure.with_name("old.extxyz")
    old.write_text("precious")
    with pytest.raises(ValueError, match="temperature must be larger than 0"):
        CliRunner().invoke(
            group,
            ["md", str(structure), "--model", model, "-T", "-5", "-o", str(old)],
            catch_exceptions=False,
        )
    assert old.read_text() == "precious"
