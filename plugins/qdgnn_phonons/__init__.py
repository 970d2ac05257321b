"""Phonons with any ASE calculator, and data sets made of them.

Names are loaded on first use; they need the extra ``phonons``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdgnn_phonons.anharmonic import SelfConsistent, self_consistent_phonons
    from qdgnn_phonons.arms import md_frames, sample_frames, sample_phonons, uniform_frames
    from qdgnn_phonons.config import PhononConfig
    from qdgnn_phonons.crystal import relax_crystal
    from qdgnn_phonons.dataset import read_dataset, write_dataset
    from qdgnn_phonons.diversity import Diversity, deduplicate, measure_diversity
    from qdgnn_phonons.files import load_phonons, save_phonons
    from qdgnn_phonons.harmonic import harmonic_phonons
    from qdgnn_phonons.mlp import CalculatorMLP
    from qdgnn_phonons.modes import (
        NormalModes,
        mean_square_displacements,
        normal_modes,
        sample_displacements,
    )
    from qdgnn_phonons.spectrum import band_structure, density_of_states, last_peak
    from qdgnn_phonons.stability import ImaginaryModesError, Stability, stability_of
    from qdgnn_phonons.thermal import (
        lindemann_melting,
        thermal_displacements,
        thermal_properties,
    )
    from qdgnn_phonons.variants import vary
    from qdgnn_phonons.volume import gruneisen, quasi_harmonic

_HOME = {
    "CalculatorMLP": "mlp",
    "Diversity": "diversity",
    "ImaginaryModesError": "stability",
    "NormalModes": "modes",
    "PhononConfig": "config",
    "SelfConsistent": "anharmonic",
    "Stability": "stability",
    "band_structure": "spectrum",
    "deduplicate": "diversity",
    "density_of_states": "spectrum",
    "gruneisen": "volume",
    "harmonic_phonons": "harmonic",
    "last_peak": "spectrum",
    "lindemann_melting": "thermal",
    "load_phonons": "files",
    "md_frames": "arms",
    "measure_diversity": "diversity",
    "mean_square_displacements": "modes",
    "normal_modes": "modes",
    "quasi_harmonic": "volume",
    "read_dataset": "dataset",
    "relax_crystal": "crystal",
    "sample_displacements": "modes",
    "sample_frames": "arms",
    "sample_phonons": "arms",
    "save_phonons": "files",
    "self_consistent_phonons": "anharmonic",
    "stability_of": "stability",
    "thermal_displacements": "thermal",
    "thermal_properties": "thermal",
    "uniform_frames": "arms",
    "vary": "variants",
    "write_dataset": "dataset",
}

__all__ = [
    "CalculatorMLP",
    "Diversity",
    "ImaginaryModesError",
    "NormalModes",
    "PhononConfig",
    "SelfConsistent",
    "Stability",
    "band_structure",
    "deduplicate",
    "density_of_states",
    "gruneisen",
    "harmonic_phonons",
    "last_peak",
    "lindemann_melting",
    "load_phonons",
    "md_frames",
    "mean_square_displacements",
    "measure_diversity",
    "normal_modes",
    "quasi_harmonic",
    "read_dataset",
    "relax_crystal",
    "sample_displacements",
    "sample_frames",
    "sample_phonons",
    "save_phonons",
    "self_consistent_phonons",
    "stability_of",
    "thermal_displacements",
    "thermal_properties",
    "uniform_frames",
    "vary",
    "write_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs {error.name}, which is not installed: pip install 'qdgnn-ase[phonons]'"
        ) from error
