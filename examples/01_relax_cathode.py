"""Relax a LiFePO4 cathode from its published structure, as any ASE script would."""

from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.spacegroup import crystal

from qdgnn_ase import QDGNNCalculator

atoms = crystal(
    ["Li", "Fe", "P", "O", "O", "O"],
    basis=[
        (0.0, 0.0, 0.0),
        (0.28222, 0.25, 0.97472),
        (0.09486, 0.25, 0.41820),
        (0.09678, 0.25, 0.74279),
        (0.45710, 0.25, 0.20602),
        (0.16558, 0.04646, 0.28478),
    ],
    spacegroup=62,
    cellpar=[10.332, 6.010, 4.692, 90, 90, 90],
)
atoms.calc = QDGNNCalculator()
FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.05, steps=300)
print(f"E = {atoms.get_potential_energy() / len(atoms):.3f} eV/atom")
print("a, b, c =", atoms.cell.lengths().round(3), "Å")
