"""Trajectory of molecular dynamics and, beside it, the state from which a killed run goes on.

The state has positions, momenta and cell in full precision, the random generator, and length and
sha256 of the trajectory so far: a run that goes on from it writes the same file as one that was
never stopped.
"""

from __future__ import annotations

import hashlib
import io
import os
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict

from qdgnn_ase.data.resume import lock
from qdgnn_ase.training.checkpoint import CheckpointError, load_tensors, save_tensors

Row = dict[str, float]

_ENERGY_TOLERANCE = 1e-4
"""eV/atom; float32 differs by 1e-6 between machines, another potential by far more."""


class MDTrajectory:
    """Extended XYZ file of a run, one writer at a time, with the state in ``PATH.state``.

    Args:
        path: File to write; an older one is replaced at the first frame, not before.
        settings: What must be the same when the run goes on, as JSON values.
        keeps_state: False where the integrator has variables that ASE does not hand out.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], *, keeps_state: bool) -> None:
        self.path = Path(path)
        self.state = self.path.with_name(f"{self.path.name}.state")
        self.settings = settings
        self.keeps_state = keeps_state
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()

    def __enter__(self) -> MDTrajectory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def resume(self, atoms: Atoms, rng: np.random.Generator) -> list[Row]:
        """Put atoms and generator into the saved state; rows so far, none where nothing is saved.

        Frames behind the state are cut off: the run writes them again.

        Raises:
            ValueError: If the state is damaged, of another run or of another trajectory.
            FileNotFoundError: If there is a trajectory without a state.
        """
        if not self.keeps_state:
            raise ValueError(
                f"ensemble must be 'nve', 'nvt' or 'langevin' to go on from a state, got "
                f"{self.settings['ensemble']!r}, whose barostat ASE does not hand out"
            )
        if not self.state.exists():
            if self.path.exists():
                raise FileNotFoundError(
                    f"{self.state} must exist to go on with {self.path}; start anew without resume"
                )
            return []
        tensors, document = load_tensors(self.state)
        self._check(document)
        rows = self._reopen(document["bytes"], document["sha256"])
        atoms.set_cell(tensors["cell"].numpy())
        atoms.set_positions(tensors["positions"].numpy(), apply_constraint=False)
        atoms.set_momenta(tensors["momenta"].numpy(), apply_constraint=False)
        _check_energy(atoms, rows[-1]["potential"], self.state)
        rng.bit_generator.state = document["random"]
        return rows

    def write(self, atoms: Atoms, rng: np.random.Generator, row: Row) -> None:
        """Append a frame with its row in the comment line, then save the state."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
            lock(self._file)
            self._file.truncate(0)
        content = _frame(atoms, row)
        self._digest.update(content)
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())
        if self.keeps_state:
            self._save(atoms, rng, self._file.tell())

    def _save(self, atoms: Atoms, rng: np.random.Generator, size: int) -> None:
        arrays = {
            "positions": atoms.positions,
            "momenta": atoms.get_momenta(),
            "cell": atoms.cell.array,
        }
        document = {
            "molecular_dynamics": self.settings,
            "random": rng.bit_generator.state,
            "bytes": size,
            "sha256": self._digest.hexdigest(),
        }
        save_tensors(
            self.state, {name: torch.from_numpy(array) for name, array in arrays.items()}, document
        )

    def _check(self, document: dict[str, Any]) -> None:
        saved = document.get("molecular_dynamics")
        if saved is None:
            raise CheckpointError(
                f"{self.state} must be the state of molecular dynamics, got another checkpoint"
            )
        for name, value in self.settings.items():
            if saved.get(name) != value:
                raise ValueError(
                    f"{name} must be that of {self.state}, {saved.get(name)}, got {value}; "
                    "write another run to another file"
                )

    def _reopen(self, size: int, sha256: str) -> list[Row]:
        """Rows of the first ``size`` bytes of the trajectory; what stands behind is cut off."""
        self._file = self.path.open("r+b")
        lock(self._file)
        rows = []
        while self._file.tell() < size and (head := self._file.readline()).strip().isdigit():
            lines = [head, *islice(iter(self._file.readline, b""), int(head) + 1)]
            self._digest.update(b"".join(lines))
            rows.append(_row(lines[1:2]))
        if self._file.tell() != size or self._digest.hexdigest() != sha256:
            raise ValueError(
                f"{self.path} must begin with the frames that {self.state} was saved with, got "
                "others: it was changed; start anew without resume, in another file"
            )
        self._file.truncate()
        return rows


def start_digest(atoms: Atoms) -> str:
    """Sha256 of what a run starts from."""
    arrays = (
        atoms.numbers,
        atoms.get_masses(),
        atoms.positions,
        atoms.get_momenta(),
        atoms.cell.array,
        atoms.pbc,
    )
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def _frame(atoms: Atoms, row: Row) -> bytes:
    frame = atoms.copy()
    frame.info |= row
    frame.calc = atoms.calc
    text = io.StringIO()
    ase.io.write(text, frame, format="extxyz")
    return text.getvalue().encode()


def _row(comment: list[bytes]) -> Row:
    pairs = key_val_str_to_dict(comment[0].decode()) if comment else {}
    names = ("step", "time_ps", "potential", "kinetic", "total", "temperature")
    return {name: pairs.get(name, float("nan")) for name in names}


def _check_energy(atoms: Atoms, saved: float, state: Path) -> None:
    energy = atoms.get_potential_energy()
    if not abs(energy - saved) <= _ENERGY_TOLERANCE * len(atoms):
        raise ValueError(
            f"the calculator must be that of {state}, where the energy is {saved:.6f} eV, got "
            f"{energy:.6f} eV"
        )
