"""The result: scores of bonds, what follows for atoms and pairs of elements, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.stats import spearmanr

from qdgnn_ase.inference.explain.bonds import Bonds

Array = NDArray[np.float64]
Method = Literal["integrated", "gradient", "mask", "attention"]
METHODS: tuple[Method, ...] = get_args(Method)
"""Ways to score bonds."""
ATTRIBUTIONS: tuple[Method, ...] = ("integrated", "gradient")
"""Methods whose scores have the unit of the prediction; the others' are shares."""


@dataclass(frozen=True, slots=True)
class PairSummary:
    """Bonds between two elements."""

    pair: str
    n_bonds: int
    shortest: float
    """Å."""
    total: float
    """Sum of the scores."""
    share: float
    """Of the sum of all absolute scores."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Scores of the bonds of one structure for one prediction."""

    atoms: Atoms
    target: str
    method: Method
    unit: str
    """Of value, baseline and attributions: the property's, log10(...) or logit as it is learned."""
    value: float
    """Prediction with all bonds, before any bound of the property is applied."""
    baseline: float
    """Prediction without bonds."""
    bonds: Bonds
    bond_scores: Array
    """(n_bonds,); in ``unit`` for attributions, else dimensionless."""
    in_domain: bool
    """As `Prediction.in_domain`; for the potential whether its training held the elements."""

    @property
    def score_unit(self) -> str:
        """Unit of the scores."""
        return self.unit if self.method in ATTRIBUTIONS else "1"

    @property
    def atom_scores(self) -> Array:
        """Half of the scores of each atom's bonds, (n_atoms,)."""
        return self.bonds.halves(self.bond_scores, len(self.atoms))

    @property
    def gap(self) -> float:
        """Sum of the scores less (value - baseline): 0 for a complete attribution."""
        return float(self.bond_scores.sum()) - (self.value - self.baseline)

    def ranking(self) -> NDArray[np.int64]:
        """Bonds by falling absolute score, (n_bonds,); equal ones as they come."""
        order: NDArray[np.int64] = np.argsort(-_rounded(self.bond_scores), kind="stable")
        return order

    def pair_summaries(self) -> list[PairSummary]:
        """One summary per pair of elements, largest share first."""
        names = np.array(self.bonds.pairs)
        size = np.abs(self.bond_scores)
        rows = [
            PairSummary(
                pair=str(name),
                n_bonds=int(chosen.sum()),
                shortest=float(self.bonds.lengths[chosen].min()),
                total=float(self.bond_scores[chosen].sum()),
                share=float(size[chosen].sum() / (size.sum() or 1.0)),
            )
            for name in np.unique(names)
            for chosen in [names == name]
        ]
        return sorted(rows, key=lambda row: -row.share)

    def to_atoms(self) -> Atoms:
        """Copy of the structure with the scores in ``arrays["<target>_<method>"]``."""
        name = f"{self.target}_{self.method}"
        atoms = self.atoms.copy()
        atoms.set_array(name, self.atom_scores)
        atoms.info |= {f"{self.target}_value": self.value, f"{self.target}_unit": self.unit}
        atoms.info[f"{self.target}_baseline"] = self.baseline
        return atoms


def agreement(explanations: Sequence[Explanation]) -> dict[tuple[str, str], float]:
    """Spearman's rank correlation of the absolute bond scores of each two methods.

    NaN where there are fewer than three bonds or one method tells no bond from another.

    Args:
        explanations: Of one structure, by different methods.

    Raises:
        ValueError: If they have different bonds.
    """
    if len({len(row.bonds) for row in explanations}) > 1:
        raise ValueError(
            "explanations must be of one structure and cutoff, got "
            f"{[len(row.bonds) for row in explanations]} bonds"
        )
    sizes = {row.method: _rounded(row.bond_scores) for row in explanations}
    return {(a, b): _spearman(sizes[a], sizes[b]) for a, b in combinations(sizes, 2)}


def _spearman(a: Array, b: Array) -> float:
    if len(a) < 3 or not np.ptp(a) or not np.ptp(b):
        return float("nan")
    return float(spearmanr(a, b).statistic)


def _rounded(scores: Array) -> Array:
    """Absolute scores without rounding errors, which would rank equivalent bonds."""
    size = np.abs(scores)
    unit = 1e-8 * (size.max(initial=0.0) or 1.0)
    rounded: Array = np.round(size / unit) * unit
    return rounded
