"""Everything that determines a training run, as one JSON document."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from qdgnn_ase.data.splits import SplitBy
from qdgnn_ase.nn.fusion import TERMS, Term
from qdgnn_ase.nn.property_model import PropertyConfig
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.properties import LEARNED, learned_property
from qdgnn_ase.quantum.protocol import LeakageError, Level, check_condition
from qdgnn_ase.training.losses import LossWeights


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What the runs of potentials and property models have in common."""

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
        for name in ("epochs", "learning_rate", "clip", "max_edges", "max_atoms"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be larger than 0, got {getattr(self, name)}")
        for name in ("ema", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.split_by not in ("formula", "frame"):
            raise ValueError(f"split_by must be 'formula' or 'frame', got {self.split_by!r}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Everything that determines the run of a potential."""

    files: tuple[str, ...]
    """Labelled structures, any format ASE reads."""
    model: QDGNNConfig = field(default_factory=QDGNNConfig)
    """Architecture."""
    init: str | None = None
    """Potential to start from, of the same architecture or with fewer quantum descriptors; None
    starts from random weights."""
    loss: LossWeights = field(default_factory=LossWeights)
    """Weights of energy, forces and stress."""
    max_force: float = 50.0
    """eV/Å. Frames with a larger force component are left out of training and validation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.files:
            raise ValueError("files must name at least one file of labelled structures, got none")
        if not self.max_force > 0:
            raise ValueError(f"max_force must be larger than 0, got {self.max_force}")

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


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of structures with labels of properties."""

    file: str
    """File or CIF folder, see `qdgnn_ase.data.targets.read_labelled`."""
    columns: dict[str, str]
    """Property -> column, "log10:COLUMN" where the column is a logarithm."""
    conditions: dict[str, str] = field(default_factory=dict)
    """Condition (a name of your own, such as temperature) -> column."""
    levels: dict[str, str] = field(default_factory=dict)
    """Column -> how it was computed, "CODE/FUNCTIONAL": permits a condition that is the target at
    another level (multi-fidelity), see `qdgnn_ase.check_leakage`."""

    def __post_init__(self) -> None:
        for name in self.columns:
            learned_property(name)
        columns = {*self.columns.values(), *self.conditions.values()}
        if unknown := sorted(set(self.levels) - columns):
            raise ValueError(f"levels must be of columns {sorted(columns)}, got {unknown}")
        for text in self.levels.values():
            Level.parse(text)

    def level(self, column: str) -> Level | None:
        """How a column was computed, where it is told."""
        return Level.parse(self.levels[column]) if column in self.levels else None


@dataclass(frozen=True, kw_only=True)
class PropertyTrainConfig(RunConfig):
    """Everything that determines the run of a property model."""

    sources: tuple[Source, ...]
    """Files and their columns."""
    trunk: QDGNNConfig = field(default_factory=QDGNNConfig)
    """Architecture of the trunk."""
    n_members: int = 8
    """Heads per target."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of a target's loss, 1 where not named; losses are relative to the labels' spread."""
    penalty: float = 0.1
    """Weight of the penalty for values below the bound of a property, such as negative gaps."""
    autoencoder: float = 0.0
    """Weight of the loss of a graph autoencoder, see `qdgnn_ase.training.losses`."""
    bag: float = 0.5
    """Share of the training structures that each member of the heads sees."""
    split_turn: float = 0.0
    """Where the test fold begins, see `qdgnn_ase.fold_of`: k / n for fold k of n."""
    init: str | None = None
    """Potential whose trunk, of the same architecture or with fewer quantum descriptors, this one
    starts from; None starts from random weights."""
    extend: str | None = None
    """Property model that gains the targets as new heads on its frozen trunk; all that it predicts
    already stays as it is. ``trunk`` and ``n_members`` must be its own."""
    condition_terms: tuple[Term, ...] = TERMS
    """How conditions are fused with the structure."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extend and (self.init or self.autoencoder):
            raise ValueError(
                "extend has a trunk, which is frozen: init must be None and autoencoder 0, got "
                f"{self.init} and {self.autoencoder}"
            )
        if not self.sources:
            raise ValueError("sources must name at least one labelled file, got none")
        for name in ("penalty", "autoencoder"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.bag <= 1:
            raise ValueError(f"bag must lie in (0, 1], got {self.bag}")
        if not 0 <= self.split_turn < 1:
            raise ValueError(f"split_turn must lie in [0, 1), got {self.split_turn}")
        if self.split_by == "frame" and self.split_turn:
            raise ValueError(
                f"split_turn must be 0 where split_by is 'frame', got {self.split_turn}"
            )
        for labels, inputs in product(self.sources, repeat=2):
            _check_leakage(labels, inputs)
        if unknown := sorted(set(self.weights) - set(self.targets)):
            raise ValueError(f"weights must be of targets {list(self.targets)}, got {unknown}")

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets of all sources in PROPERTIES' order; band_gap brings metal_probability."""
        named = {name for source in self.sources for name in source.columns}
        if "band_gap" in named:
            named.add("metal_probability")
        return tuple(name for name in LEARNED if name in named)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Conditions of all sources; where a source does not have one, it is absent."""
        return tuple(sorted({name for source in self.sources for name in source.conditions}))

    @property
    def model(self) -> PropertyConfig:
        """Architecture of the whole model."""
        return PropertyConfig(
            targets=self.targets,
            trunk=self.trunk,
            n_members=self.n_members,
            conditions=self.conditions,
            condition_terms=self.condition_terms,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PropertyTrainConfig:
        """Inverse of :meth:`to_dict`; unknown keys raise TypeError."""
        values = dict(values)
        values["sources"] = tuple(Source(**source) for source in values.get("sources", ()))
        values["trunk"] = QDGNNConfig(**values.get("trunk", {}))
        values["condition_terms"] = tuple(values.get("condition_terms", TERMS))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON; :meth:`from_dict` is the inverse."""
        return asdict(self)


def _check_leakage(labels: Source, inputs: Source) -> None:
    """Raise `LeakageError` where a condition of a source gives labels of another away."""
    for target, column in labels.columns.items():
        for name, other in inputs.conditions.items():
            if labels.file == inputs.file and column == other:
                raise LeakageError(
                    f"condition {name} must not come from the labels of {target}, got column "
                    f"{column} for both; choose another column"
                )
            check_condition(target, labels.level(column), name, inputs.level(other))


def parse_config(values: dict[str, Any]) -> TrainConfig | PropertyTrainConfig:
    """Config of a property model where there are "sources", else of a potential."""
    kind = PropertyTrainConfig if "sources" in values else TrainConfig
    return kind.from_dict(values)
