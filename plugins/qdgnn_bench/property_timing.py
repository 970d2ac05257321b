"""CPU time of a prediction from ase.Atoms, graph included, in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import process_time
from typing import Any

import torch
from ase import Atoms
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase import Predictor, collate
from qdgnn_bench.baselines import BASELINES, element_table
from qdgnn_bench.property_runs import OURS, SINGLE_TASK, Protocol, best_model, single_folder

Call = Callable[[Sequence[Atoms]], Any]
_TIMED = 256
_REPEATS = 3
DEEPCHEM = "CGCNN, DeepChem's featurizer"


def inference(protocol: Protocol, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Model -> ms per structure, ``batch_1`` and ``batch_64``; the least of three rounds.

    The baselines' weights are random: they do not change the time. MEGNet and CGCNN are always
    among the models, CGCNN with our graphs and with those of DeepChem's featurizer.
    """
    structures = protocol.folds["test"].structures[:_TIMED]
    calls = {name: _call(protocol, name) for name in dict.fromkeys([*names, "MEGNet", "CGCNN"])}
    calls[DEEPCHEM] = _deepchem_call(len(protocol.targets))
    times: dict[str, dict[str, list[float]]] = {
        name: {"batch_1": [], "batch_64": []} for name in calls
    }
    for _ in range(_REPEATS):  # turns: a busy machine slows all alike
        for name, call in calls.items():
            times[name]["batch_1"].append(_milliseconds(call, structures, 1))
            times[name]["batch_64"].append(_milliseconds(call, structures, 64))
    return {name: {key: min(rounds) for key, rounds in row.items()} for name, row in times.items()}


def _milliseconds(call: Call, structures: Sequence[Atoms], size: int) -> float:
    started = process_time()
    for start in range(0, len(structures), size):
        call(structures[start : start + size])
    return 1e3 * (process_time() - started) / len(structures)


def _call(protocol: Protocol, name: str) -> Call:
    if name == SINGLE_TASK:
        folders = [single_folder(protocol, target) for target in protocol.targets]
        each = [Predictor(best_model(folder, name)) for folder in folders]
        return lambda structures: [predictor(structures) for predictor in each]
    if name in OURS:
        return Predictor(best_model(protocol.folder, name))
    baseline = BASELINES[name]
    model = baseline.build(len(protocol.targets)).eval()

    def call(structures: Sequence[Atoms]) -> torch.Tensor:
        with torch.no_grad():
            values: torch.Tensor = model(collate([baseline.graph(atoms) for atoms in structures]))
        return values

    return call


def _deepchem_call(n_targets: int) -> Call:
    """CGCNN on the graphs of DeepChem's featurizer, whose constructor needs the network."""
    import dgl
    from deepchem.feat import CGCNNFeaturizer

    featurizer = CGCNNFeaturizer.__new__(CGCNNFeaturizer)
    featurizer.radius, featurizer.max_neighbors, featurizer.step = 8.0, 12, 0.2
    features = element_table().numpy()
    featurizer.atom_features = dict(enumerate(features))
    featurizer.valid_atom_number = set(featurizer.atom_features)
    network: Any = BASELINES["CGCNN"].build(n_targets).eval().network

    def call(structures: Sequence[Atoms]) -> torch.Tensor:
        crystals = [AseAtomsAdaptor.get_structure(atoms) for atoms in structures]
        graphs = [row.to_dgl_graph() for row in featurizer.featurize(crystals)]
        with torch.no_grad():
            values: torch.Tensor = network(dgl.batch(graphs))
        return values

    return call
