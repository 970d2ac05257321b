"""Structures that are broken: numbers, cells, distances, elements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from qdgnn_bench.building import (
    STRESS_TOLERANCE,
    Make,
    cluster,
    crystal,
    edited,
    equal,
    moved,
    pair,
    refused,
    slab,
    warned,
)
from qdgnn_bench.faults import Case, NotApplicable, Subject

ANALYTIC = {"EMT": "an analytic potential has no training data to leave"}


def structure_cases() -> tuple[Case, ...]:
    """All cases of broken Atoms."""
    return (
        *_positions(),
        *_cells(),
        *_handedness(),
        *_volumes(),
        *_close_pairs(),
        *_compressions(),
        *_elements(),
    )


def _positions() -> list[Case]:
    fault, message = "NaN or inf positions", "positions must be finite"
    return [
        refused(fault, "NaN coordinate in a crystal", moved([np.nan, 0, 0], index=1), message),
        refused(fault, "NaN for all atoms", moved(np.nan), message),
        refused(fault, "+inf coordinate", moved([0, np.inf, 0], index=1), message),
        refused(fault, "-inf coordinate", moved([0, 0, -np.inf], index=1), message),
        refused(fault, "NaN coordinate in a cluster", moved(np.nan, cluster, 0), message),
    ]


def _cells() -> list[Case]:
    fault = "NaN, zero or singular cell"

    def cell(name: str, rows: object, message: str) -> Case:
        return refused(fault, name, edited(lambda atoms: atoms.set_cell(rows)), message)

    a, missing = 3.75, r"cell vector \d must be longer than 0.3 Å along a periodic axis"
    return [
        cell("NaN in the cell", [[np.nan, 0, 0], [0, a, 0], [0, 0, a]], "cell must be finite"),
        cell("inf in the cell", [[a, 0, 0], [0, np.inf, 0], [0, 0, a]], "cell must be finite"),
        cell("zero cell, periodic", np.zeros((3, 3)), missing),
        cell("one zero vector, periodic", [[a, 0, 0], [0, a, 0], [0, 0, 0]], missing),
        cell("coplanar vectors", [[a, 0, 0], [0, a, 0], [a, a, 0]], "cell must not be singular"),
        cell("parallel vectors", [[a, 0, 0], [2 * a, 0, 0], [0, 0, a]], "cell must not be"),
    ]


def _handedness() -> list[Case]:
    fault = "left-handed cell"
    swapped = edited(lambda atoms: atoms.set_cell(atoms.cell.array[[1, 0, 2]]))
    negated = edited(lambda atoms: atoms.set_cell(-atoms.cell.array))

    def stress(subject: Subject, _: Path) -> float:
        left, right = swapped(), crystal()
        left.calc, right.calc = subject.calculator(), subject.calculator()
        return float(abs(left.get_stress() - right.get_stress()).max()) / STRESS_TOLERANCE

    return [
        equal(fault, "two vectors swapped", swapped, crystal),
        equal(fault, "all vectors negated", negated, crystal),
        Case(name="stress, two vectors swapped", fault=fault, expected="value", probe=stress),
    ]


def _volumes() -> list[Case]:
    """Stress is undefined without a volume: a number, zero included, is wrong."""

    def tilted() -> Atoms:
        atoms = slab((True, True, False))
        atoms.cell[2] = atoms.cell[0] + 0.3 * atoms.cell[1]
        atoms.rotate(31.0, (1, 2, 3), rotate_cell=True)
        return atoms

    def case(name: str, make: Make) -> Case:
        def probe(subject: Subject, _: Path) -> float:
            atoms = make()
            atoms.calc = subject.calculator()
            return float(atoms.get_stress()[0])

        return Case(
            name=name,
            fault="stress without volume",
            expected="error",
            probe=probe,
            error=PropertyNotImplementedError,
            message="stress",
        )

    return [
        case("stress of a cluster", cluster),
        case("stress of a slab, no third vector", lambda: slab((True, True, False), 0.0)),
        case("stress of a slab, third vector in its plane", tilted),
    ]


def _close_pairs() -> list[Case]:
    coincident, overlap = "coincident atoms", "overlapping atoms"
    message = r"atoms must be at least 0.3 Å apart"

    def squeezed(make: Make, distance: float) -> Atoms:
        atoms = make()
        atoms.set_distance(0 if make is cluster else 1, 2, distance, fix=0)
        return atoms

    def onto(index: int, target: int) -> Make:
        return edited(lambda a: a.positions.__setitem__(index, a.positions[target]))

    return [
        refused(coincident, "two atoms at one place", onto(2, 1), message),
        refused(coincident, "an atom on its neighbour's image", _image, message),
        refused(coincident, "all atoms at the origin", lambda: Atoms("Cu4"), message),
        refused(overlap, "pair at 0.01 Å", lambda: pair(0.01), message),
        refused(overlap, "pair at 0.29 Å", lambda: pair(0.29), message),
        refused(overlap, "pair at 0.2 Å across the cell's face", lambda: _chain(0.2, 2), message),
        warned(
            overlap,
            "pair at 1.0 Å in a cluster",
            lambda _: squeezed(cluster, 1.0),
            "Cu-Cu at 1.00 Å is below",
            skip=ANALYTIC,
        ),
        warned(
            overlap,
            "pair at 1.2 Å in a crystal",
            lambda _: squeezed(crystal, 1.2),
            "Cu-Cu at 1.20 Å is below",
            skip=ANALYTIC,
        ),
    ]


def _image() -> Atoms:
    return Atoms("CuAuCu", [[0, 0, 0], [1.9, 1.9, 0], [3.75, 0, 0]], cell=[3.75] * 3, pbc=True)


def _chain(gap: float, n: int) -> Atoms:
    """Row of n atoms along x, ``gap`` Å between the last one and the first one's image."""
    positions = [[2.5 * k, 0, 0] for k in range(n)]
    return Atoms(f"Cu{n}", positions, cell=[2.5 * (n - 1) + gap, 30, 30], pbc=True)


def _scaled(factor: float) -> Atoms:
    atoms = crystal()
    atoms.set_cell(atoms.cell * factor, scale_atoms=True)
    return atoms


def _compressions() -> list[Case]:
    fault = "compressed cell"
    return [
        warned(
            fault,
            "lattice at 45 %",
            lambda _: _scaled(0.45),
            "is below the shortest",
            skip=ANALYTIC,
        ),
        refused(
            fault,
            "lattice at 10 %",
            lambda: _scaled(0.10),
            "cell must not be singular or denser",
            skip={"M3GNet": "its list of three-body terms fills the memory"},
        ),
        refused(
            fault,
            "lattice at 0.1 %",
            lambda: _scaled(1e-3),
            "cell vector 0 must be longer",
            skip=dict.fromkeys(("EMT", "M3GNet"), "its neighbour list fills the memory"),
        ),
        refused(fault, "atom 0.29 Å from its own image", lambda: _chain(0.29, 1), "cell vector 0"),
    ]


def _elements() -> list[Case]:
    unseen, beyond, dummy = "unseen element", "Z beyond the table", "dummy atom"

    def replaced(*symbols: str) -> Atoms:
        atoms = crystal().repeat(2)
        atoms.symbols[: len(symbols)] = symbols
        return atoms

    def with_unseen(subject: Subject, n: int) -> Atoms:
        if len(subject.unseen) < n:
            raise NotApplicable("training data holds every element of the table")
        return replaced(*subject.unseen[:n])

    def number(z: int) -> Make:
        return edited(lambda atoms: atoms.numbers.__setitem__(0, z))

    listed = r"elements not in the training data: [A-Z][a-z]?{}$"
    return [
        warned(unseen, "one element", lambda s: with_unseen(s, 1), listed.format("")),
        warned(unseen, "two elements", lambda s: with_unseen(s, 2), listed.format(", [A-Z][a-z]?")),
        refused(beyond, "americium, 95", number(95), r"must lie in 1..94, got \[95\]"),
        refused(beyond, "lawrencium, 103", number(103), r"must lie in 1..94, got \[103\]"),
        refused(beyond, "oganesson, 118", number(118), r"must lie in 1..94, got \[118\]"),
        refused(beyond, "no element, 150", number(150), r"must lie in 1..94, got \[150\]"),
        refused(beyond, "negative, -1", number(-1), r"got \[-1\]"),
        refused(dummy, "X in a crystal", number(0), "replace dummy atoms"),
        refused(dummy, "X alone", lambda: Atoms("X"), "replace dummy atoms"),
    ]
