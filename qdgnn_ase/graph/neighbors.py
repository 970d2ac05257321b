"""ASE Atoms -> AtomGraph: checks once, wraps, and lists every image within the cutoff.

The neighbour search is ``pymatgen.optimization.neighbors.find_points_in_spheres`` (linear in the
number of atoms); its edges are tested against ASE's neighbour list. Its memory grows with the space
between the atoms, so structures that are mostly empty go through a k-d tree instead.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from pymatgen.optimization.neighbors import find_points_in_spheres
from scipy.spatial import cKDTree

from qdgnn_ase.graph.atom_graph import AtomGraph

MIN_DISTANCE = 0.3
"""Å. Closer pairs are an error: no reference data exists there and the energy would be noise."""

_MIN_VOLUME_PER_ATOM = MIN_DISTANCE**3 / np.sqrt(2.0)
"""Å^3. Closest packing at MIN_DISTANCE; a denser crystal must hold a pair that is too close."""

_MAX_COORDINATE = 1e9
"""Å. Further out float64 itself resolves positions to no better than 1e-7 Å."""

_MAX_ROUNDING = 1e-3
"""Å. A structure so large that its dtype resolves positions no better is an error."""

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Pairs = tuple[Integers, Integers, Array, Array]
"""Destination, source, image (n_pairs, 3) and distance in Å, sorted by destination; each atom is a
pair with itself."""
Excluded = Callable[[Integers, Integers, Array], NDArray[np.bool_]]
"""Destination, source and distance of pairs -> whether they are no edges."""


def from_atoms(atoms: Atoms, cutoff: float, dtype: torch.dtype = torch.float32) -> AtomGraph:
    """Graph of all pairs within ``cutoff`` (Å), images included.

    Positions are wrapped along periodic axes and centred along the others, in float64, before they
    are cast to ``dtype``: a structure far from the origin loses no precision.

    Args:
        atoms: Structure; any mix of periodic axes, any cell rank that spans the periodic axes.
        cutoff: Radius in Å, larger than 0.
        dtype: Floating-point type of the graph.

    Raises:
        ValueError: If the structure is empty, not finite, has a singular cell, partial occupancy,
            an unknown element, a pair closer than ``MIN_DISTANCE``, or is too large for ``dtype``.
    """
    _check_occupancy(atoms)
    return periodic_graph(atoms, cutoff, dtype)


def periodic_graph(
    atoms: Atoms, cutoff: float, dtype: torch.dtype, excluded: Excluded | None = None
) -> AtomGraph:
    """`from_atoms` whatever the occupancies, and without the pairs that are ``excluded``."""
    if not 0 < cutoff < np.inf:
        raise ValueError(f"cutoff must be finite and larger than 0 Å, got {cutoff}")
    _check(atoms)
    lattice = _lattice(atoms)
    positions = _wrap(np.asarray(atoms.positions, dtype=np.float64), lattice, atoms.pbc)
    destination, source, shift, distance = _pairs(positions, lattice, atoms.pbc, float(cutoff))
    other = ((destination != source) | (shift != 0).any(axis=1)) & (distance < cutoff)
    if excluded is not None:
        other &= ~excluded(destination, source, distance)
    _check_distances(distance[other], destination[other], source[other])
    if other.any():
        _check_rounding(positions, lattice[atoms.pbc], dtype)
    return AtomGraph(
        numbers=torch.as_tensor(np.array(atoms.numbers, dtype=np.int64)),
        positions=torch.as_tensor(positions, dtype=dtype),
        cell=torch.as_tensor(np.array(atoms.cell.array), dtype=dtype)[None],
        edge_index=torch.as_tensor(np.stack([source[other], destination[other]])),
        edge_shift=torch.as_tensor(shift[other], dtype=dtype),
        batch=torch.zeros(len(atoms), dtype=torch.long),
        pbc=torch.as_tensor(np.array(atoms.pbc, dtype=bool))[None],
        n_atoms=torch.tensor([len(atoms)]),
    )


def _check(atoms: Atoms) -> None:
    if len(atoms) == 0:
        raise ValueError("structure must hold at least one atom, got an empty Atoms object")
    if not np.isfinite(atoms.positions).all():
        bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
        raise ValueError(f"positions must be finite, got NaN or inf for atoms {bad[:10].tolist()}")
    if not np.isfinite(atoms.cell.array).all():
        raise ValueError(f"cell must be finite, got {atoms.cell.array.tolist()}")
    largest = max(abs(atoms.positions).max(), abs(atoms.cell.array).max())
    if largest > _MAX_COORDINATE:
        raise ValueError(
            f"positions and cell must lie within {_MAX_COORDINATE:g} Å of the origin, got "
            f"{largest:g} Å; float64 cannot resolve distances there"
        )
    if atoms.numbers.min() < 1 or atoms.numbers.max() > 118:
        bad_z = sorted({int(z) for z in atoms.numbers if not 1 <= z <= 118})
        raise ValueError(
            f"atomic numbers must lie in 1..118, got {bad_z}; replace dummy atoms ('X') by elements"
        )


def _check_occupancy(atoms: Atoms) -> None:
    """Refuse what ``ase.io.read`` keeps of a disordered CIF: one species of each mixed site."""
    occupancy = atoms.info.get("occupancy")
    if not isinstance(occupancy, dict):
        return  # not ASE's record of a CIF
    for kind, site in occupancy.items():
        if not isinstance(site, dict):
            continue
        if len(site) > 1 or any(not np.isclose(value, 1.0) for value in site.values()):
            raise ValueError(
                f"every site must be fully occupied by one element, got occupancy {site} on site "
                f"kind {kind}; make an ordered structure first (for example with pymatgen's "
                "OrderDisorderedStructureTransformation)"
            )


def _lattice(atoms: Atoms) -> Array:
    """Cell for the search: vectors of non-periodic axes are replaced by normals, (3, 3), Å."""
    lengths = atoms.cell.lengths()
    for axis in range(3):
        if atoms.pbc[axis] and lengths[axis] < MIN_DISTANCE:
            raise ValueError(
                f"cell vector {axis} must be longer than {MIN_DISTANCE} Å along a periodic axis, "
                f"got {lengths[axis]:g} Å; set atoms.cell or atoms.pbc[{axis}] = False"
            )
    lattice = _complete(np.array(atoms.cell.array, dtype=np.float64), np.asarray(atoms.pbc))
    volume = abs(np.linalg.det(lattice))
    product = float(np.prod(np.linalg.norm(lattice, axis=1)))
    dense = atoms.pbc.all() and volume < len(atoms) * _MIN_VOLUME_PER_ATOM
    if volume < 1e-6 * product or dense:
        raise ValueError(
            f"cell must not be singular or denser than one atom per {_MIN_VOLUME_PER_ATOM:.3f} Å^3,"
            f" got volume {volume:g} Å^3 for {len(atoms)} atoms: {atoms.cell.array.tolist()}"
        )
    return lattice


def _complete(cell: Array, pbc: NDArray[np.bool_]) -> Array:
    """Fill the rows of non-periodic axes with unit vectors normal to the periodic ones."""
    if pbc.all():
        return cell
    _, _, basis = np.linalg.svd(np.where(pbc[:, None], cell, 0.0))
    lattice = cell.copy()
    lattice[~pbc] = basis[int(pbc.sum()) :]
    return lattice


def _wrap(positions: Array, lattice: Array, pbc: NDArray[np.bool_]) -> Array:
    """Positions in the cell along periodic axes and centred along the others, (n_atoms, 3)."""
    fractional = np.linalg.solve(lattice.T, positions.T).T
    origin = np.where(pbc, np.floor(fractional), fractional.mean(axis=0))
    return np.ascontiguousarray(positions - origin @ lattice)


def _pairs(positions: Array, lattice: Array, pbc: NDArray[np.bool_], cutoff: float) -> Pairs:
    """All pairs within ``cutoff``."""
    grid_cells = np.prod(np.ptp(positions, axis=0) / cutoff + 2.0)
    if grid_cells > 1_000 + 8 * len(positions):
        return _sparse_pairs(positions, lattice, pbc, cutoff)
    periodic = np.ascontiguousarray(pbc, dtype=np.int64)
    pairs: Pairs = find_points_in_spheres(
        positions, positions, r=cutoff, pbc=periodic, lattice=lattice, tol=1e-8
    )
    return pairs


def _sparse_pairs(positions: Array, lattice: Array, pbc: NDArray[np.bool_], cutoff: float) -> Pairs:
    """The same without a grid over the empty space; slower in dense matter."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    reach = np.where(pbc, np.ceil(cutoff / heights), 0).astype(int)
    images = np.array(list(product(*(range(-n, n + 1) for n in reach))), dtype=np.float64)
    points = (positions + (images @ lattice)[:, None]).reshape(-1, 3)
    centres, tree = cKDTree(positions), cKDTree(points)
    found = centres.sparse_distance_matrix(tree, cutoff, output_type="ndarray")
    found = found[np.argsort(found["i"], kind="stable")]
    image, source = np.divmod(found["j"], len(positions))
    return found["i"], source, images[image], found["v"]


def _check_rounding(positions: Array, vectors: Array, dtype: torch.dtype) -> None:
    """Refuse edges between coordinates that ``dtype`` cannot tell apart."""
    size = max(float(abs(positions).max()), float(abs(vectors).max(initial=0.0)))
    eps = torch.finfo(dtype).eps
    if size * eps > _MAX_ROUNDING:
        raise ValueError(
            f"coordinates must stay below {_MAX_ROUNDING / eps:.3g} Å in {dtype}, got {size:.3g} Å "
            "after centring; use dtype='float64', or compute the distant parts one by one"
        )


def _check_distances(distance: Array, destination: Integers, source: Integers) -> None:
    if len(distance) and distance.min() < MIN_DISTANCE:
        worst = int(distance.argmin())
        raise ValueError(
            f"atoms must be at least {MIN_DISTANCE} Å apart, got {distance[worst]:.3g} Å between "
            f"atoms {destination[worst]} and {source[worst]}; look for duplicate sites"
        )
