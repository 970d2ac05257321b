"""Descriptor provider ``qdgnn``: what a property model predicts, as inputs for another target."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms

from qdgnn_ase.inference.predict import Predictor
from qdgnn_ase.properties import PROPERTIES
from qdgnn_ase.quantum.protocol import Described, Level


class PredictedDescriptors:
    """Predictions of a property model, one value per structure.

    Args:
        model: "properties" (the embedded weights) or the path of a checkpoint.
        functional: Of the labels it was trained on.
    """

    name = "qdgnn"
    gradient: Literal["constant", "exact"] = "constant"

    def __init__(self, model: str | Path = "properties", functional: str = "PBE") -> None:
        self.predictor = Predictor(model)
        self.level = Level(self.name, functional)
        self.units = {name: PROPERTIES[name].unit for name in self.predictor.targets}

    def __call__(self, atoms: Atoms) -> Described:
        """Descriptors of a structure; none is missing."""
        found = self.predictor([atoms])[0]
        outside = sorted(name for name in self.units if not found[name].in_domain)
        return Described(
            values={name: np.array(found[name].value) for name in self.units},
            mask=dict.fromkeys(self.units, True),
            level=self.level,
            provenance={"model": self.predictor.document["training"], "out_of_domain": outside},
        )
