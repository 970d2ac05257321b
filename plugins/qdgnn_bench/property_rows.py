"""Rows on which all property models meet: one file, one split by formula, every label known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from qdgnn_ase import PROPERTIES, fold_of, read_labelled, reduced_formula

Array = NDArray[np.float64]
VAL = TEST = 0.1
"""Shares of the formulas."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Structures of one fold with labels in the properties' units."""

    structures: list[Atoms]
    labels: Array
    """(n_structures, n_targets)."""

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of several in their order."""
        structures = [atoms for part in parts for atoms in part.structures]
        return cls(structures, np.concatenate([part.labels for part in parts]))

    def first(self, n: int) -> Rows:
        """The first ``n`` rows, which are in random order."""
        return Rows(self.structures[:n], self.labels[:n])


def select(
    path: str | Path,
    columns: Mapping[str, str],
    *,
    train: int,
    max_atoms: int,
    test: float = TEST,
    turn: float = 0.0,
    whole_test: bool = False,
) -> dict[str, Rows]:
    """Folds "train", "val" and "test", each in random order.

    Args:
        path: File of `qdgnn_ase.read_labelled`.
        columns: Property -> column.
        train: Rows for training at most; an eighth of that for validation and for the test.
        max_atoms: Larger structures are left out.
        test: Share of the formulas for the test.
        turn: Where the test's share begins, see `qdgnn_ase.fold_of`.
        whole_test: Keep all rows of the test, as cross-validation must.

    Raises:
        ValueError: If a fold is empty.
    """
    folds: dict[str, list[tuple[Atoms, list[float]]]] = {"train": [], "val": [], "test": []}
    rows = read_labelled(path, columns)
    for index in np.random.default_rng(0).permutation(len(rows)):
        row = rows[index]
        values = [row.labels[name] for name in columns]
        if len(row.atoms) <= max_atoms and np.isfinite(values).all():
            fold = fold_of(reduced_formula(row.atoms), val=VAL, test=test, turn=turn)
            folds[fold].append((row.atoms, values))
    if empty := [name for name, found in folds.items() if not found]:
        raise ValueError(
            f"{path} must hold rows of every fold with all labels and at most {max_atoms} atoms, "
            f"got none for {empty}"
        )
    sizes = {"train": train, "val": train // 8, "test": len(rows) if whole_test else train // 8}
    return {
        name: Rows([atoms for atoms, _ in found], np.array([values for _, values in found])).first(
            sizes[name]
        )
        for name, found in folds.items()
    }


def write_rows(path: Path, rows: Sequence[Rows], targets: Sequence[str]) -> None:
    """JSON lines for `qdgnn_ase.fit`, a column for each target."""
    lines = [
        json.dumps(_crystal(atoms) | dict(zip(targets, values.tolist(), strict=True)))
        for part in rows
        for atoms, values in zip(part.structures, part.labels, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _crystal(atoms: Atoms) -> dict[str, Any]:
    return {
        "lattice": atoms.cell.array.tolist(),
        "species": list(atoms.symbols),
        "frac_coords": atoms.get_scaled_positions().tolist(),
    }


def compared(targets: Sequence[str], values: Array) -> Array:
    """Values (n, n_targets) in the properties' units -> log10 of them where that is learned."""
    logs = np.array([PROPERTIES[name].scale == "log10" for name in targets])
    return np.where(logs, np.log10(np.where(logs, values, 1.0)), values)
