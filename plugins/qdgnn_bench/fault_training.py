"""Training on faulty labels, training that is killed, and a disk that is full.

Right values are curves: a run with NaN labels must have the curve of a run without those labels,
and an interrupted run that of one that was left alone.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from qdgnn_ase import QDGNNConfig, TrainConfig, fit, load_model, save_model
from qdgnn_bench.faults import Case, NotApplicable, Subject

CURVE_TOLERANCE = 1e-6
"""Relative; the same sums in the same order leave no difference at all."""

Labels = dict[str, Any]
Edit = Callable[[int, Atoms, Labels], None]
"""Changes frame number k and its labels in place."""

_LABELS = ("energy", "forces", "stress")
_TRAIN_AND_DIE = """
import json, os, signal, sys, torch
from qdgnn_ase import TrainConfig, fit

def progress(epoch, share, parts):
    if epoch == 1 and share >= 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(int(sys.argv[3]))
fit(TrainConfig.from_dict(json.loads(sys.argv[1])), sys.argv[2], progress)
"""


def training_cases() -> tuple[Case, ...]:
    """All cases that train or write."""
    return (*_masked_labels(), *_refused_frames(), *_interruptions())


def _masked_labels() -> list[Case]:
    def case(name: str, faulty: Edit, whole: Edit) -> Case:
        def probe(_: Subject, folder: Path) -> float:
            return _difference(_train(folder / "a", faulty), _train(folder / "b", whole))

        return Case(name=name, fault="NaN labels", expected="value", probe=probe, ours_only=True)

    def lose(k: int, atoms: Atoms, labels: Labels) -> None:
        atoms.positions[0] = np.nan if k % 2 else atoms.positions[0]

    return [
        case("NaN energies = none given", _blank("energy"), _drop("energy")),
        case("inf energies = none given", _blank("energy", value=np.inf), _drop("energy")),
        case("NaN forces = none given", _blank("forces"), _drop("forces")),
        case("NaN stresses = none given", _blank("stress"), _drop("stress")),
        case("NaN positions = frames without labels", lose, _drop(*_LABELS)),
    ]


def _refused_frames() -> list[Case]:
    def case(name: str, edit: Edit, message: str, fault: str = "broken training frame") -> Case:
        def probe(_: Subject, folder: Path) -> float:
            return float(_curve(_train(folder, edit))[-1, -1])

        return Case(
            name=name,
            fault=fault,
            expected="error",
            probe=probe,
            error=ValueError,
            message=message,
            ours_only=True,
        )

    def element(z: int) -> Edit:
        return lambda k, atoms, labels: atoms.numbers.__setitem__(0, z)

    def coincide(k: int, atoms: Atoms, labels: Labels) -> None:
        atoms.positions[0] = atoms.positions[1]

    return [
        case("all labels NaN", _blank(*_LABELS, every=1), "'unlabelled': 20", "NaN labels"),
        case("all energies NaN", _blank("energy", every=1), "one (finite )?energy", "NaN labels"),
        case("dummy atom", element(0), r"frame \d.*dummy atoms"),
        case("americium", element(95), r"must lie in 1\.\.94"),
        case("coincident atoms", coincide, r"frame \d.*0\.3 Å apart"),
    ]


def _interruptions() -> list[Case]:
    value: dict[str, Any] = {"expected": "value", "ours_only": True}
    full = "full disk"
    return [
        Case(name="kill -9 in epoch 2, resumed", fault="killed worker", probe=_killed, **value),
        Case(name="full in epoch 2, freed, resumed", fault=full, probe=_full_in_training, **value),
        Case(
            name="full while a checkpoint is replaced",
            fault=full,
            expected="error",
            probe=_full_in_saving,
            error=OSError,
            message="File too large|No space left",
            ours_only=True,
        ),
    ]


def _killed(_: Subject, folder: Path) -> float:
    """The killed run goes on although a half-written file lies in its folder."""
    config, run = _config(folder), folder / "run"
    wanted = fit(config, folder / "whole").parent
    arguments = [json.dumps(config.to_dict()), str(run), str(torch.get_num_threads())]
    command = [sys.executable, "-c", _TRAIN_AND_DIE, *arguments]
    worker = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if worker.returncode != -9:
        raise RuntimeError(f"the worker must die of signal 9, got {worker.returncode}: {worker}")
    state = run / "last.safetensors"
    state.with_name(f".{state.name}.{os.getpid()}").write_bytes(state.read_bytes()[:999])
    return _difference(fit(config, run).parent, wanted)


def _full_in_training(_: Subject, folder: Path) -> float:
    """Both checkpoints of epoch 1 survive, nothing lies about, and the run goes on."""
    config, run = _config(folder), folder / "run"
    wanted = fit(config, folder / "whole").parent
    with _disk() as fill:
        try:
            fit(config, run, lambda epoch, share, parts: fill() if epoch else None)
        except OSError:
            pass
        else:
            return float("inf")
    load_model(run / "best.safetensors")
    if len(_curve(run)) != 1 or any(path.name.startswith(".") for path in run.iterdir()):
        return float("inf")
    return _difference(fit(config, run).parent, wanted)


def _full_in_saving(subject: Subject, folder: Path) -> float:
    """The old file must stay whole and alone."""
    network, path = load_model(subject.model or "default")[0], folder / "model.safetensors"
    save_model(path, network, {"version": 1})
    with _disk() as fill:
        fill()
        try:
            save_model(path, network, {"version": 2})
        except OSError:
            if load_model(path)[1]["training"] == {"version": 1} and list(folder.iterdir()) == [
                path
            ]:
                raise
    return float("inf")


@contextmanager
def _disk(size: int = 8_192) -> Iterator[Callable[[], None]]:
    """Yields a function that fills the disk: no file may grow beyond ``size`` bytes from then on.

    Raises:
        NotApplicable: Where the system has no such limit.
    """
    try:
        import resource
    except ImportError as error:
        raise NotApplicable("this system has no limit of file sizes") from error
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def _blank(*names: str, every: int = 2, value: float = np.nan) -> Edit:
    """Multiply labels of every n-th frame by ``value``."""

    def edit(k: int, atoms: Atoms, labels: Labels) -> None:
        if k % every == every - 1:
            labels.update({name: labels[name] * value for name in names})

    return edit


def _drop(*names: str) -> Edit:
    """Remove labels of every second frame."""

    def edit(k: int, atoms: Atoms, labels: Labels) -> None:
        for name in names if k % 2 else ():
            del labels[name]

    return edit


def _keep(k: int, atoms: Atoms, labels: Labels) -> None:
    """Change nothing."""


def _frames(edit: Edit) -> list[Atoms]:
    """Twenty binary alloys with EMT labels."""
    frames = []
    for k, (a, b) in enumerate(permutations(("Cu", "Al", "Ag", "Au", "Pt"), 2)):
        atoms = bulk("Cu", a=4.0, cubic=True)
        atoms.symbols[:] = [a, a, a, b]
        atoms.rattle(0.1, seed=k)
        calculator = EMT()
        labels = {name: calculator.get_property(name, atoms) for name in _LABELS}
        edit(k, atoms, labels)
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


def _config(folder: Path, edit: Edit = _keep, epochs: int = 2) -> TrainConfig:
    """Run on the frames, which are written into ``folder``."""
    folder.mkdir(exist_ok=True)
    path = folder / "frames.extxyz"
    ase.io.write(path, _frames(edit))
    model = QDGNNConfig(
        cutoff=4.0, hidden=16, n_layers=2, n_vectors=4, n_radial=4, n_pair=4, n_heads=2
    )
    limits: dict[str, Any] = {"val": 0.2, "test": 0.1, "max_edges": 1_000}
    return TrainConfig(files=(str(path),), model=model, epochs=epochs, **limits)


def _train(folder: Path, edit: Edit) -> Path:
    return fit(_config(folder, edit, epochs=1), folder / "run").parent


def _curve(run: Path) -> NDArray[np.float64]:
    """Losses of each epoch without the times, (n_epochs, n_columns)."""
    with (run / "history.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    return np.array(
        [[float(v) for k, v in row.items() if not k.endswith("seconds")] for row in rows]
    )


def _difference(run: Path, wanted: Path) -> float:
    """Largest relative difference of two curves in units of the tolerance."""
    a, b = _curve(run), _curve(wanted)
    if a.shape != b.shape:
        return float("inf")
    return float((abs(a - b) / abs(b).clip(1e-9)).max()) / CURVE_TOLERANCE
