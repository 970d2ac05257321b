"""Phonons in files that phonopy reads back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import phonopy
from phonopy import Phonopy
from phonopy.file_IO import write_force_constants_to_hdf5

YAML = "phonopy.yaml"
HDF5 = "force_constants.hdf5"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file of a temporary name; an older file lives until it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_phonons(phonon: Phonopy, folder: str | Path) -> list[Path]:
    """Crystal, displacements, forces and force constants as YAML, force constants as HDF5.

    ``phonopy.load(folder / "phonopy.yaml")`` and the `phonopy-load` command read them; bands,
    density of states and thermal properties are added where they have been computed.

    Returns:
        The files.
    """
    writers: dict[str, Callable[[Path], object]] = {
        YAML: lambda path: phonon.save(path, settings={"force_constants": True}),
        HDF5: lambda path: write_force_constants_to_hdf5(
            phonon.force_constants, str(path), p2s_map=phonon.primitive.p2s_map
        ),
    }
    if phonon.band_structure is not None:
        writers["band.yaml"] = lambda path: phonon.write_yaml_band_structure(filename=path)
    if phonon.total_dos is not None:
        writers["total_dos.dat"] = phonon.write_total_dos
    if phonon.thermal_properties is not None:
        writers["thermal_properties.yaml"] = phonon.write_yaml_thermal_properties
    paths = []
    for name, write in writers.items():
        paths.append(Path(folder, name))
        write_atomically(paths[-1], write)
    return paths


def load_phonons(path: str | Path) -> Phonopy:
    """Inverse of `save_phonons`, from the folder or its YAML file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no force constants.
    """
    path = Path(path)
    path = path / YAML if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"phonopy file must exist, got {path}")
    phonon = phonopy.load(path, symmetrize_fc=False, is_compact_fc=False, log_level=0)
    if phonon.force_constants is None:
        raise ValueError(f"{path} must hold force constants or forces, got neither")
    return phonon
