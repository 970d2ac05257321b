"""Labels <-> what a property model learns: log10, a linear part of the composition, mean and width.

y' = (t(y) - sum_k x_k c_k - m) / s with t = identity or log10, x_k the atomic fraction of element k
(for properties that are means over atoms, else c = 0), m and s mean and mean absolute deviation.
Probabilities are learned as logits and not scaled. Everything is fitted on the training fold only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qdgnn_ase.graph import AtomGraph
from qdgnn_ase.nn.segment import segment_sum
from qdgnn_ase.properties import Property, learned_property
from qdgnn_ase.quantum.atomic import N_ELEMENTS
from qdgnn_ase.quantum.references import fit_element_energies

Array = NDArray[np.float64]
ONE_SIGMA = 0.683
"""Share of a normal distribution within one standard deviation."""


class Scaler(nn.Module):
    """Linear map between labels and network, one row per target; state is part of a checkpoint.

    Args:
        targets: Names of learned properties, or rows of one's own.
    """

    mean: Tensor
    width: Tensor
    elements: Tensor
    calibration: Tensor

    def __init__(self, targets: Sequence[str | Property]) -> None:
        super().__init__()
        n = len(targets)
        self.properties = [
            row if isinstance(row, Property) else learned_property(row) for row in targets
        ]
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("width", torch.ones(n))
        self.register_buffer("elements", torch.zeros(n, N_ELEMENTS + 1))
        self.register_buffer("calibration", torch.ones(n))

    def fit(self, composition: Array, labels: Array) -> None:
        """Take mean, width and composition from training labels.

        Args:
            composition: (n_structures, 95), atoms of each element.
            labels: (n_structures, n_targets) in the properties' units, NaN = missing.

        Raises:
            ValueError: If a target has no label, or one that its scale does not allow.
        """
        for index, (row, column) in enumerate(zip(self.properties, labels.T, strict=True)):
            known = np.isfinite(column)
            if not known.any():
                raise ValueError(
                    f"the train fold must hold at least one label of {row.name}, got none"
                )
            values = transformed(row, column[known])
            if row.scale == "probability":
                continue
            counts = composition[known]
            n_atoms = counts.sum(axis=1)
            if row.pooling == "atoms":
                references = fit_element_energies(counts, values * n_atoms)
                self.elements[index] = torch.as_tensor(references)
                values = values - counts @ references / n_atoms
            self.mean[index] = float(values.mean())
            self.width[index] = max(float(np.abs(values - values.mean()).mean()), 1e-6)

    def calibrate(self, values: Tensor, labels: Tensor) -> None:
        """Set ``calibration``: the factor with which 68.3 % of the errors are within the spread.

        Args:
            values: (n_graphs, n_targets, n_members), scaled, of structures not trained on.
            labels: (n_graphs, n_targets), scaled; NaN = missing.
        """
        for k, row in enumerate(self.properties):
            present = torch.isfinite(labels[:, k])
            if row.scale == "probability" or not bool(present.any()):
                continue
            error = (center(values[present, k], row) - labels[present, k]).abs()
            spread = values[present, k].std(dim=1).clamp(min=1e-9)
            self.calibration[k] = torch.quantile(error / spread, ONE_SIGMA)

    def scaled(self, labels: Tensor, graph: AtomGraph) -> Tensor:
        """Labels (n_graphs, n_targets) -> targets of the network; NaN stays NaN."""
        columns = [
            torch.log10(column) if row.scale == "log10" else column
            for row, column in zip(self.properties, labels.unbind(1), strict=True)
        ]
        return (torch.stack(columns, dim=1) - self._offset(graph)) / self.width

    def transformed_values(self, values: Tensor, graph: AtomGraph) -> Tensor:
        """Network's values (n_graphs, n_targets, n_members) -> linear, log10 or logit values."""
        return values * self.width[:, None] + self._offset(graph)[:, :, None]

    def predictions(self, values: Tensor, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Members' center and calibrated spread in the properties' units, float64 on the CPU.

        Args:
            values: (n_graphs, n_targets, n_members) of the network.
            graph: The batch.

        Returns:
            Values within the properties' bounds and their standard deviations, both (n_graphs,
            n_targets). A probability is the mean over the members' probabilities.
        """
        members = self.transformed_values(values, graph).cpu().double()
        columns = [
            _column(row, members[:, k], float(self.calibration[k]))
            for k, row in enumerate(self.properties)
        ]
        value, std = (torch.stack(part, dim=1) for part in zip(*columns, strict=True))
        return value, std

    def _offset(self, graph: AtomGraph) -> Tensor:
        """(n_graphs, n_targets)."""
        if graph.occupancies is None:
            sums = segment_sum(self.elements.T[graph.numbers], graph.batch, graph.n_graphs)
            return sums / graph.n_atoms[:, None] + self.mean
        shares = graph.occupancies[:, : N_ELEMENTS + 1].to(self.elements.dtype)
        counts = segment_sum(shares, graph.batch, graph.n_graphs)
        return counts @ self.elements.T / counts.sum(dim=1, keepdim=True) + self.mean


def _column(row: Property, members: Tensor, calibration: float) -> tuple[Tensor, Tensor]:
    """From members (n_graphs, n_members), linear, log10 or logits."""
    if row.scale == "probability":
        members, calibration = torch.sigmoid(members), 1.0
    value, std = center(members, row), members.std(dim=1) * calibration
    if row.scale == "log10":
        value = 10.0**value
        std = std * value * np.log(10.0)
    return value.clamp(min=row.lower), std


def center(members: Tensor, row: Property) -> Tensor:
    """What the members say together, (n, n_members) -> (n,).

    The mean of the middle half, near the median that they learn: a median itself is not smooth,
    which explanations need. Members of a probability learn the same: the mean of all.
    """
    outer = 0 if row.scale == "probability" else members.shape[1] // 4
    return members[:, outer : members.shape[1] - outer].mean(dim=1)


def transformed(row: Property, values: Array) -> Array:
    """Labels on the scale on which they are learned.

    Raises:
        ValueError: If a label is not positive where a logarithm is taken, no probability, or below
            the property's bound.
    """
    if row.scale == "log10" and not (values > 0).all():
        raise ValueError(
            f"{row.name} must be larger than 0 {row.unit} (its logarithm is learned), got "
            f"{values.min()}; is the column a logarithm already? Give it in {row.unit}"
        )
    if row.scale == "probability" and not np.isin(values, (0.0, 1.0)).all():
        raise ValueError(f"labels of {row.name} must be 0 or 1, got {values.min()}..{values.max()}")
    if (values < row.lower).any():
        raise ValueError(
            f"{row.name} must be at least {row.lower} {row.unit}, got {values.min()}; "
            "check unit and sign of the column"
        )
    return np.log10(values) if row.scale == "log10" else values
