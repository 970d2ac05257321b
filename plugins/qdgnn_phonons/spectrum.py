"""Phonon bands along high-symmetry paths, and the density of states."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from phonopy import Phonopy
from phonopy.phonon.band_structure import BandStructure, get_band_qpoints
from scipy.signal import find_peaks

from qdgnn_phonons.crystal import from_phonopy
from qdgnn_phonons.stability import check_force_constants

Array = NDArray[np.float64]
MESH = 60.0
"""Default density of the wave-vector mesh: phonopy's length, about 60 Å over the cell's edge."""


@dataclass(frozen=True, slots=True, eq=False)
class DensityOfStates:
    """Density of states of a primitive cell."""

    frequencies: Array
    """(n,) THz."""
    density: Array
    """(n,) states per THz; the integral is three times the atoms of the primitive cell."""


def band_structure(phonon: Phonopy, path: str = "seekpath", n_points: int = 51) -> BandStructure:
    """Bands along a path; kept in ``phonon.band_structure`` too.

    phonopy's own `auto_band_structure` takes seekpath's wave vectors for those of any primitive
    cell; here they are converted to the cell at hand.

    Args:
        phonon: Phonopy object with force constants.
        path: "seekpath", "ase", or special points of ASE such as "GXWKGL" (a comma is a jump).
        n_points: Wave vectors of the longest segment.

    Raises:
        ValueError: If the path is unknown to ASE or there are no force constants.
    """
    check_force_constants(phonon)
    segments = _seekpath(phonon) if path == "seekpath" else _ase_path(phonon, path)
    inverse = np.linalg.inv(phonon.primitive.cell)
    lengths = [float(np.linalg.norm(inverse @ (end - start))) for _, start, _, end in segments]
    labels = [(first, second) for first, _, second, _ in segments]
    connected = [a[1] == b[0] for a, b in pairwise(labels)] + [False]
    bands = [
        get_band_qpoints([[start, end]], max(2, round(n_points * length / max(lengths))))[0]
        for (_, start, _, end), length in zip(segments, lengths, strict=True)
    ]
    names: list[str] = []
    for pair, goes_on in zip(labels, connected, strict=True):
        names += pair[:1] if goes_on else pair
    return phonon.run_band_structure(bands, path_connections=connected, labels=names)


Segment = tuple[str, Array, str, Array]


def _seekpath(phonon: Phonopy) -> list[Segment]:
    import seekpath

    cell = phonon.primitive
    found = seekpath.get_path_orig_cell((cell.cell, cell.scaled_positions, cell.numbers))
    points = {name: np.array(point) for name, point in found["point_coords"].items()}
    return [(_pretty(a), points[a], _pretty(b), points[b]) for a, b in found["path"]]


def _ase_path(phonon: Phonopy, path: str) -> list[Segment]:
    cell = from_phonopy(phonon.primitive).cell
    try:
        band_path = cell.bandpath(None if path == "ase" else path, npoints=0)
    except (KeyError, ValueError) as error:
        known = ", ".join(cell.bandpath(npoints=0).special_points)
        raise ValueError(
            f"path must be 'seekpath', 'ase' or special points out of {known}, got {path!r}"
        ) from error
    points = band_path.special_points
    pieces = band_path.cell.get_bravais_lattice().special_path if path == "ase" else path
    segments: list[Segment] = []
    for piece in pieces.split(","):
        names = _names(piece, set(points))
        segments += [(_pretty(a), points[a], _pretty(b), points[b]) for a, b in pairwise(names)]
    return segments


def _names(path: str, known: set[str]) -> list[str]:
    """Split "GXW1K" into special points, whose names may end in digits."""
    names: list[str] = []
    for character in path:
        if names and names[-1] + character in known and not character.isalpha():
            names[-1] += character
        else:
            names.append(character)
    return names


def _pretty(name: str) -> str:
    return "Γ" if name in ("G", "GAMMA") else name.replace("_", "")


def density_of_states(phonon: Phonopy, mesh: float = MESH) -> DensityOfStates:
    """Density of states by the tetrahedron method; kept in ``phonon.total_dos`` too."""
    check_force_constants(phonon)
    phonon.run_mesh(mesh)
    frequencies = phonon.mesh.frequencies
    low, high = float(min(0.0, frequencies.min())), float(frequencies.max())
    margin = 0.02 * (high - low)
    pitch = (high - low) / 400
    result = phonon.run_total_dos(freq_min=low, freq_max=high + margin, freq_pitch=pitch)
    return DensityOfStates(np.asarray(result.frequency_points), np.asarray(result.dos))


def last_peak(dos: DensityOfStates, smearing: float = 0.1) -> float:
    """Frequency of the highest peak on the frequency axis in THz.

    Args:
        dos: Density of states.
        smearing: THz. Standard deviation of the Gaussian that smooths van Hove singularities, each
            of which would be a peak of its own.

    Raises:
        ValueError: If there is no peak.
    """
    pitch = dos.frequencies[1] - dos.frequencies[0]
    half = int(np.ceil(4 * smearing / pitch))
    kernel = np.exp(-0.5 * (pitch * np.arange(-half, half + 1) / smearing) ** 2)
    smooth = np.convolve(np.pad(dos.density, half), kernel / kernel.sum(), mode="same")
    peaks, _ = find_peaks(smooth, prominence=0.02 * smooth.max())
    if not len(peaks):
        raise ValueError("density of states must have a peak, got none")
    return float(dos.frequencies[0] + pitch * (peaks[-1] - half))
