"""Quantum-informed graph neural network for energy materials, as an ASE calculator.

Names are loaded on first use: importing the package loads neither torch nor DGL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdgnn_ase.data.exports import ordered_atoms
    from qdgnn_ase.data.io import labels, read_structures
    from qdgnn_ase.data.label import Labelled, label
    from qdgnn_ase.data.materials import as_atoms
    from qdgnn_ase.data.perturb import (
        is_plausible,
        rattle,
        scale_volume,
        size_ratio,
        strain,
        substitute,
        swap,
        vacancy,
    )
    from qdgnn_ase.data.splits import fold_of, reduced_formula, split_indices
    from qdgnn_ase.data.targets import LabelledStructure, read_columns, read_labelled
    from qdgnn_ase.data.tasks import run_tasks
    from qdgnn_ase.graph import AtomGraph, collate, from_atoms, site_graph
    from qdgnn_ase.inference.bootstrap import mean_interval, resampled_weights
    from qdgnn_ase.inference.calculator import QDGNNCalculator
    from qdgnn_ase.inference.domain import ExtrapolationWarning
    from qdgnn_ase.inference.evaluate import (
        Evaluation,
        FrameError,
        Split,
        evaluate,
        frame_errors,
        paired_difference,
    )
    from qdgnn_ase.inference.evaluate_properties import calibration, evaluate_properties
    from qdgnn_ase.inference.explain import (
        Explainer,
        Explanation,
        MaskConfig,
        agreement,
        explain,
    )
    from qdgnn_ase.inference.explain.report import plot_bonds, write_chemiscope
    from qdgnn_ase.inference.predict import Prediction, Predictor, predict
    from qdgnn_ase.inference.provenance import measured
    from qdgnn_ase.inference.simulate import molecular_dynamics, relax
    from qdgnn_ase.nn.compile import CompilationWarning
    from qdgnn_ase.nn.derivatives import energy_forces_stress, hessian
    from qdgnn_ase.nn.model import QDGNN
    from qdgnn_ase.nn.property_model import PropertyConfig, PropertyModel
    from qdgnn_ase.nn.speed import tune_process
    from qdgnn_ase.nn.trunk import QDGNNConfig, quantum_descriptors
    from qdgnn_ase.properties import PROPERTIES, Property
    from qdgnn_ase.quantum.atomic import atomic_features
    from qdgnn_ase.quantum.bands import ElectronicStructure
    from qdgnn_ase.quantum.protocol import (
        Described,
        DescriptorProvider,
        LeakageError,
        Level,
        check_leakage,
        descriptor_provider,
    )
    from qdgnn_ase.quantum.references import composition_matrix, fit_element_energies
    from qdgnn_ase.quantum.solve import tight_binding
    from qdgnn_ase.training.checkpoint import (
        CheckpointError,
        load_model,
        load_property_model,
        save_model,
        save_property_model,
    )
    from qdgnn_ase.training.claim import claim_folder
    from qdgnn_ase.training.config import PropertyTrainConfig, TrainConfig
    from qdgnn_ase.training.fit import fit
    from qdgnn_ase.training.losses import property_loss
    from qdgnn_ase.training.scaler import Scaler

_HOME = {
    "AtomGraph": "graph",
    "CheckpointError": "training.checkpoint",
    "CompilationWarning": "nn.compile",
    "Described": "quantum.protocol",
    "DescriptorProvider": "quantum.protocol",
    "ElectronicStructure": "quantum.bands",
    "Evaluation": "inference.evaluate",
    "Explainer": "inference.explain",
    "Explanation": "inference.explain",
    "ExtrapolationWarning": "inference.domain",
    "FrameError": "inference.evaluate",
    "Labelled": "data.label",
    "LabelledStructure": "data.targets",
    "LeakageError": "quantum.protocol",
    "Level": "quantum.protocol",
    "MaskConfig": "inference.explain",
    "PROPERTIES": "properties",
    "Prediction": "inference.predict",
    "Predictor": "inference.predict",
    "Property": "properties",
    "PropertyConfig": "nn.property_model",
    "PropertyModel": "nn.property_model",
    "PropertyTrainConfig": "training.config",
    "QDGNN": "nn.model",
    "QDGNNCalculator": "inference.calculator",
    "QDGNNConfig": "nn.trunk",
    "Scaler": "training.scaler",
    "Split": "inference.evaluate",
    "TrainConfig": "training.config",
    "check_leakage": "quantum.protocol",
    "calibration": "inference.evaluate_properties",
    "agreement": "inference.explain",
    "as_atoms": "data.materials",
    "atomic_features": "quantum.atomic",
    "claim_folder": "training.claim",
    "collate": "graph",
    "composition_matrix": "quantum.references",
    "descriptor_provider": "quantum.protocol",
    "energy_forces_stress": "nn.derivatives",
    "evaluate": "inference.evaluate",
    "evaluate_properties": "inference.evaluate_properties",
    "explain": "inference.explain",
    "fit": "training.fit",
    "fit_element_energies": "quantum.references",
    "fold_of": "data.splits",
    "frame_errors": "inference.evaluate",
    "from_atoms": "graph",
    "hessian": "nn.derivatives",
    "is_plausible": "data.perturb",
    "label": "data.label",
    "labels": "data.io",
    "load_model": "training.checkpoint",
    "load_property_model": "training.checkpoint",
    "mean_interval": "inference.bootstrap",
    "measured": "inference.provenance",
    "molecular_dynamics": "inference.simulate",
    "ordered_atoms": "data.exports",
    "paired_difference": "inference.evaluate",
    "plot_bonds": "inference.explain.report",
    "predict": "inference.predict",
    "property_loss": "training.losses",
    "quantum_descriptors": "nn.trunk",
    "rattle": "data.perturb",
    "read_columns": "data.targets",
    "read_labelled": "data.targets",
    "read_structures": "data.io",
    "reduced_formula": "data.splits",
    "relax": "inference.simulate",
    "resampled_weights": "inference.bootstrap",
    "run_tasks": "data.tasks",
    "save_model": "training.checkpoint",
    "save_property_model": "training.checkpoint",
    "scale_volume": "data.perturb",
    "site_graph": "graph",
    "size_ratio": "data.perturb",
    "split_indices": "data.splits",
    "strain": "data.perturb",
    "substitute": "data.perturb",
    "swap": "data.perturb",
    "tight_binding": "quantum.solve",
    "tune_process": "nn.speed",
    "vacancy": "data.perturb",
    "write_chemiscope": "inference.explain.report",
}

__all__ = [
    "PROPERTIES",
    "QDGNN",
    "AtomGraph",
    "CheckpointError",
    "CompilationWarning",
    "Described",
    "DescriptorProvider",
    "ElectronicStructure",
    "Evaluation",
    "Explainer",
    "Explanation",
    "ExtrapolationWarning",
    "FrameError",
    "Labelled",
    "LabelledStructure",
    "LeakageError",
    "Level",
    "MaskConfig",
    "Prediction",
    "Predictor",
    "Property",
    "PropertyConfig",
    "PropertyModel",
    "PropertyTrainConfig",
    "QDGNNCalculator",
    "QDGNNConfig",
    "Scaler",
    "Split",
    "TrainConfig",
    "agreement",
    "as_atoms",
    "atomic_features",
    "calibration",
    "check_leakage",
    "claim_folder",
    "collate",
    "composition_matrix",
    "descriptor_provider",
    "energy_forces_stress",
    "evaluate",
    "evaluate_properties",
    "explain",
    "fit",
    "fit_element_energies",
    "fold_of",
    "frame_errors",
    "from_atoms",
    "hessian",
    "is_plausible",
    "label",
    "labels",
    "load_model",
    "load_property_model",
    "mean_interval",
    "measured",
    "molecular_dynamics",
    "ordered_atoms",
    "paired_difference",
    "plot_bonds",
    "predict",
    "property_loss",
    "quantum_descriptors",
    "rattle",
    "read_columns",
    "read_labelled",
    "read_structures",
    "reduced_formula",
    "relax",
    "resampled_weights",
    "run_tasks",
    "save_model",
    "save_property_model",
    "scale_volume",
    "site_graph",
    "size_ratio",
    "split_indices",
    "strain",
    "substitute",
    "swap",
    "tight_binding",
    "tune_process",
    "vacancy",
    "write_chemiscope",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("qdgnn-ase")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
