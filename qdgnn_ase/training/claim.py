"""Whose a folder is: what goes on where it was killed must not mix with another run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qdgnn_ase.training.checkpoint import write_atomic
from qdgnn_ase.training.config import PropertyTrainConfig, TrainConfig, parse_config


def claim_folder(file: str | Path, plan: Mapping[str, Any]) -> None:
    """Write the plan of a study that can be resumed, or compare with the one that is there.

    Args:
        file: JSON file in the folder of the study.
        plan: All that its results depend on, as JSON takes it.

    Raises:
        ValueError: If the folder holds another study.
    """
    path = Path(file)
    mine = json.loads(json.dumps(plan))
    if not path.is_file():
        write_atomic(path, json.dumps(mine, indent=1).encode())
    elif (found := json.loads(path.read_text())) != mine:
        names = [name for name in {**mine, **found} if mine.get(name) != found.get(name)]
        told = "; ".join(f"{name}: {found.get(name)}, not {mine.get(name)}" for name in names)
        raise ValueError(
            f"{path.parent} must hold this study, got another one in {path.name} ({told}); choose "
            "another folder"
        )


def check_claim(folder: Path, config: TrainConfig | PropertyTrainConfig) -> None:
    """Refuse the folder of another run; keys that the config gained since have their defaults."""
    path = folder / "config.json"
    if not path.is_file():
        return
    try:
        same = parse_config(json.loads(path.read_text())).to_dict() == config.to_dict()
    except TypeError:  # keys of a newer version
        same = False
    if not same:
        raise ValueError(
            f"{folder} must hold a run of this config, got another one in {path.name}; "
            "choose another folder, or delete this one"
        )
