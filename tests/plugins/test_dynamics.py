"""Drift and hot runs: the protocol on EMT, and 1 ps of it on the embedded model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from qdgnn_ase import QDGNNCalculator
from qdgnn_bench.argyrodite import argyrodite
from qdgnn_bench.dynamics import hot_run, nve_drift, salt


def test_emt_conserves_energy() -> None:
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.calc = EMT()
    row = nve_drift(atoms, 300.0, time_ps=0.2, timestep_fs=2.0)
    assert abs(row["drift_mev_atom_ps"]) < 1.0
    assert 200 < row["temperature"] < 450


class Leaky(Calculator):
    """Forces that are not the gradient of the energy: a rotational part pumps energy in."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions - self.parameters["origin"]
        curl = np.cross(x, [0.0, 0.0, 1.0])
        self.results = {"energy": 0.5 * float((x**2).sum()), "forces": -x - 0.2 * curl}


def test_forces_that_are_not_a_gradient_show_as_drift() -> None:
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.calc = Leaky(origin=atoms.positions.copy())
    assert abs(nve_drift(atoms, 300.0, time_ps=0.2)["drift_mev_atom_ps"]) > 1.0


def test_a_run_that_explodes_is_reported() -> None:
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.calc = EMT()
    atoms.set_momenta(
        np.full((len(atoms), 3), 1.0) * np.where(np.arange(len(atoms)) % 2, 200, -200)[:, None]
    )
    row = hot_run(atoms, 300.0, time_ps=0.2)
    assert not row["survived"]
    assert "exploded" in row["failure"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "temperature", "timestep_fs"), [(salt, 300.0, 1.0), (argyrodite, 600.0, 2.0)]
)
def test_embedded_model_conserves_energy(
    make: Callable[[], Atoms], temperature: float, timestep_fs: float
) -> None:
    atoms = make()
    atoms.calc = QDGNNCalculator()
    row = nve_drift(atoms, temperature, 0.6, timestep_fs)
    assert abs(row["drift_mev_atom_ps"]) < 1.0
    assert row["timestep_fs"] == timestep_fs
