"""DeepChem: the property model as a `TorchModel`, its featurizer, splitter and data sets.

Names are loaded on first use; they need ``pip install 'qdgnn-ase[deepchem]'``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdgnn_deepchem.crystal_graph import CrystalGraph
    from qdgnn_deepchem.datasets import load_qdgnn_dataset
    from qdgnn_deepchem.featurizer import QDGNNFeaturizer
    from qdgnn_deepchem.matbench import (
        load_band_gap,
        load_metallicity,
        load_mp_formation_energy,
        load_perovskite,
    )
    from qdgnn_deepchem.model import QDGNNModel
    from qdgnn_deepchem.splitter import FormulaSplitter

_HOME = {
    "CrystalGraph": "crystal_graph",
    "FormulaSplitter": "splitter",
    "QDGNNFeaturizer": "featurizer",
    "QDGNNModel": "model",
    "load_band_gap": "matbench",
    "load_metallicity": "matbench",
    "load_mp_formation_energy": "matbench",
    "load_perovskite": "matbench",
    "load_qdgnn_dataset": "datasets",
}

__all__ = [
    "CrystalGraph",
    "FormulaSplitter",
    "QDGNNFeaturizer",
    "QDGNNModel",
    "load_band_gap",
    "load_metallicity",
    "load_mp_formation_energy",
    "load_perovskite",
    "load_qdgnn_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if find_spec("deepchem") is None:
        raise ImportError(f"{name} needs DeepChem; pip install 'qdgnn-ase[deepchem]'")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
