"""Cells of packed small molecules: what sets of crystals hold few of.

``python -m qdgnn_matgl.packed OUTPUT -n 1000`` writes cells that `qdgnn_matgl.frames` takes.
"""

from __future__ import annotations

import ase.io
import click
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.data import atomic_numbers, covalent_radii, vdw_radii
from ase.geometry import get_distances
from ase.neighborlist import natural_cutoffs, neighbor_list
from numpy.random import Generator
from numpy.typing import NDArray

VOLUMES = {
    "H": 6.0, "B": 16.0, "C": 15.0, "N": 13.0, "O": 12.0,
    "F": 12.0, "Si": 26.0, "P": 25.0, "S": 24.0, "Cl": 24.0,
    "Ge": 30.0, "As": 30.0, "Se": 30.0, "Br": 32.0, "Sn": 45.0, "Sb": 45.0, "Te": 45.0, "I": 45.0,
}  # fmt: skip
"""Rounded mean volumes of the elements in molecular crystals, Å^3: Hofmann, Acta Cryst. B 58,
489 (2002); from Si on rough ones. They set a cell's first size only."""
GROUPS = (
    ("C", "Si", "Ge", "Sn"),
    ("N", "P", "As", "Sb"),
    ("O", "S", "Se", "Te"),
    ("F", "Cl", "Br", "I"),
)
MAX_ATOMS = 44
_CONTACT = 0.78
"""Shortest distance of two molecules' atoms, in sums of van der Waals radii."""
_BORON = 1.9
"""Å: ASE has no van der Waals radius of boron; Mantina et al., J. Phys. Chem. A 113, 5806."""
_TRIES, _GROWTHS, _GROWTH = 60, 12, 1.04
_RADII = np.nan_to_num(vdw_radii, nan=1.2)
_RADII[atomic_numbers["B"]] = _BORON


def packed(rng: Generator, heavier: bool = False) -> Atoms:
    """Two to six molecules of one or two kinds of the G2 set, turned and placed at random.

    The cell is triclinic, of 95-150 % of the sum of `VOLUMES` and of at most `MAX_ATOMS` atoms;
    it grows until the molecules fit without a contact, periodic images included. With `heavier`
    elements of the molecules give way to others of their group, bonds as the covalent radii say.
    """
    names = [name for name in g2.names if _fits(g2[name])]
    while True:
        kinds = rng.choice(names, rng.integers(1, 3))
        ready = {name: molecule(name) for name in kinds}
        if heavier:
            ready = {name: exchanged(atoms, rng) for name, atoms in ready.items()}
        chosen = [ready[name] for name in rng.choice(kinds, rng.integers(2, 7))]
        if sum(map(len, chosen)) > MAX_ATOMS:
            continue
        cell = _cell(chosen, rng)
        for _ in range(_GROWTHS):
            if (atoms := _placed(chosen, cell, rng)) is not None:
                return atoms
            cell = cell * _GROWTH


def exchanged(atoms: Atoms, rng: Generator) -> Atoms:
    """Each element with probability 1/2 another of its group, bond lengths scaled in the mean."""
    new = {old: str(rng.choice(group)) for group in GROUPS for old in group if rng.random() < 0.5}
    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    changed = atoms.copy()
    changed.symbols = [new.get(symbol, symbol) for symbol in atoms.symbols]
    bonds = [
        covalent_radii[a.numbers[first]] + covalent_radii[a.numbers[second]]
        for a in (atoms, changed)
    ]
    changed.positions *= np.mean(bonds[1] / bonds[0])
    return changed


def _fits(atoms: Atoms) -> bool:
    return len(atoms) > 1 and set(atoms.get_chemical_symbols()) <= set(VOLUMES)


def _cell(chosen: list[Atoms], rng: Generator) -> NDArray[np.float64]:
    symbols = [symbol for atoms in chosen for symbol in atoms.get_chemical_symbols()]
    volume = sum(VOLUMES[symbol] for symbol in symbols) * rng.uniform(0.95, 1.5)
    edges = rng.uniform(0.8, 1.25, size=3)
    shape = np.diag(edges) + edges[0] * np.tril(rng.uniform(-0.2, 0.2, size=(3, 3)), -1)
    scaled: NDArray[np.float64] = shape * (volume / edges.prod()) ** (1 / 3)
    return scaled


def _placed(chosen: list[Atoms], cell: NDArray[np.float64], rng: Generator) -> Atoms | None:
    """The molecules in the cell, or None where one does not find room."""
    placed = Atoms(cell=cell, pbc=True)
    for atoms in chosen:
        for _ in range(_TRIES):
            turned = atoms.copy()
            turned.euler_rotate(*rng.uniform(0, 360, size=3), center="COP")
            turned.translate(rng.random(3) @ cell - turned.positions.mean(axis=0))
            if not _touch(placed, turned):
                placed += turned
                break
        else:
            return None
    owners = np.repeat(np.arange(len(chosen)), [len(atoms) for atoms in chosen])
    first, second, shift = neighbor_list("ijS", placed, _CONTACT * _RADII[placed.numbers])
    own_images = (owners[first] == owners[second]) & shift.any(axis=1)
    return None if own_images.any() else placed


def _touch(placed: Atoms, turned: Atoms) -> bool:
    if not len(placed):
        return False
    _, lengths = get_distances(placed.positions, turned.positions, placed.cell, pbc=True)
    radii = _RADII[placed.numbers][:, None] + _RADII[turned.numbers]
    return bool((lengths < _CONTACT * radii).any())


@click.command()
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("-n", "n", default=1000, show_default=True, help="Cells to write.")
@click.option("--seed", default=0, show_default=True)
@click.option("--heavier", is_flag=True, help="Exchange elements within their groups.")
def main(output: str, *, n: int, seed: int, heavier: bool) -> None:
    """Write cells of packed molecules to OUTPUT (extxyz)."""
    cells = [packed(np.random.default_rng([seed, index]), heavier) for index in range(n)]
    ase.io.write(output, cells, format="extxyz")
    click.echo(f"{n} cells in {output}")


if __name__ == "__main__":
    main()
