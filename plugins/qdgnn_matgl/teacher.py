"""A teacher out of several calculators: energy of the first, weighted forces and stress of all.

CHGNet's energies carry the Materials Project's corrections, those of M3GNet-MP-2021 do not; their
forces err in different directions, so that the mean is better than either where both agree.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Teacher(Calculator):  # type: ignore[misc]  # ASE is untyped
    """Energy of one calculator, weighted mean of the forces and of the stress of it and others.

    Args:
        energy_calculator: Calculator with energy, forces and stress in ASE's units, of weight 1.
        others: More of them with their weights; their energies are not used.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(
        self, energy_calculator: Calculator, others: Sequence[tuple[Calculator, float]] = ()
    ) -> None:
        super().__init__()
        self.calculators = (energy_calculator, *(calculator for calculator, _ in others))
        self.weights = (1.0, *(weight for _, weight in others))
        self.disagreement: dict[str, float] = {}
        """Of the last structure: mean distance from the mean force (force_disagreement, eV/Å) and
        from the mean stress component (stress_disagreement, eV/Å^3)."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Run all calculators and keep their mean and their spread."""
        super().calculate(atoms, list(properties), list(system_changes))
        energies, forces, stresses = [], [], []
        for calculator in self.calculators:
            copy = self.atoms.copy()
            copy.set_constraint()
            copy.calc = calculator
            energies.append(float(copy.get_potential_energy()))
            forces.append(np.array(copy.get_forces(), dtype=np.float64))
            if copy.cell.rank == 3:
                stresses.append(np.array(copy.get_stress(), dtype=np.float64))
        self.results = {
            "energy": energies[0],
            "free_energy": energies[0],
            "forces": np.average(forces, axis=0, weights=self.weights),
        }
        self.disagreement = {"force_disagreement": _spread(np.stack(forces))}
        if stresses:
            self.results["stress"] = np.average(stresses, axis=0, weights=self.weights)
            self.disagreement["stress_disagreement"] = _spread(np.stack(stresses)[..., None])


class RelaxedTeacher(Calculator):  # type: ignore[misc]  # ASE is untyped
    """Energy of a calculator, zero forces and stress: for crystals that DFT has relaxed.

    At a minimum of the DFT energy zero is DFT's own force; a potential adds a spurious one there.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, energy_calculator: Calculator) -> None:
        super().__init__()
        self.energy_calculator = energy_calculator

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy in eV; zeros for the rest."""
        super().calculate(atoms, list(properties), list(system_changes))
        copy = self.atoms.copy()
        copy.calc = self.energy_calculator
        energy = float(copy.get_potential_energy())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": np.zeros((len(copy), 3)),
            "stress": np.zeros(6),
        }


def disagreement(_: Atoms, calculator: Calculator) -> dict[str, Any]:
    """Entries for ``atoms.info``: the ``annotate`` argument of `qdgnn_ase.label`."""
    return dict(calculator.disagreement)


def _spread(values: Array) -> float:
    """Mean norm of the differences from the mean over calculators (axis 0)."""
    return float(np.linalg.norm(values - values.mean(axis=0), axis=-1).mean())


def load_m3gnet(folder: str | Path) -> Calculator:
    """M3GNet potential from a model folder of matgl (DGL backend), stress in eV/Å^3.

    matgl unpickles the files, which executes code in them: load folders of a trusted source only.

    Raises:
        FileNotFoundError: If the folder is no model folder.
        ImportError: If matgl is not installed, or was imported with another backend.
    """
    missing = [n for n in ("model.json", "model.pt", "state.pt") if not Path(folder, n).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} must be a model folder of matgl, {', '.join(missing)} are missing; get it "
            "from pretrained_models/ of the matgl repository"
        )
    os.environ.setdefault("DGLBACKEND", "pytorch")
    os.environ.setdefault("MATGL_BACKEND", "DGL")
    matgl = _require("matgl", "matgl")
    if matgl.config.BACKEND != "DGL":
        raise ImportError(
            f"matgl's backend must be DGL, got {matgl.config.BACKEND}; set MATGL_BACKEND=DGL"
        )
    potential = matgl.load_model(str(folder))
    potential.requires_grad_(False)
    return import_module("matgl.ext.ase").PESCalculator(potential, stress_unit="eV/A3")


def load_chgnet() -> Calculator:
    """CHGNet 0.3.0, whose weights come with the package chgnet.

    Raises:
        ImportError: If chgnet is not installed.
    """
    model = _require("chgnet.model", "bench").CHGNet.load(verbose=False, use_device="cpu")
    model.requires_grad_(False)
    calculator = import_module("chgnet.model").CHGNetCalculator
    return calculator(model, use_device="cpu", on_isolated_atoms="ignore")


def load_sevennet() -> Calculator:
    """SevenNet-0 of 11 July 2024, whose weights come with the package sevenn.

    Trained on MPtrj, energies without the Materials Project's corrections, as those of M3GNet.
    Park et al., J. Chem. Theory Comput. 20, 4857 (2024).

    Raises:
        ImportError: If sevenn is not installed.
    """
    calculator = _require("sevenn.calculator", "bench").SevenNetCalculator
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No tensor product accelerator")  # they need a GPU
        return calculator("7net-0", device="cpu")


def _require(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} must be installed, got: {error}; pip install 'qdgnn-ase[{extra}]'"
        ) from error
