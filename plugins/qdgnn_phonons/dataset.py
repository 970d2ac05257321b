"""Data sets of displaced supercells in files, each frame with where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ase.io
from ase import Atoms
from ase.db import connect

from qdgnn_phonons.files import write_atomically

DATABASES = (".db", ".json")
TEXTS = (".extxyz", ".xyz")


def check_name(path: Path) -> None:
    """Refuse a file that `write_dataset` could not write.

    Raises:
        ValueError: With the names that it can.
    """
    if path.suffix not in (*DATABASES, *TEXTS):
        raise ValueError(f"{path} must end in {', '.join((*TEXTS, *DATABASES))}")


def write_dataset(frames: Sequence[Atoms], path: str | Path) -> None:
    """Write frames with their ``info`` to extended XYZ or an ASE database.

    An older file is replaced once the new one is complete.

    Args:
        frames: Structures with a unique ``info["key"]`` each.
        path: File ending in .extxyz, .xyz, .db or .json.

    Raises:
        ValueError: If the name ends otherwise, there is no frame, or two have one key.
    """
    path = Path(path)
    if not frames:
        raise ValueError("frames must hold at least one structure, got none")
    keys = [atoms.info.get("key") for atoms in frames]
    if None in keys or len(set(keys)) < len(keys):
        raise ValueError("every frame must have a key of its own in info['key']")
    check_name(path)
    if path.suffix in DATABASES:
        write_atomically(path, lambda target: _write_database(frames, target))
    else:
        write_atomically(path, lambda target: ase.io.write(target, frames, format="extxyz"))


def _write_database(frames: Sequence[Atoms], path: Path) -> None:
    with connect(path, append=False) as database:
        for atoms in frames:
            # ASE refuses names that could be an element or a number as columns: data takes any
            database.write(atoms, data=atoms.info, arm=str(atoms.info.get("arm", "")))


def read_dataset(path: str | Path) -> list[Atoms]:
    """Inverse of `write_dataset`."""
    path = Path(path)
    if path.suffix not in DATABASES:
        return list(ase.io.read(path, ":", format="extxyz"))
    frames = []
    for row in connect(path).select():
        atoms = row.toatoms()
        atoms.info = dict(row.data)
        frames.append(atoms)
    return frames
