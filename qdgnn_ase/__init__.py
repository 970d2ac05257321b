"""Quantum-informed graph neural network for energy materials, as an ASE calculator.

Names are loaded on first use: importing the package loads neither torch nor DGL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdgnn_ase.data.io import read_structures
    from qdgnn_ase.graph import AtomGraph, collate, from_atoms
    from qdgnn_ase.inference.calculator import QDGNNCalculator
    from qdgnn_ase.inference.domain import ExtrapolationWarning
    from qdgnn_ase.inference.evaluate import Split, evaluate
    from qdgnn_ase.inference.simulate import molecular_dynamics, relax
    from qdgnn_ase.nn.derivatives import energy_forces_stress, hessian
    from qdgnn_ase.nn.model import QDGNN, QDGNNConfig
    from qdgnn_ase.training.checkpoint import CheckpointError, load_model, save_model
    from qdgnn_ase.training.config import TrainConfig
    from qdgnn_ase.training.fit import fit

_HOME = {
    "AtomGraph": "graph",
    "CheckpointError": "training.checkpoint",
    "ExtrapolationWarning": "inference.domain",
    "QDGNN": "nn.model",
    "QDGNNCalculator": "inference.calculator",
    "QDGNNConfig": "nn.model",
    "Split": "inference.evaluate",
    "TrainConfig": "training.config",
    "collate": "graph",
    "energy_forces_stress": "nn.derivatives",
    "evaluate": "inference.evaluate",
    "fit": "training.fit",
    "from_atoms": "graph",
    "hessian": "nn.derivatives",
    "load_model": "training.checkpoint",
    "molecular_dynamics": "inference.simulate",
    "read_structures": "data.io",
    "relax": "inference.simulate",
    "save_model": "training.checkpoint",
}

__all__ = [
    "QDGNN",
    "AtomGraph",
    "CheckpointError",
    "ExtrapolationWarning",
    "QDGNNCalculator",
    "QDGNNConfig",
    "Split",
    "TrainConfig",
    "collate",
    "energy_forces_stress",
    "evaluate",
    "fit",
    "from_atoms",
    "hessian",
    "load_model",
    "molecular_dynamics",
    "read_structures",
    "relax",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("qdgnn-ase")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
