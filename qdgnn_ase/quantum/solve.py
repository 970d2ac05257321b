"""Tight binding of a structure, for users: tier T1 in its full form, see `bands.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache

import torch
from ase import Atoms
from torch import Tensor

from qdgnn_ase.graph import AtomGraph, from_atoms
from qdgnn_ase.quantum.bands import CUTOFF, TEMPERATURE, ElectronicStructure, TightBindingBands
from qdgnn_ase.quantum.kpoints import Mesh, checked_mesh

_REMEMBERED = 256
"""Structures."""


def tight_binding(
    atoms: Atoms, *, mesh: Sequence[int] | None = None, temperature: float = TEMPERATURE
) -> ElectronicStructure:
    """Charges, bonds, Fermi level and gaps of a structure from a tight-binding Hamiltonian.

    Nothing in it was fitted to gaps or charges: they are good for trends, as descriptors and as
    cheap labels, not as predictions. Time grows as n_atoms^3, memory as n_atoms^2. The last results
    are remembered.

    Args:
        atoms: Structure; any mix of periodic axes.
        mesh: k-points along each axis; by default as many as 10 Å need, an even number or Gamma.
        temperature: k_B T of the Fermi function in eV.

    Raises:
        ValueError: If the structure is empty, not finite, has a singular cell, partial occupancy,
            overlapping atoms or an element beyond Z = 94, or an argument is not positive.
    """
    points = None if mesh is None else checked_mesh(mesh)
    graph = from_atoms(atoms, CUTOFF, torch.float64)
    content = b"".join(value.numpy().tobytes() for value in graph.tensors().values())
    digest = hashlib.sha256(content).digest()
    result = _remembered(_Request(digest, points, temperature, graph))
    values = {f.name: getattr(result, f.name) for f in fields(result)}
    copies = {name: x.clone() for name, x in values.items() if isinstance(x, Tensor)}
    return replace(result, **copies, graph=graph)


@dataclass(frozen=True)
class _Request:
    digest: bytes
    mesh: Mesh | None
    temperature: float
    graph: AtomGraph = field(compare=False)


@lru_cache(maxsize=_REMEMBERED)
def _remembered(request: _Request) -> ElectronicStructure:
    model = _model(request.temperature)
    with torch.no_grad():
        meshes = None if request.mesh is None else [request.mesh]
        result: ElectronicStructure = model(request.graph, meshes)
    return result


@lru_cache(maxsize=8)
def _model(temperature: float) -> TightBindingBands:
    return TightBindingBands(temperature=temperature)
