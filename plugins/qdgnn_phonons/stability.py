"""Imaginary modes and temperatures: what must be looked at before a number is believed.

phonopy leaves imaginary modes out of thermal properties and samples them as |omega|, both without
a word, drops negative temperatures, and answers NaN with NaN or 0. Here all of these are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from phonopy import Phonopy
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points_in_integers

Array = NDArray[np.float64]
Policy = Literal["refuse", "drop", "absolute"]
"""Modes that are imaginary or too soft: an error; at rest; or as |omega|, at least SOFT."""
SOFT = 0.05
"""THz. Frequencies below it are imaginary or as good as: their amplitudes would be no crystal's."""


class ImaginaryModesError(ValueError):
    """The crystal is no minimum of the energy: it has modes without a restoring force."""


@dataclass(frozen=True, slots=True)
class Stability:
    """Report on the frequencies at the wave vectors that the supercell holds."""

    lowest: float
    """THz, imaginary ones negative; the three translations at Gamma are left out."""
    wave_vector: tuple[float, float, float]
    """Of the lowest mode, in reduced coordinates of the primitive cell."""
    n_imaginary: int
    """Modes below -SOFT."""
    n_soft: int
    """Modes between -SOFT and SOFT."""
    n_modes: int
    """All of them."""

    @property
    def is_stable(self) -> bool:
        """True if every mode has a restoring force."""
        return self.n_imaginary + self.n_soft == 0

    def __str__(self) -> str:
        q = ", ".join(f"{x:.3f}" for x in self.wave_vector)
        return (
            f"{self.n_imaginary} imaginary and {self.n_soft} too soft of {self.n_modes} modes; "
            f"lowest {self.lowest:.3f} THz at q = ({q})"
        )


def check_temperatures(temperatures: Sequence[float] | Array, *, lowest: float = 0.0) -> Array:
    """Temperatures in K as an array.

    Raises:
        ValueError: If there is none, or one is not a finite number from ``lowest`` up.
    """
    values = np.atleast_1d(np.asarray(temperatures, dtype=np.float64))
    if values.ndim != 1 or not values.size:
        raise ValueError(f"temperatures must be at least one number, got {temperatures!r}")
    if not (np.isfinite(values) & (values >= lowest)).all():
        raise ValueError(f"temperatures must be finite and >= {lowest:g} K, got {values.tolist()}")
    return values


def stability_of(phonon: Phonopy) -> Stability:
    """Which modes have no restoring force."""
    points = commensurate_points(phonon)
    frequencies = frequencies_at(phonon, points).copy()
    kept = np.ones(frequencies.shape, dtype=bool)
    kept[~points.any(axis=1)] = ~translations(frequencies[~points.any(axis=1)])
    row, band = np.unravel_index(np.where(kept, frequencies, np.inf).argmin(), kept.shape)
    values = frequencies[kept]
    if not values.size:  # one atom in the supercell: translations only
        raise ValueError("supercell must hold at least two atoms, got one; enlarge it")
    x, y, z = points[row]
    return Stability(
        lowest=float(frequencies[row, band]),
        wave_vector=(float(x), float(y), float(z)),
        n_imaginary=int((values < -SOFT).sum()),
        n_soft=int((np.abs(values) <= SOFT).sum()),
        n_modes=values.size,
    )


def check_stable(phonon: Phonopy) -> None:
    """Refuse a crystal with modes that have no restoring force.

    Raises:
        ImaginaryModesError: Says how many and where.
    """
    report = stability_of(phonon)
    if not report.is_stable:
        raise refusal(report)


def refusal(report: Stability) -> ImaginaryModesError:
    """The error for such a crystal."""
    return ImaginaryModesError(
        f"all modes must have a frequency above {SOFT} THz, got {report}; relax the crystal "
        "without symmetry or in a larger cell, or choose a policy other than 'refuse'"
    )


def commensurate_points(phonon: Phonopy) -> Array:
    """Wave vectors (n, 3) that fit into the supercell, in reduced coordinates of the primitive."""
    multiples = phonon.supercell.cell @ np.linalg.inv(phonon.primitive.cell)
    points = get_commensurate_points_in_integers(np.rint(multiples.T).astype(int))
    return np.asarray(points / len(points), dtype=np.float64)


def frequencies_at(phonon: Phonopy, points: Array) -> Array:
    """Frequencies (n, n_bands) in THz, imaginary ones negative.

    Raises:
        ValueError: If there are no force constants (`generate_displacements` deletes them).
    """
    check_force_constants(phonon)
    return np.asarray(phonon.run_qpoints(points).frequencies, dtype=np.float64)


def check_force_constants(phonon: Phonopy) -> None:
    """Refuse an object without finite force constants.

    Raises:
        ValueError: With the remedy.
    """
    if phonon.force_constants is None:
        raise ValueError(
            "phonopy object must have force constants, got none; they are computed by "
            "harmonic_phonons and deleted by Phonopy.generate_displacements"
        )
    if not np.isfinite(phonon.force_constants).all():
        raise ValueError("force constants must be finite, got NaN or infinity")


def translations(frequencies: Array) -> NDArray[np.bool_]:
    """Mask (n, n_bands) of the three translations among the frequencies (n, n_bands) at Gamma.

    Raises:
        ValueError: If they are not near zero: the acoustic sum rule is broken.
    """
    order = np.argsort(np.abs(frequencies), axis=1)[:, :3]
    mask = np.zeros(frequencies.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=1)
    if (worst := np.abs(frequencies[mask]).max(initial=0.0)) > SOFT:
        raise ValueError(
            f"translations must have zero frequency, got {worst:.3f} THz; call "
            "phonon.symmetrize_force_constants()"
        )
    return mask
