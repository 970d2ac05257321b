"""Li6PS5Cl, a fast lithium conductor, as an ordered cell, and what is known of its conductivity."""

from __future__ import annotations

from ase import Atoms
from ase.spacegroup import crystal

LATTICE = 9.859
"""a in Å at room temperature: Kraft et al., J. Am. Chem. Soc. 139, 10909 (2017)."""
LITERATURE = (
    "| source | Ea, eV | conductivity at room temperature, mS/cm |\n|---|---|---|\n"
    "| experiment, Boulineau et al., Solid State Ionics 221, 1 (2012) | 0.3-0.4 | 1.3 |\n"
    "| experiment, Kraft et al., J. Am. Chem. Soc. 139, 10909 (2017) | 0.3-0.4 | 2.0 |"
)


def argyrodite() -> Atoms:
    """Li6PS5Cl, 52 atoms, half of the Cl exchanged with the free S.

    Argyrodite, F-43m (Deiseroth et al., Angew. Chem. 47, 755 (2008)): P 4b, S 16e with P-S of
    2.05 Å, free S 4d, Cl 4a. Li is on all 24g sites here, of which the real crystal splits most
    (48h); the exchange of Cl and S, without which Li stays in its cages, is partial there too.
    """
    sites = {
        "Li": (-0.02, 0.25, 0.25),
        "P": (0.5, 0.5, 0.5),
        "S": (0.3802, 0.3802, 0.3802),
        "Se": (0.75, 0.75, 0.75),  # the free S, to tell it from that of PS4
        "Cl": (0, 0, 0),
    }
    ordered = crystal(list(sites), list(sites.values()), spacegroup=216, cellpar=[LATTICE] * 3)
    symbols = ordered.get_chemical_symbols()
    free, chlorine = ([i for i, s in enumerate(symbols) if s == name] for name in ("Se", "Cl"))
    for index in (*free[2:], *chlorine[:2]):
        symbols[index] = "S"
    for index in (*free[:2], *chlorine[2:]):
        symbols[index] = "Cl"
    return Atoms(symbols, ordered.positions, cell=ordered.cell, pbc=True)
