"""The core's property model and its scaler as one module, with the outputs that DeepChem wants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qdgnn_ase import AtomGraph, PropertyModel, Scaler


class Network(nn.Module):
    """Graphs -> predictions in the labels' units, and what loss and uncertainty need.

    Args:
        core: Property model.
        classes: Whether predictions are the probabilities of two classes.
    """

    def __init__(self, core: PropertyModel, classes: bool) -> None:
        super().__init__()
        self.core = core
        self.scaler = Scaler(core.config.properties)
        self.scaler.calibration.fill_(torch.nan)  # until errors are known
        self.classes = classes
        self.has_pretrained_trunk = False

    def forward(self, graph: AtomGraph) -> list[Tensor]:
        """Outputs of a batch, of DeepChem's types prediction, variance, loss and embedding.

        Returns:
            Prediction and variance (n_graphs, n_tasks), or (n_graphs, n_tasks, 2) for two classes
            and (n_graphs, 2) for one task of them; scaled members (n_graphs, n_tasks, n_members);
            embedding (n_graphs, hidden).
        """
        output = self.core(graph)
        value, std = self.scaler.predictions(output["values"].detach(), graph)
        if self.classes:
            value, std = torch.stack([1 - value, value], dim=2), torch.stack([std, std], dim=2)
            if value.shape[1] == 1:
                value, std = value[:, 0], std[:, 0]
        return [value, std.square(), output["values"], output["embedding"]]

    def take(self, core: PropertyModel, scaler: Scaler) -> None:
        """Take over all weights and the scaler of a model of the same architecture.

        Raises:
            ValueError: If tasks or heads differ, or the trunk.
        """
        mine, other = self.core.config, core.config
        source = {row.name: row for row in other.properties}
        if missing := [row.name for row in mine.properties if source.get(row.name) != row]:
            raise ValueError(
                f"tasks must be of the pretrained {[*source]} (the same rows) to take their heads, "
                f"got {missing}; use include_top=False for other tasks"
            )
        if mine.n_members != other.n_members:
            raise ValueError(f"n_members must be {other.n_members}, got {mine.n_members}")
        self.take_trunk(core)
        for name in ("counts", "center", "whitening", "limit"):
            getattr(self.core, name).copy_(getattr(core, name))
        for name in mine.targets:
            self.core.heads[name].load_state_dict(core.heads[name].state_dict())
        rows = [list(other.targets).index(name) for name in mine.targets]
        self.scaler.load_state_dict({k: v[rows] for k, v in scaler.state_dict().items()})

    def take_trunk(self, core: PropertyModel) -> None:
        """Take over the weights below the heads.

        Raises:
            ValueError: If the trunk is of another architecture.
        """
        if self.core.config.trunk != core.config.trunk:
            raise ValueError(
                f"trunk must be that of the pretrained model, {core.config.trunk}, got "
                f"{self.core.config.trunk}"
            )
        self.core.trunk.load_state_dict(core.trunk.state_dict())
        self.core.norm.load_state_dict(core.norm.state_dict())
        self.core.set_neighbors(core.neighbors)
        self.has_pretrained_trunk = True

    def get_extra_state(self) -> dict[str, Any]:
        """What `state_dict` holds beside tensors."""
        return {"neighbors": self.core.neighbors, "config": self.core.config.to_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_extra_state` gave.

        Raises:
            ValueError: If the weights are of another architecture.
        """
        config = self.core.config.to_dict()
        if state["config"] != config:
            raise ValueError(
                f"checkpoint must be of this model's tasks and architecture {config}, got "
                f"{state['config']}"
            )
        self.core.set_neighbors(state["neighbors"])
