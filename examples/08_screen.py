"""Screen a database with uncertainties: which salts have a gap between 1.5 and 3 eV?

Each crystal gets the probability that its gap is in the window; the best are relaxed and judged
again. Crystals unlike the training data are left out. The command line does the first part:
`qdgnn predict 'pool.db@natoms<3' --db predicted.db`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii
from ase.db import connect
from scipy.stats import norm

from qdgnn_ase import Prediction, Predictor, QDGNNCalculator, read_structures, relax

WINDOW = (1.5, 3.0)
CATIONS = ("Li", "Na", "Mg", "Ca", "Sr", "Zn", "Cd", "Ag", "Cu", "Al", "Ga", "In")
ANIONS = ("O", "S", "Se", "Te", "N", "P", "As", "Cl", "Br", "I")


def fill(path: Path) -> None:
    """A pool of zinc blendes with lattices from the covalent radii."""
    with connect(path) as pool:
        for cation in CATIONS:
            for anion in ANIONS:
                bond = sum(covalent_radii[atomic_numbers[symbol]] for symbol in (cation, anion))
                pool.write(bulk(cation + anion, "zincblende", a=4 * bond / 3**0.5))


def probability(row: dict[str, Prediction]) -> float:
    """That the gap is in the window and the crystal within 0.1 eV/atom of the hull."""
    gap, hull = row["band_gap"], row["energy_above_hull"]
    if not (gap.in_domain and hull.in_domain):
        return 0.0
    low, high = norm.cdf(WINDOW, gap.value, gap.std)
    return float((high - low) * norm.cdf(0.1, hull.value, hull.std))


def describe(atoms: Atoms, row: dict[str, Prediction]) -> str:
    gap, hull = row["band_gap"], row["energy_above_hull"]
    return (
        f"{atoms.symbols}: gap {gap.value:.2f} ± {gap.std:.2f} eV, "
        f"{hull.value:.3f} ± {hull.std:.3f} eV/atom above the hull, "
        f"probability {probability(row):.2f}"
    )


def main() -> None:
    torch.set_num_threads(1)  # more are slower for small cells
    predictor, calculator = Predictor(), QDGNNCalculator()
    with TemporaryDirectory() as folder:
        pool = Path(folder, "pool.db")
        fill(pool)
        crystals = read_structures(f"{pool}@natoms<3")
        rows = predictor(crystals)
        order = sorted(range(len(rows)), key=lambda k: -probability(rows[k]))
        outside = sum(not row["band_gap"].in_domain for row in rows)
        print(f"{len(rows)} crystals, {outside} of them unlike the training data; the best:")
        for k in order[:3]:
            print(describe(crystals[k], rows[k]))
            crystals[k].calc = calculator
            relax(crystals[k], fmax=0.1, steps=30)
            print("  relaxed", describe(crystals[k], predictor([crystals[k]])[0]))


if __name__ == "__main__":
    main()
