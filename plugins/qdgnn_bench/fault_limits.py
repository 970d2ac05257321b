"""Structures at the limits: empty, lonely, half periodic, far away; and what a failure leaves.

Right values are relations, so that they hold for any calculator: a translated crystal has the
energy of the untranslated one, a slab that of a slab in vacuum, two distant atoms that of one atom
twice.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_bench.building import (
    FORCE_TOLERANCE,
    Make,
    cluster,
    crystal,
    edited,
    equal,
    moved,
    pair,
    refused,
    slab,
    wire,
)
from qdgnn_bench.faults import Case, Subject


def limit_cases() -> tuple[Case, ...]:
    """All cases of Atoms at the limits."""
    return (*_small(), *_boundaries(), *_translations(), *_repeated())


def _small() -> list[Case]:
    empty, single, lonely = "empty structure", "single atom", "no neighbours"
    message = "must hold at least one atom"

    def one() -> Atoms:
        return Atoms("Cu")

    def boxed() -> Atoms:
        return Atoms("Cu", cell=[30, 30, 30], pbc=True)

    def force(subject: Subject, _: Path) -> float:
        atoms = one()
        atoms.calc = subject.calculator()
        return float(abs(atoms.get_forces()).max()) / FORCE_TOLERANCE

    def dimers() -> Atoms:
        return pair(2.5) + moved(2e5, lambda: pair(2.5))()

    return [
        refused(empty, "no atoms", Atoms, message),
        refused(empty, "no atoms in a cell", lambda: Atoms(cell=[4] * 3, pbc=True), message),
        Case(name="its force is zero", fault=single, expected="value", probe=force),
        equal(single, "periodic box = free", boxed, one),
        equal(single, "cell without pbc = free", lambda: Atoms("Cu", cell=[4] * 3), one),
        equal(lonely, "two atoms at 30 Å = twice one", lambda: pair(30.0), one, times=2),
        equal(lonely, "two atoms at 5000 Å = twice one", lambda: pair(5e3), one, times=2),
        equal(
            lonely,
            "two atoms in a periodic box of 1e4 Å",
            _wide_box,
            one,
            times=2,
            skip={"M3GNet": "its neighbour list fills the memory"},
        ),
        equal(lonely, "crystal of 30 Å = free atom", boxed, one),
        refused(
            lonely,
            "dimers 3e5 Å apart, which float32 cannot resolve",
            dimers,
            "use dtype='float64'",
            ours_only=True,
        ),
    ]


def _wide_box() -> Atoms:
    return Atoms("Cu2", [[0, 0, 0], [5e3, 5e3, 5e3]], cell=[1e4] * 3, pbc=True)


def _boundaries() -> list[Case]:
    fault = "mixed pbc"
    flat, along = (True, True, False), (False, False, True)
    return [
        equal(fault, "slab, no third vector", lambda: slab(flat, 0.0), slab),
        equal(fault, "slab, third vector of 4 Å", lambda: slab(flat, 4.0), slab),
        equal(fault, "slab, axes permuted", _permuted, lambda: _permuted(30.0, pbc=True)),
        equal(fault, "wire, one vector", lambda: wire(along), wire),
        equal(fault, "wire, vectors of 3 Å across", lambda: wire(along, 3.0), wire),
        equal(fault, "cluster in a cell of 4 Å, no pbc", _boxed_cluster, cluster),
    ]


def _permuted(height: float = 0.0, pbc: bool | tuple[bool, ...] = (False, True, True)) -> Atoms:
    """Slab whose normal is x, first cell vector ``height``."""
    atoms = slab()
    vectors = atoms.cell.array[:2][:, [2, 0, 1]]
    return Atoms(
        atoms.symbols,
        atoms.positions[:, [2, 0, 1]],
        cell=[[height, 0, 0], *vectors],
        pbc=pbc,
    )


def _boxed_cluster() -> Atoms:
    atoms = cluster()
    atoms.set_cell([4.0, 4.0, 4.0])
    return atoms


def _translations() -> list[Case]:
    fault = "far-translated"
    far = np.array([1e6, -1e6, 1e6])
    lattice = np.diag([3, -2, 100]) @ crystal().cell.array
    flat = (True, True, False)

    def open_slab() -> Atoms:
        return slab(flat, 0.0)

    return [
        equal(fault, "crystal by 1e6 Å", moved(far), crystal),
        equal(fault, "cluster by 1e6 Å", moved(far, cluster), cluster),
        equal(fault, "slab by 1e6 Å along its normal", moved([0, 0, 1e6], open_slab), open_slab),
        equal(fault, "atoms by different lattice vectors", _spread(lattice), crystal),
        refused(
            fault,
            "crystal by 1e15 Å",
            moved(1e15),
            r"must lie within 1e.09 Å",
            skip={"M3GNet": "its neighbour list does not come to an end"},
        ),
        refused(fault, "atom at 1e300 Å", moved([1e300, 0, 0], index=1), r"must lie within"),
    ]


def _spread(vectors: NDArray[np.float64]) -> Make:
    def spread(atoms: Atoms) -> None:
        atoms.positions[1:] += vectors

    return edited(spread)


def _repeated() -> list[Case]:
    """A calculator that failed must not hand out the numbers of the structure before."""

    def probe(subject: Subject, _: Path) -> float:
        calculator = subject.calculator()
        calculator.calculate(crystal(), ["energy", "forces"])
        broken = edited(lambda atoms: atoms.numbers.__setitem__(0, 0))()
        with contextlib.suppress(Exception):  # any error is right here; the next call is judged
            calculator.calculate(broken, ["energy", "forces"])
        broken.calc = calculator
        return float(broken.get_potential_energy())

    return [
        Case(
            name="energy after a failed calculation",
            fault="stale results",
            expected="error",
            probe=probe,
            message="replace dummy atoms",
        ),
    ]
