"""Structure files and checkpoints that are broken, altered, or of another kind."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import torch
from ase.calculators.calculator import InputError
from safetensors.torch import save

from qdgnn_ase import CheckpointError, load_model, save_model
from qdgnn_bench.building import energy
from qdgnn_bench.faults import Case, Subject

CIF = """data_Cu3Au
_cell_length_a 3.75
_cell_length_b 3.75
_cell_length_c 3.75
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
_chemical_formula_sum 'Cu3 Au1'
loop_
_symmetry_equiv_pos_as_xyz
'x, y, z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Au1 Au 0.0 0.0 0.0 1.0
Cu1 Cu 0.5 0.5 0.0 1.0
Cu2 Cu 0.5 0.0 0.5 1.0
Cu3 Cu 0.0 0.5 0.5 1.0
"""
"""A whole file, which the cases break one way each."""


def file_cases() -> tuple[Case, ...]:
    """All cases that read a structure file or a checkpoint."""
    return (*_cifs(), *_occupancies(), *_checkpoints())


def _cif(name: str, old: str, new: str, message: str, fault: str = "broken CIF") -> Case:
    """Case that reads the CIF with ``old`` replaced and computes what comes out."""
    if old not in CIF:
        raise ValueError(f"old must be in the CIF, got {old!r}")

    def probe(subject: Subject, folder: Path) -> float:
        path = folder / "structure.cif"
        path.write_text(CIF.replace(old, new))
        return energy(subject.read(path), subject)

    return Case(
        name=name,
        fault=fault,
        expected="error",
        probe=probe,
        error=(ValueError, InputError),
        message=message,
    )


def _cifs() -> list[Case]:
    rows = CIF[CIF.index("Au1 Au") :]
    cell = "".join(line for line in CIF.splitlines(True) if line.startswith("_cell"))
    valid, incomplete = "must be a valid CIF", "must hold the atoms of its formula"
    return [
        _cif("cut inside the cell", CIF[60:], "", valid),
        _cif("cut inside an atom", CIF[-12:], "", valid),
        _cif("cut between two atoms", rows[rows.index("Cu2") :], "", incomplete),
        _cif("cut before the atoms", rows, "", valid),
        _cif("empty file", CIF, "", valid),
        _cif("binary file", CIF, "\x00\x01\x7f" * 100, valid),
        _cif("no cell", cell, "", valid),
        _cif("zero volume, gamma = 0", "gamma 90", "gamma 0", valid),
        _cif("zero length", "length_c 3.75", "length_c 0", valid),
        _cif("impossible angles", "alpha 90", "alpha 200", "cell angles between 0 and 180"),
        _cif("NaN length", "length_c 3.75", "length_c nan", "must be finite|valid CIF"),
        _cif("unknown coordinate", "Cu1 Cu 0.5", "Cu1 Cu ?", valid),
        _cif("dummy species", "Cu1 Cu", "X1 X", "must hold elements only"),
        _cif("an atom twice", rows, rows + "Cu4 Cu 0.0 0.5 0.5 1.0\n", valid),
    ]


def _occupancies() -> list[Case]:
    fault = "partial occupancy"
    gold = "Au1 Au 0.0 0.0 0.0 1.0"
    mixed = "Au1 Au 0.0 0.0 0.0 0.5\nAg1 Ag 0.0 0.0 0.0 0.5"
    vacant = gold.replace("0.0 1.0", "0.0 0.5")

    def through_ase(name: str, new: str, repeat: int) -> Case:
        def probe(subject: Subject, folder: Path) -> float:
            path = folder / "structure.cif"
            path.write_text(CIF.replace(gold, new))
            return energy(ase.io.read(path).repeat(repeat), subject)

        message = "every site must be fully occupied"
        return Case(name=name, fault=fault, expected="error", probe=probe, message=message)

    ordered = "must have fully occupied sites"
    return [
        through_ase("mixed site, Atoms of ase.io.read", mixed, 1),
        through_ase("mixed site, supercell of it", mixed, 2),
        through_ase("vacancies, Atoms of ase.io.read", vacant, 1),
        _cif("mixed site, file reader", gold, mixed, ordered, fault),
        _cif("vacancies, file reader", gold, vacant, ordered, fault),
        _cif("occupancy 0, file reader", gold, gold.replace("1.0", "0.0"), "fully|formula", fault),
    ]


def _checkpoints() -> list[Case]:
    cut, altered = "truncated checkpoint", "altered checkpoint"
    pickled, other = "pickle instead of weights", "checkpoint of another kind"
    not_safetensors, changed = "must be a safetensors checkpoint", "it was altered"
    return [
        _checkpoint(pickled, "torch.save of the weights", _torch_save, not_safetensors),
        _checkpoint(pickled, "pickle that runs code", _poison, not_safetensors),
        _checkpoint(cut, "half of the file", lambda raw: raw[: len(raw) // 2], not_safetensors),
        _checkpoint(cut, "last byte missing", lambda raw: raw[:-1], not_safetensors),
        _checkpoint(cut, "empty file", lambda raw: b"", not_safetensors),
        _checkpoint(
            altered, "one bit of a weight", lambda raw: _flip(raw, len(raw) - 101), changed
        ),
        _checkpoint(altered, "one digit of the config", _other_cutoff, changed),
        _checkpoint(altered, "one letter of the training data's name", _other_data, changed),
        _checkpoint(altered, "bytes appended", lambda raw: raw + bytes(8), not_safetensors),
        _checkpoint(other, "safetensors of another program", _plain, "written by qdgnn_ase"),
        _checkpoint(other, "a text file", lambda raw: b"weights\n" * 99, not_safetensors),
    ]


def _checkpoint(fault: str, name: str, change: Callable[[bytes], bytes], message: str) -> Case:
    """Case that loads a changed copy of the subject's checkpoint."""

    def probe(subject: Subject, folder: Path) -> float:
        path = folder / "model.safetensors"
        save_model(path, *_model(subject))
        path.write_bytes(change(path.read_bytes()))
        network, _ = load_model(path)
        return float(network.energy_scale)

    return Case(
        name=name,
        fault=fault,
        expected="error",
        probe=probe,
        error=CheckpointError,
        message=message,
        ours_only=True,
    )


def _model(subject: Subject) -> tuple[Any, dict[str, Any]]:
    network, document = load_model(subject.model or "default")
    return network, document["training"] | {"data": "set-a"}


def _flip(raw: bytes, index: int) -> bytes:
    changed = bytearray(raw)
    changed[index] ^= 1
    return bytes(changed)


def _other_cutoff(raw: bytes) -> bytes:
    return _flip(raw, raw.index(b"cutoff") + len(b'cutoff\\": '))


def _other_data(raw: bytes) -> bytes:
    return _flip(raw, raw.index(b"set-a"))


def _torch_save(_: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer)
    return buffer.getvalue()


class _Poison:
    """Unpickling it ends the process."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (66,)


def _poison(_: bytes) -> bytes:
    return pickle.dumps(_Poison())


def _plain(_: bytes) -> bytes:
    content: bytes = save({"weight": torch.zeros(3)})
    return content
