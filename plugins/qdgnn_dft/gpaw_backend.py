"""Tier T3: plane-wave density-functional theory with GPAW (GPL, the extra ``dft``).

The energies of GPAW are relative to its spherical, unpolarised reference atoms. Gaps are taken over
the mesh and, at fixed density, over the lines of high symmetry of the cell as it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from time import process_time
from typing import IO, Any

import numpy as np
from ase import Atoms
from ase.units import Bohr

from qdgnn_dft.backend import make_record, mechanical_values, require
from qdgnn_dft.bands import Array, around_edges, band_edges, calculator_edges
from qdgnn_dft.density import coarse, hirshfeld_moments
from qdgnn_dft.record import Record
from qdgnn_dft.settings import DFTSettings

REMEDY = "run `make dft`, or pip install 'qdgnn-ase[dft]' with a C++ compiler"
VACUUM = 8.0
"""Å. Least empty space between images along an axis that is not periodic."""
EMPTY_BANDS = 8
"""Bands above the occupied ones."""
EMPTY_BANDS_COUPLED = 30
"""With spin-orbit coupling, which mixes them: with few the gap of CsPbI3 closes."""
LOOSE_BANDS = 6
"""The uppermost of them: they speed convergence up, are not converged and enter no gap."""
EIGENSTATES = 1e-6
"""eV^2 per electron, squared residual of the self-consistent states."""
EIGENSTATES_OF_LINES = 1e-4
"""The same along lines; an eigenvalue's error is about the squared residual over 1 eV."""
_CAREFUL: tuple[dict[str, Any], ...] = (
    {},
    {"mixer": {"beta": 0.03, "nmaxold": 8, "weight": 100.0}},
    {"mixer": {"beta": 0.01, "nmaxold": 8, "weight": 100.0}, "eigensolver": "dav"},
)
"""Parameters of the attempts: the first are GPAW's own, the others mix more carefully."""


@dataclass(frozen=True)
class GPAWBackend:
    """Plane waves, the projector-augmented-wave method, any functional GPAW has built in."""

    chosen: DFTSettings = field(default_factory=DFTSettings)
    name: str = "gpaw"
    n_attempts: int = len(_CAREFUL)

    def settings(self, atoms: Atoms) -> dict[str, Any]:
        """Functional, cutoff, mesh, smearing and starts of this structure."""
        return {"backend": self.name, **self.chosen.resolve(atoms)}

    def compute(self, atoms: Atoms, attempt: int, log_file: Path | None) -> Record:
        """Energy, forces, stress, band edges, Fermi level, charges and moments.

        Raises:
            ValueError: If a value is not finite.
        """
        settings, started = self.settings(atoms), process_time()
        with _opened(log_file) as txt:
            runs = {
                start: _converged(atoms, settings, moments, _CAREFUL[attempt], txt)
                for start, moments in settings["starts"].items()
            }
            start = min(runs, key=lambda name: float(runs[name].get_potential_energy()))
            best = runs[start]
            values = mechanical_values(best)
            values["total_magnetic_moment"] = float(best.calc.get_magnetic_moment())
            if not is_free_atom(atoms):  # whose two spins have Fermi levels of their own
                values |= _electronic(best.calc, settings, txt)
        if not atoms.pbc.all():
            values.pop("stress", None)
        provenance = {
            "version": f"GPAW {require('gpaw', REMEDY).__version__}",
            "attempt": attempt + 1,
            "start": start,
            "energies_of_starts": {n: float(a.get_potential_energy()) for n, a in runs.items()},
            "iterations": int(best.calc.get_number_of_iterations()),
            "cpu_seconds": process_time() - started,
            "date": date.today().isoformat(),
        }
        return make_record(atoms, settings, values, provenance)


def _converged(
    atoms: Atoms,
    settings: dict[str, Any],
    moments: list[float],
    mixing: dict[str, Any],
    txt: IO[str] | None,
) -> Atoms:
    """The structure in its box with a converged GPAW calculator, from one magnetic start."""
    box = in_a_box(atoms)
    box.set_initial_magnetic_moments(moments)
    box.calc = require("gpaw", REMEDY).GPAW(
        mode={"name": "pw", "ecut": settings["cutoff_ev"]},
        xc=settings["functional"],
        kpts={"size": tuple(settings["k_mesh"]), "gamma": True},
        nbands=-(EMPTY_BANDS_COUPLED if "spin_orbit" in settings else EMPTY_BANDS),
        convergence={"bands": -LOOSE_BANDS, "eigenstates": EIGENSTATES},
        txt=txt,
        legacy_gpaw=True,  # Hirshfeld charges and fixed densities are not in the new one
        **_occupations(atoms, settings),
        **mixing,
    )
    box.get_potential_energy()
    return box


def _occupations(atoms: Atoms, settings: dict[str, Any]) -> dict[str, Any]:
    """Hund's rules for a free atom, whose open shell smearing would spread, else Fermi-Dirac."""
    if is_free_atom(atoms):
        occupations = {"name": "fermi-dirac", "width": 0.0, "fixmagmom": True}
        return {"occupations": occupations, "hund": True}
    return {"occupations": {"name": "fermi-dirac", "width": settings["smearing_ev"]}}


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[str] | None]:
    """The log file, or None; further attempts are appended."""
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        yield file


def is_free_atom(atoms: Atoms) -> bool:
    """One atom, not periodic."""
    return len(atoms) == 1 and not atoms.pbc.any()


def in_a_box(atoms: Atoms) -> Atoms:
    """Copy that is periodic in all directions, with vacuum along the axes that were not.

    A cell that leaves vacuum enough is kept.
    """
    box = atoms.copy()
    box.set_constraint()
    room = atoms.cell.lengths() - np.ptp(atoms.positions, axis=0)
    if narrow := [axis for axis in range(3) if not atoms.pbc[axis] and room[axis] < VACUUM]:
        box.center(vacuum=VACUUM / 2, axis=narrow)
    box.pbc = True
    return box


def _electronic(calculator: Any, settings: dict[str, Any], txt: IO[str] | None) -> dict[str, Any]:
    """Band edges, Fermi level, moments and what the density says, of a converged calculator."""
    fermi = float(calculator.get_fermi_level())
    return {
        "fermi_level": fermi,
        **_edges(calculator, settings["path_points"], "spin_orbit" in settings, txt),
        **_density_values(calculator),
        "magnetic_moments": calculator.get_magnetic_moments(),
    }


def _edges(
    calculator: Any, path_points: int, spin_orbit: bool = False, txt: IO[str] | None = None
) -> dict[str, Any]:
    """Edges over the mesh, the lines of high symmetry and, finer, around the edges on them."""
    levels = _spin_orbit_levels if spin_orbit else _levels
    on_mesh, mesh, fermi = levels(calculator)
    edges = band_edges(on_mesh, mesh, fermi)
    if edges["band_gap"] == 0.0 or not path_points:
        return edges
    path = calculator.get_atoms().cell.bandpath(npoints=path_points).kpts
    on_lines, lines, _ = levels(_at_fixed_density(calculator, path, txt))
    finer = around_edges(on_lines, lines, fermi)
    on_finer, finer, _ = levels(_at_fixed_density(calculator, finer, txt))
    parts = (on_mesh, on_lines, on_finer)
    n_bands = min(part.shape[2] for part in parts)
    eigenvalues = np.concatenate([part[..., :n_bands] for part in parts], axis=1)
    return band_edges(eigenvalues, np.concatenate([mesh, lines, finer]), fermi)


def _levels(calculator: Any) -> tuple[Array, Array, float]:
    """Eigenvalues (n_spins, n_k, n_bands) in eV, their k-points, and the Fermi level."""
    return *calculator_edges(calculator, -LOOSE_BANDS), float(calculator.get_fermi_level())


def _spin_orbit_levels(calculator: Any) -> tuple[Array, Array, float]:
    """The same with spin-orbit coupling, added to the scalar-relativistic states (1, n_k, 2 n)."""
    coupled = require("gpaw.spinorbit", REMEDY).soc_eigenstates(calculator, n2=-LOOSE_BANDS)
    points = np.asarray(calculator.get_bz_k_points(), dtype=np.float64)
    return coupled.eigenvalues()[None], points, float(coupled.fermi_level)


def _at_fixed_density(calculator: Any, k_points: Array, txt: IO[str] | None) -> Any:
    """A calculator with the states at any k-points."""
    return calculator.fixed_density(
        kpts=k_points,
        symmetry="off",
        convergence={"bands": -LOOSE_BANDS, "eigenstates": EIGENSTATES_OF_LINES},
        txt=txt,
    )


def _density_values(calculator: Any) -> dict[str, Any]:
    """Hirshfeld moments of the all-electron density and its change from free atoms."""
    atoms = calculator.get_atoms()
    free = require("gpaw.analyse.hirshfeld", REMEDY).HirshfeldDensity(calculator)
    spins = calculator.density.get_all_electron_density(atoms)[0] / Bohr**3
    density, superposed = spins.sum(axis=0), free.get_density()[0] / Bohr**3
    each = (free.get_density([index])[0] / Bohr**3 for index in range(len(atoms)))
    spin_density = spins[0] - spins[1] if len(spins) == 2 else None
    return {
        **hirshfeld_moments(atoms, density, superposed, each, spin_density),
        "density_difference": coarse(density - superposed),
    }
