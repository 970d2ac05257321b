"""Everything that determines a training run, as one JSON document."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from qdgnn_ase.data.splits import SplitBy
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.training.losses import LossWeights


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines a run."""

    files: tuple[str, ...]
    """Labelled structures, any format ASE reads."""
    model: QDGNNConfig = field(default_factory=QDGNNConfig)
    """Architecture."""
    init: str | None = None
    """Checkpoint to start from, of the same architecture; None starts from random weights."""
    loss: LossWeights = field(default_factory=LossWeights)
    """Weights of energy, forces and stress."""
    epochs: int = 30
    """Passes over the training fold."""
    learning_rate: float = 2e-3
    """Peak of the schedule: linear warm-up, then cosine decay to 1 % of it."""
    warmup: float = 0.05
    """Share of the steps spent in warm-up."""
    weight_decay: float = 1e-5
    """AdamW's decoupled weight decay."""
    clip: float = 10.0
    """Largest norm of the gradient."""
    ema: float = 0.995
    """Decay of the exponential moving average of the weights."""
    max_edges: int = 40_000
    """Edges per batch."""
    max_atoms: int = 120
    """Larger frames are left out."""
    max_force: float = 50.0
    """eV/Å. Frames with a larger force component are left out of training and validation."""
    val: float = 0.05
    """Share of the formulas (or frames) for validation."""
    test: float = 0.10
    """Share of the formulas (or frames) that no step of training sees."""
    split_seed: int = 0
    """Seed of the grouped split."""
    split_by: SplitBy = "formula"
    """Split by "formula", or by "frame" for files of one material: the shares are then blocks of
    the frames of each formula in their order."""
    seed: int = 0
    """Seed of the weights and of the order of the data."""
    compiled: bool = False
    """Compile the training step: about 3 times as fast after a minute; needs a C++ compiler."""
    patience: int = 1_000
    """Epochs without a better validation loss before the run stops."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("files must name at least one file of labelled structures, got none")
        for name in ("epochs", "learning_rate", "clip", "max_edges", "max_atoms", "max_force"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be larger than 0, got {getattr(self, name)}")
        for name in ("ema", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.split_by not in ("formula", "frame"):
            raise ValueError(f"split_by must be 'formula' or 'frame', got {self.split_by!r}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Inverse of ``dataclasses.asdict``; unknown keys raise TypeError."""
        values = dict(values)
        files = values.get("files", ())
        values["files"] = (files,) if isinstance(files, str) else tuple(files)
        values["model"] = QDGNNConfig(**values.get("model", {}))
        values["loss"] = LossWeights(**values.get("loss", {}))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON; :meth:`from_dict` is the inverse."""
        return asdict(self) | {"files": [str(name) for name in self.files]}
