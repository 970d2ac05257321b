"""DeepChem splitter by reduced formula, with the folds of `qdgnn_ase.fold_of`."""

from __future__ import annotations

from typing import Any

import numpy as np
from deepchem.data import Dataset
from deepchem.splits import Splitter
from pymatgen.core import Composition

from qdgnn_ase import fold_of
from qdgnn_deepchem.crystal_graph import CrystalGraph

_BATCH = 1024


class FormulaSplitter(Splitter):  # type: ignore[misc]  # DeepChem has no types
    """No composition is in two folds; the fold of a formula depends on it and the seed alone.

    Formulas are those of the data set's graphs; where it holds other features, its ids must be
    formulas, as those of `load_qdgnn_dataset` are.
    """

    def split(
        self,
        dataset: Dataset,
        frac_train: float = 0.8,
        frac_valid: float = 0.1,
        frac_test: float = 0.1,
        seed: int | None = None,
        log_every_n: int | None = None,
    ) -> tuple[Any, Any, Any]:
        """Indices of training, validation and test.

        Args:
            dataset: Data set to split.
            frac_train: Share of the formulas for training, larger than 0.
            frac_valid: Share for validation.
            frac_test: Share for the test.
            seed: Another seed is another split; None is 0.
            log_every_n: Not read; DeepChem's splitters have it.

        Raises:
            ValueError: If the shares do not add up to 1, or the data set has no formulas.
        """
        if not np.isclose(frac_train + frac_valid + frac_test, 1.0):
            raise ValueError(
                f"shares must add up to 1, got {frac_train} + {frac_valid} + {frac_test}"
            )
        shares = {"val": frac_valid, "test": frac_test, "seed": seed or 0}
        folds = np.array([fold_of(formula, **shares) for formula in formulas(dataset)])  # type: ignore[arg-type]
        return tuple(np.flatnonzero(folds == name) for name in ("train", "val", "test"))  # type: ignore[return-value]

    def k_fold_split(
        self,
        dataset: Dataset,
        k: int,
        directories: list[str] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> list[tuple[Dataset, Dataset]]:
        """Pairs of training and validation data; each structure is in one validation set.

        Args:
            dataset: Data set to split.
            k: Folds, at least 2.
            directories: 2 k folders for the parts of a `DiskDataset`, training and validation in
                turn.
            seed: Another seed is another split; None is 0.
            **kwargs: Of DeepChem's signature, not read.

        Raises:
            ValueError: If k or the number of folders is wrong.
        """
        if k < 2 or (directories is not None and len(directories) != 2 * k):
            raise ValueError(f"k must be at least 2 with 2 k directories, got {k}, {directories}")
        places = [directories[2 * i : 2 * i + 2] if directories else [None] * 2 for i in range(k)]
        fold = np.array([k_fold_of(formula, k, seed or 0) for formula in formulas(dataset)])
        return [
            (
                dataset.select(np.flatnonzero(fold != i), select_dir=train),
                dataset.select(np.flatnonzero(fold == i), select_dir=valid),
            )
            for i, (train, valid) in enumerate(places)
        ]


def formulas(dataset: Dataset) -> list[str]:
    """Reduced formula of each structure of a data set.

    Raises:
        ValueError: If features and ids tell none.
    """
    return [
        _formula(x, name)
        for features, _, _, ids in dataset.iterbatches(
            batch_size=_BATCH, deterministic=True, pad_batches=False
        )
        for x, name in zip(features, ids, strict=True)
    ]


def _formula(features: Any, name: Any) -> str:
    if isinstance(features, CrystalGraph):
        return features.formula
    try:
        return str(Composition(str(name)).reduced_formula)
    except ValueError as error:
        raise ValueError(
            f"data set must hold graphs of QDGNNFeaturizer or have formulas for ids, got features "
            f"{type(features).__name__} with id {name!r}"
        ) from error


def k_fold_of(formula: str, k: int, seed: int) -> int:
    """Which of k equal stretches of the formulas' hashes holds this one."""
    return sum(fold_of(formula, val=0.0, test=i / k, seed=seed) != "test" for i in range(1, k))
