"""Shared fixtures: structures of every kind, a non-trivial float64 model, real frames."""

from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # read when numpy and torch load, here
    os.environ.setdefault(_name, "1")  # and in the processes that tests start: idle threads spin

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc100, fcc111, graphene, molecule, nanotube
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase.data.partial import composition_atoms, structure_atoms
from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.trunk import QDGNNConfig

torch.set_num_threads(1)  # tests share the machine; small tensors are slower with more


@pytest.fixture(autouse=True)
def matmul_precision() -> Iterator[None]:
    """A test that tunes its process leaves the numbers of those after it alone."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


REAL_DATA = Path(__file__).parent.parent / ".." / "shared" / "data" / "pes_mattersim_bench"
REAL_FILES = ("mptrj-random-1k.xyz.gz", "random-TP.xyz.gz", "mpf-TP.xyz.gz")


def _crystals() -> dict[str, Atoms]:
    nacl = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    skewed = bulk("Si", a=5.4)
    skewed.set_cell(
        skewed.cell.array @ [[1.0, 0.35, 0.1], [0.0, 1.0, -0.45], [0.2, 0.0, 1.0]], True
    )
    left_handed = bulk("GaAs", "zincblende", a=5.65)
    left_handed.set_cell(left_handed.cell.array[[1, 0, 2]])
    mirrored = bulk("ZnO", "wurtzite", a=3.25, c=5.2)
    mirrored.set_cell(mirrored.cell.array * [1, 1, -1], scale_atoms=True)
    perovskite = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
    )
    layered = Structure(
        Lattice.from_parameters(2.9, 2.9, 5.1, 82, 97, 120), ["Li", "Co", "O"], np.eye(3) * 0.6
    )
    return {
        "rocksalt": nacl,
        "fcc": bulk("Cu", cubic=True),
        "hcp": bulk("Ti"),
        "perovskite": AseAtomsAdaptor.get_atoms(perovskite, msonable=False),
        "triclinic": AseAtomsAdaptor.get_atoms(layered, msonable=False),
        "skewed": skewed,
        "left_handed": left_handed,
        "mirrored": mirrored,
        "self_image": bulk("Fe") * (1, 1, 2),
        "tiny": Atoms("CsCl", [[0, 0, 0], [1.4, 1.3, 1.2]], cell=[2.5, 2.6, 2.7], pbc=True),
        "one_atom_cell": Atoms("W", cell=[[2.4, 0, 0], [1.1, 2.3, 0], [0.2, 0.9, 2.2]], pbc=True),
        "long_skew": Atoms(
            "NiO", [[0, 0, 0], [2.1, 0, 0.9]], cell=[[4, 0, 0], [18, 4, 0], [0, 9, 4]], pbc=1
        ),
    }


def _low_dimensional() -> dict[str, Atoms]:
    open_slab = fcc111("Al", (2, 2, 2), a=4.05)
    open_slab.cell[2] = 0.0
    chain = Atoms("AuAg", [[0, 0, 0], [0, 0.4, 2.6]], cell=[[0, 0, 0], [0, 0, 0], [0.3, 0, 5.2]])
    chain.pbc = (False, False, True)
    wire = Atoms("PtSi", [[0, 0, 0], [1.9, 0.7, 0]], cell=[[3.9, 0.2, 0], [0, 7, 0], [0, 0, 0]])
    wire.pbc = (True, False, False)
    tilted = fcc100("Pt", (1, 2, 2), vacuum=4.0)
    tilted.cell[2] = [2.0, -1.0, 12.0]
    return {
        "slab_two_vectors": open_slab,
        "slab_three_vectors": fcc100("Pd", (2, 1, 3), vacuum=5.0),
        "slab_tilted_vacuum": tilted,
        "graphene": graphene(size=(2, 1, 1)),
        "wire_rank_1": chain,
        "wire_rank_2": wire,
        "nanotube": nanotube(3, 0, length=1),
    }


def _molecules() -> dict[str, Atoms]:
    boxed = molecule("CH3CH2OH")
    boxed.center(4.0)
    crystal_box = molecule("NH3", vacuum=2.0)
    crystal_box.pbc = True
    lone = Atoms("Ar")
    return {
        "water": molecule("H2O"),
        "benzene": molecule("C6H6"),
        "ethanol_in_cell": boxed,
        "ammonia_periodic": crystal_box,
        "close_pair": Atoms("CSi", [[0, 0, 0], [0.7, 0.4, 0.3]]),  # inside the model's ZBL range
        "lone_atom": lone,
        "lone_atom_in_box": Atoms("Xe", cell=[9, 9, 9], pbc=True),
    }


def _shifted(structures: dict[str, Atoms]) -> dict[str, Atoms]:
    unwrapped, far = structures["rocksalt"].copy(), structures["perovskite"].copy()
    rng = np.random.default_rng(5)
    unwrapped.positions += rng.integers(-3, 4, size=(len(unwrapped), 3)) @ unwrapped.cell.array
    far.positions += [1e6, -1e6, 1e6]
    far_molecule = structures["water"].copy()
    far_molecule.positions += 1e6
    return {"unwrapped": unwrapped, "far": far, "far_molecule": far_molecule}


@cache
def _structures() -> dict[str, Atoms]:
    structures = _crystals() | _low_dimensional() | _molecules()
    for seed, atoms in enumerate(structures.values()):
        atoms.rattle(0.06, seed=seed)
    return structures | _shifted(structures)


@pytest.fixture
def structures() -> dict[str, Atoms]:
    """Fresh copies of all structures by name; rattled, so that no force is zero by symmetry."""
    return {name: atoms.copy() for name, atoms in _structures().items()}


@pytest.fixture(params=list(_structures()))
def structure(request: pytest.FixtureRequest) -> Atoms:
    """One structure after the other."""
    return _structures()[request.param].copy()


@pytest.fixture
def model64() -> QDGNN:
    """Small random float64 model with strong attention, references and ZBL below 1.3 Å."""
    config = QDGNNConfig(
        cutoff=4.5, hidden=16, n_layers=3, n_vectors=4, n_radial=6, n_pair=8, n_heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = QDGNN(config, neighbors=20.0).double()
        model.element_energies.copy_(torch.randn(95) * 5.0)
    with torch.no_grad():
        for layer in model.trunk.layers:
            layer.pair_radial.weight *= 0.4
            layer.pair_out.weight *= 3.0
            layer.pair_out.weight[: config.n_heads] *= 6.0  # logits
            layer.values[2].weight *= 2.0
    model.energy_scale.fill_(200.0)
    model.shortest.fill_(1.3)
    return model


@pytest.fixture(scope="session")
def real_frames() -> list[Atoms]:
    """Two frames with at most 16 atoms of each file of real DFT data."""
    if missing := _missing_files():
        pytest.skip(f"real frames are absent: no {missing} in {REAL_DATA}")
    frames = []
    for name in REAL_FILES:
        head = ase.io.read(REAL_DATA / name, ":40", format="extxyz")
        frames += [atoms for atoms in head if 4 <= len(atoms) <= 16][:2]
    return frames


@pytest.fixture
def partial() -> dict[str, Atoms]:
    """What a property model takes and a potential does not."""
    corner, centre, near = [0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.55, 0.5, 0.5]
    lattice = Lattice.from_parameters(3.9, 4.1, 4.3, 85, 95, 100)
    sites: dict[str, tuple[list[Any], list[list[float]]]] = {
        "ordered": (["Na", "Cl"], [corner, centre]),
        "shared": ([{"Na": 0.5, "K": 0.3, "Rb": 0.2}, "Cl"], [corner, centre]),
        "vacant": ([{"Na": 0.6}, {"Cl": 0.5, "Br": 0.2}], [corner, centre]),
        "split": (["Cl", {"Li": 0.4}, {"Li": 0.6}], [corner, centre, near]),
    }
    frames = {name: structure_atoms(Structure(lattice, *site)) for name, site in sites.items()}
    return frames | {"composition": composition_atoms("Li3PS4")}


def _missing_files() -> list[str]:
    return [name for name in REAL_FILES if not (REAL_DATA / name).is_file()]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A skip that nobody reads is a test that nobody misses."""
    if missing := _missing_files():
        terminalreporter.write_sep("!", f"NOT TESTED ON REAL FRAMES, absent: {missing}", red=True)
