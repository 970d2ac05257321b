"""Which bonds and atoms carry a prediction: `explain`, `Explainer` and what they return."""

from __future__ import annotations

from qdgnn_ase.inference.explain.attribution import MaskConfig
from qdgnn_ase.inference.explain.explainer import Explainer, explain
from qdgnn_ase.inference.explain.explanation import METHODS, Explanation, PairSummary, agreement

__all__ = [
    "METHODS",
    "Explainer",
    "Explanation",
    "MaskConfig",
    "PairSummary",
    "agreement",
    "explain",
]
