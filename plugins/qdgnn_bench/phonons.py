"""Phonon frequencies from the very supercells that DFT forces are known for.

Force constants are fitted (phonopy with symfc) to the DFT forces and to each potential's forces on
the same displaced supercells, so that displacements, lattice and fit are common to all. Compared
are the frequencies at the commensurate wave vectors, where they owe nothing to interpolation, band
by band and without the non-analytic correction (no Born charges), in THz, imaginary ones negative.

The undisplaced cell is inferred: mean positions of the frames, symmetrised by spglib. Forces that
a potential has there are subtracted; DFT's are zero but for its convergence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.geometry import find_mic
from ase.spacegroup.symmetrize import refine_symmetry
from matplotlib.axes import Axes
from numpy.typing import NDArray

from qdgnn_ase import read_structures, reduced_formula

if TYPE_CHECKING:
    from phonopy import Phonopy

Row = dict[str, Any]
Array = NDArray[np.float64]
FILES = ("finite_displacement_small.extxyz.gz", "AlN_rd_energies.extxyz.gz")
ASKED = ("NaCl", "MgO", "AlN")
"""Named in the goals; the other crystals of the files stand below them."""
CAVEAT = (
    "The DFT forces are PBEsol where their source names the functional, at PBEsol lattice "
    "constants; the potentials were trained on PBE, whose lattice is about 1 % wider. Part of "
    "every error is that difference."
)
SYMPREC = 0.05
"""Å. The mean of two frames, one atom of each displaced by 0.01 Å, is within a tenth of it."""
TRANSLATION = 0.01
"""THz. Modes below it in DFT are the translations, which are exact for everybody: left out."""

DFT = "DFT"
"""Name of the force constants that the others are compared with."""


def read_sets(folder: str | Path) -> dict[str, list[Atoms]]:
    """Displaced supercells with DFT forces by formula, those of ``ASKED`` first.

    Raises:
        FileNotFoundError: If one of ``FILES`` is missing.
        ValueError: If they lack one of ``ASKED``.
    """
    groups: dict[str, list[Atoms]] = {name: [] for name in ASKED}
    for file in FILES:
        for atoms in read_structures(Path(folder, file)):
            groups.setdefault(reduced_formula(atoms), []).append(atoms)
    if missing := [name for name in ASKED if not groups[name]]:
        raise ValueError(f"{FILES} in {folder} must hold {', '.join(ASKED)}, missing: {missing}")
    return groups


def undisplaced(frames: Sequence[Atoms]) -> Atoms:
    """Symmetric supercell about which the frames are displaced."""
    first = frames[0]
    ideal = Atoms(first.numbers, first.positions, cell=first.cell, pbc=True)
    ideal.positions += np.mean([_displacement(atoms, ideal) for atoms in frames], axis=0)
    _symmetrise(ideal)
    moves = np.array([_displacement(atoms, ideal) for atoms in frames])
    sizes = np.linalg.norm(moves, axis=2)
    if np.median(sizes) < 0.1 * sizes.max():  # few atoms move: the others are where they belong
        ideal.positions += moves[sizes.argmin(axis=0), np.arange(len(ideal))]
    return ideal


def _displacement(atoms: Atoms, ideal: Atoms) -> Array:
    return np.asarray(find_mic(atoms.positions - ideal.positions, ideal.cell)[0], dtype=np.float64)


def _symmetrise(atoms: Atoms) -> None:
    """Positions made symmetric in place; cell, order and place of the crystal are kept."""
    refined = atoms.copy()
    refine_symmetry(refined, SYMPREC)
    refined.set_cell(atoms.cell, scale_atoms=True)
    moves = _displacement(refined, atoms)
    atoms.positions += moves - np.median(moves, axis=0)  # spglib may put the origin on one atom


def frequencies(phonon: Phonopy) -> Array:
    """Frequencies at the commensurate wave vectors, (n_q, n_bands) in THz."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    multiples = np.rint(np.linalg.inv(phonon.primitive_matrix)).astype(int)
    phonon.run_qpoints(get_commensurate_points(multiples))
    return np.asarray(phonon.qpoints.frequencies, dtype=np.float64)


def fitted(ideal: Atoms, displacements: Array, forces: Array) -> Phonopy:
    """Phonopy object of the primitive cell with force constants by symfc.

    Args:
        ideal: Undisplaced supercell.
        displacements: (n_frames, n_atoms, 3) Å.
        forces: (n_frames, n_atoms, 3) eV/Å.
    """
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms
    from phonopy.structure.cells import guess_primitive_matrix

    cell = PhonopyAtoms(
        symbols=ideal.get_chemical_symbols(),
        cell=ideal.cell.array,
        scaled_positions=ideal.get_scaled_positions(),
    )
    primitive = guess_primitive_matrix(cell, symprec=1e-3)
    phonon = Phonopy(cell, np.eye(3, dtype=int), primitive_matrix=primitive, symprec=1e-3)
    phonon.dataset = {"displacements": displacements, "forces": forces}
    phonon.produce_force_constants(fc_calculator="symfc")
    return phonon


def refitted(frames: Sequence[Atoms], calculators: dict[str, Calculator]) -> dict[str, Phonopy]:
    """`fitted` to DFT's forces, under `DFT`, and to each calculator's on the same supercells."""
    ideal = undisplaced(frames)
    displacements = np.array([_displacement(atoms, ideal) for atoms in frames])
    dft = np.array([atoms.get_forces() for atoms in frames])
    phonons = {DFT: fitted(ideal, displacements, dft)}
    for name, calculator in calculators.items():
        forces = np.array([_forces(atoms, calculator) for atoms in [ideal, *frames]])
        phonons[name] = fitted(ideal, displacements, forces[1:] - forces[0])
    return phonons


def compare(frames: Sequence[Atoms], calculators: dict[str, Calculator]) -> dict[str, Row]:
    """Errors of each calculator's frequencies on one crystal.

    Returns:
        By name: mean absolute error and mean error in THz, scale (least-squares factor from DFT to
        the potential: below 1 is too soft), both frequency lists.
    """
    found = {name: frequencies(phonon) for name, phonon in refitted(frames, calculators).items()}
    wanted = found.pop(DFT)
    kept = np.abs(wanted) > TRANSLATION
    rows = {}
    for name, got in found.items():
        error = (got - wanted)[kept]
        rows[name] = {
            "formula": reduced_formula(frames[0]),
            "n_atoms": len(frames[0]),
            "frames": len(frames),
            "wave_vectors": len(wanted),
            "mae": float(np.abs(error).mean()),
            "mean_error": float(error.mean()),
            "scale": float((got * wanted)[kept].sum() / (wanted[kept] ** 2).sum()),
            "dft": wanted[kept].tolist(),
            "potential": got[kept].tolist(),
        }
    return rows


def _forces(atoms: Atoms, calculator: Calculator) -> Array:
    copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    copy.calc = calculator
    return np.asarray(copy.get_forces(), dtype=np.float64)


def summarise(rows: Sequence[Row]) -> Row:
    """Mean over crystals of the mean absolute error in THz: those asked for, and all."""
    asked = [row["mae"] for row in rows if row["formula"] in ASKED]
    return {
        "mae_asked": float(np.mean(asked)) if asked else None,
        "mae_all": float(np.mean([row["mae"] for row in rows])),
        "scale": float(np.median([row["scale"] for row in rows])),
    }


def markdown(rows: dict[str, list[Row]], summaries: dict[str, Row]) -> str:
    """Table of the crystals with two columns per potential, then the means and the caveat."""
    heads = [f"{name}, MAE THz | {name}, scale" for name in rows]
    lines = [
        f"| crystal | frames | {' | '.join(heads)} |",
        "|---|---|" + "---|" * (2 * len(rows)),
    ]
    for same in zip(*rows.values(), strict=True):
        mark = " (test fold)" if same[0]["test_fold"] else ""
        cells = [f"{row['mae']:.3f} | {row['scale']:.2f}" for row in same]
        head = f"| {same[0]['formula']}{mark} | {same[0]['frames']} | "
        lines.append(f"{head}{' | '.join(cells)} |")
    for key, label in {
        "mae_asked": f"mean of {', '.join(ASKED)}",
        "mae_all": "mean of all",
    }.items():
        cells = ["" if s[key] is None else f"{s[key]:.3f}" for s in summaries.values()]
        lines.append(f"| **{label}** | | {' | | '.join(cells)} | |")
    return "\n".join([*lines, "", CAVEAT])


def draw(axes: Axes, rows: dict[str, list[Row]]) -> None:
    """Frequencies of the asked crystals against DFT."""
    highest = 0.0
    for name, mine in rows.items():
        asked = [row for row in mine if row["formula"] in ASKED]
        points = [np.concatenate([row[key] for row in asked]) for key in ("dft", "potential")]
        axes.plot(*points, ".", label=name, alpha=0.4)
        highest = max(highest, points[0].max())
    axes.plot([0, highest], [0, highest], color="0.6")
    title = ", ".join(ASKED)
    axes.set(xlabel="frequency, DFT (THz)", ylabel="potential (THz)", title=title)
    axes.legend()
