"""MolNet-style loading of local files with structures and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from deepchem.data import Dataset, DiskDataset
from deepchem.feat import Featurizer
from deepchem.molnet.load_function.molnet_loader import TransformerGenerator, _MolnetLoader
from deepchem.splits import Splitter
from deepchem.trans import Transformer
from pymatgen.io.ase import AseAtomsAdaptor

from qdgnn_ase import read_columns, reduced_formula
from qdgnn_deepchem.featurizer import QDGNNFeaturizer
from qdgnn_deepchem.splitter import FormulaSplitter

Loaded = tuple[list[str], tuple[Dataset, ...], list[Transformer]]
Row = tuple[Atoms, list[float], str]
"""Structure, label of each task (NaN = missing), file and row."""


def load_qdgnn_dataset(
    path: str | Path,
    tasks: Sequence[str] | Mapping[str, str],
    featurizer: Featurizer | None = None,
    splitter: Splitter | str | None = "formula",
    transformers: Sequence[TransformerGenerator | str] = (),
    reload: bool = True,
    *,
    save_dir: str | Path | None = None,
    shard_size: int = 1024,
) -> Loaded:
    """Load a local file as DeepChem's MolNet loads its own.

    Missing labels are 0 with weight 0. Ids are reduced formulas.

    Args:
        path: JSON lines, extxyz, an ASE database, or a CIF folder with ``id_prop.csv``; see
            `qdgnn_ase.read_columns`.
        tasks: Columns to learn, or task -> column (``log10:NAME`` for a column of logarithms).
        featurizer: `QDGNNFeaturizer()` if not given. DeepChem's get pymatgen Structures.
        splitter: "formula", a name of MolNet or a Splitter; None for one data set.
        transformers: Names of MolNet ("normalization") or generators, fitted on the training set.
        reload: Keep the featurized sets in ``save_dir`` and take them from there the next time;
            another content, featurizer, splitter or task is another set.
        save_dir: DeepChem's data folder if not given.
        shard_size: Structures featurized at a time.

    Returns:
        Tasks, data sets (training, validation, test; or all) and transformers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, a label no number, or a structure cannot be featurized;
            the message tells which.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"labelled file must exist, got {path}")
    columns = dict(tasks) if isinstance(tasks, Mapping) else {name: name for name in tasks}
    loader = _LocalLoader(
        featurizer or QDGNNFeaturizer(),
        FormulaSplitter() if splitter == "formula" else splitter,
        list(transformers),
        list(columns),
        None,
        str(save_dir) if save_dir else None,
        path=path,
        columns=columns,
        shard_size=shard_size,
    )
    loaded: Loaded = loader.load_dataset(f"{path.name}-{_digest(path, columns)}", reload)
    return loaded


class _LocalLoader(_MolnetLoader):  # type: ignore[misc]  # DeepChem has no types
    def create_dataset(self) -> DiskDataset:
        rows = read_rows(self.args["path"], self.args["columns"])
        return DiskDataset.create_dataset(
            _shards(rows, self.featurizer, self.args["shard_size"]), tasks=self.tasks
        )


def read_rows(path: Path, columns: Mapping[str, str]) -> list[Row]:
    """Structures with the labels of any columns, whatever the tasks are called."""
    return [
        (row.atoms, [row.labels[name] for name in columns], row.name)
        for row in read_columns(path, columns)
    ]


def _shards(rows: list[Row], featurizer: Featurizer, size: int) -> Iterator[tuple[Any, ...]]:
    """X, y, w and ids of so many structures at a time."""
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        features = np.empty(len(some), dtype=object)
        features[:] = [_features(featurizer, atoms, place) for atoms, _, place in some]
        labels = np.array([values for _, values, _ in some])
        known = np.isfinite(labels)
        ids = np.array([reduced_formula(atoms) for atoms, _, _ in some], dtype=object)
        yield features, np.where(known, labels, 0.0), known.astype(np.float64), ids


def _features(featurizer: Featurizer, atoms: Atoms, place: str) -> Any:
    try:
        if isinstance(featurizer, QDGNNFeaturizer):
            return featurizer.graph(atoms)
        (features,) = featurizer.featurize([AseAtomsAdaptor.get_structure(atoms)])
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    if isinstance(features, np.ndarray) and features.size == 0:  # DeepChem's way to say no
        raise ValueError(f"{place}: {featurizer} could not featurize {atoms.symbols}")
    return features


def _digest(path: Path, columns: Mapping[str, str]) -> str:
    """Of the content and of what is asked of it, 12 hexadecimal digits."""
    digest = hashlib.sha256(repr(sorted(columns.items())).encode())
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]
