"""Sites that several elements share, and compositions of which no structure is known.

Both travel as ``ase.Atoms`` in the form in which ASE keeps the occupancies of a CIF:
``atoms.arrays["spacegroup_kinds"]`` is the kind of each site, ``atoms.info["occupancy"]`` the share
of each element on the sites of a kind, ``{"0": {"Li": 0.5, "Na": 0.4}}``; what is missing to 1 is
vacant. A composition has an atom for each element, its atomic fraction as occupancy, no cell, and
NaN for positions, which are unknown.

Their graphs hold ``occupancies``: a site is one node, not one of its elements. Two sites that are
closer than atoms can be and that are full at most once between them are alternatives (split sites):
no edge joins them. The graph of a composition has no edges.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from qdgnn_ase.graph.atom_graph import N_COLUMNS, AtomGraph
from qdgnn_ase.graph.neighbors import Integers, periodic_graph

Array = NDArray[np.float64]
Basis = Literal["structure", "disordered", "composition"]
"""What is known: an ordered structure, one with shared sites, or the composition alone."""

TOO_CLOSE = 0.8
"""Sum of covalent radii below which two partly filled sites are alternatives. Between 0.8 and 0.9
there is a gap in the pairs of measured disordered crystals."""
_TOLERANCE = 0.1
"""Excess over 1 of the occupancies of alternatives, which are refined one by one."""
_ROUNDING = 1e-3
"""Excess over 1 of the occupancies of a site, which are given with few digits."""


def basis(atoms: Atoms) -> Basis:
    """What the predictions of a model for ``atoms`` rest on.

    Raises:
        ValueError: If ``atoms`` has shared sites but no valid record of them.
    """
    if not isinstance(atoms.info.get("occupancy"), dict):
        return "structure"
    if len(atoms) and np.isnan(atoms.positions).all() and not atoms.cell.any():
        return "composition"
    return "structure" if site_occupancies(atoms) is None else "disordered"


def site_occupancies(atoms: Atoms) -> Array | None:
    """(n_atoms, 119) share of each element on each site; None where every site is one element.

    Raises:
        ValueError: If a share is no number from 0 to 1, a site is empty or overfull, or the record
            does not fit the atoms.
    """
    record = atoms.info.get("occupancy")
    if not isinstance(record, dict):
        return None
    shares = {str(kind): _shares(kind, site) for kind, site in record.items() if _is_site(site)}
    if all(row.max() > 1 - 1e-8 for row in shares.values()):
        return None
    if "spacegroup_kinds" not in atoms.arrays:
        raise ValueError(
            "atoms with partial occupancies must have an array spacegroup_kinds that tells the "
            f"kind of each site, got arrays {sorted(atoms.arrays)}; read the CIF again"
        )
    kinds = [str(kind) for kind in atoms.arrays["spacegroup_kinds"]]
    rows = np.zeros((len(atoms), N_COLUMNS))
    for row, kind, number in zip(rows, kinds, atoms.numbers, strict=True):
        row[number] = 1.0
        if kind in shares and shares[kind].max() <= 1 - 1e-8:
            row[:] = shares[kind]
        if row[number] == 0:
            raise ValueError(
                f"occupancy of site kind {kind} must hold its element, got {record[kind]} for "
                f"atomic number {number}; the structure was changed after it was read"
            )
    return rows


def _is_site(site: Any) -> bool:
    return isinstance(site, dict) and bool(site)


def _shares(kind: Any, site: dict[str, float]) -> Array:
    row = np.zeros(N_COLUMNS)
    for symbol, share in site.items():
        if symbol not in atomic_numbers or not 0 <= share <= 1 + _ROUNDING:
            raise ValueError(
                f"occupancy of site kind {kind} must give elements shares from 0 to 1, got {site}"
            )
        row[atomic_numbers[symbol]] += share
    if not 0 < row.sum() <= 1 + _ROUNDING:
        raise ValueError(
            f"occupancy of site kind {kind} must add up to more than 0 and at most 1, got {site}"
        )
    shares: Array = row / max(row.sum(), 1.0)
    return shares


def amounts(atoms: Atoms) -> Array:
    """(119,) number of atoms of each element, counted by occupancy; column = atomic number."""
    rows = site_occupancies(atoms)
    if rows is None:
        return np.bincount(atoms.numbers, minlength=N_COLUMNS).astype(np.float64)
    total: Array = rows.sum(axis=0)
    return total


def site_graph(atoms: Atoms, cutoff: float, dtype: torch.dtype = torch.float32) -> AtomGraph:
    """Graph of a structure, a disordered structure or a composition, for property models.

    An ordered structure has the graph of `from_atoms`.

    Args:
        atoms: In the forms that this module describes.
        cutoff: Radius in Å, larger than 0.
        dtype: Floating-point type of the graph.

    Raises:
        ValueError: As `from_atoms`, but for partial occupancy; or if the record of occupancies does
            not fit the atoms.
    """
    kind = basis(atoms)
    if kind == "structure":
        return periodic_graph(atoms, cutoff, dtype)
    if kind == "composition":
        return _composition_graph(amounts(atoms), dtype)
    occupancies = site_occupancies(atoms)
    if occupancies is None:
        raise ValueError("a disordered structure must have a site with partial occupancy")
    weight = occupancies.sum(axis=1)
    radius = occupancies @ _radii() / weight

    def alternatives(i: Integers, j: Integers, distance: Array) -> NDArray[np.bool_]:
        close = distance < TOO_CLOSE * (radius[i] + radius[j])
        never_both: NDArray[np.bool_] = close & (weight[i] + weight[j] <= 1 + _TOLERANCE)
        return never_both

    graph = periodic_graph(atoms, cutoff, dtype, alternatives)
    return replace(graph, occupancies=torch.as_tensor(occupancies, dtype=dtype))


def _radii() -> Array:
    """Covalent radii in Å, (119,)."""
    radii: Array = np.asarray(covalent_radii[:N_COLUMNS], dtype=np.float64)
    return radii


def _composition_graph(counts: Array, dtype: torch.dtype) -> AtomGraph:
    numbers = np.flatnonzero(counts)
    n = len(numbers)
    occupancies = np.zeros((n, N_COLUMNS))
    occupancies[np.arange(n), numbers] = counts[numbers] / counts.sum()
    return AtomGraph(
        numbers=torch.as_tensor(numbers),
        positions=torch.zeros(n, 3, dtype=dtype),
        cell=torch.zeros(1, 3, 3, dtype=dtype),
        edge_index=torch.zeros(2, 0, dtype=torch.long),
        edge_shift=torch.zeros(0, 3, dtype=dtype),
        batch=torch.zeros(n, dtype=torch.long),
        pbc=torch.zeros(1, 3, dtype=torch.bool),
        n_atoms=torch.tensor([n]),
        occupancies=torch.as_tensor(occupancies, dtype=dtype),
    )
