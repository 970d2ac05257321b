"""Checkpoints: one safetensors file whose header holds a JSON document; nothing is unpickled.

The JSON carries format, config, units, training provenance, versions and the sha256 of all of it
and of the tensors, so that an altered weight or an altered config is an error. A file is written
beside its place and moved there in one step: a crash leaves the old file whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.property_model import PropertyConfig, PropertyModel
from qdgnn_ase.nn.radial import SCALE
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.training.scaler import Scaler

FORMAT = 3
"""1: radial basis without its factor `nn.radial.SCALE`; 2: the trunk's weights without the prefix
``trunk.``. `load_model` converts the weights."""
_TRUNK = ("quantum", "radial.", "tight_binding.", "fusion.", "layers.")
_UNITS = {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "eV/Å^3, tension positive"}


class CheckpointError(ValueError):
    """A file that is not a whole, unaltered checkpoint of a known format."""


def save_model(path: str | Path, model: QDGNN, training: Mapping[str, Any] | None = None) -> None:
    """Write a model.

    Args:
        path: File to write, by convention ``*.safetensors``.
        model: Its weights, config and references are stored.
        training: Provenance as JSON values: data, split, seeds, errors, command, licences.
    """
    document = {
        "config": model.config.to_dict(),
        "neighbors": model.neighbors,
        "units": _UNITS,
        "training": dict(training or {}),
        "versions": _versions(),
    }
    save_tensors(path, model.state_dict(), document)


def load_model(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[QDGNN, dict[str, Any]]:
    """Model (float32, in evaluation mode) and the JSON document of a checkpoint.

    Args:
        path: A checkpoint file, or the name of an embedded model ("default").
        device: Where to put the weights.

    Raises:
        FileNotFoundError: If there is no such file or embedded model.
        CheckpointError: If the file is truncated, altered, or of another kind.
    """
    tensors, document = load_tensors(find_model(path))
    if "properties" in document:
        raise CheckpointError(f"{path} must be a potential, got a property model; use `predict`")
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights draw from the caller's numbers
            model = QDGNN(QDGNNConfig(**document["config"]), neighbors=document["neighbors"])
        model.load_state_dict(_converted(tensors, document["format"]))
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} must hold the weights of its config, got: {error}"
        ) from error
    return model.to(device).eval(), document


def save_property_model(
    path: str | Path, model: PropertyModel, scaler: Scaler, training: Mapping[str, Any]
) -> None:
    """Write a property model with the scaler of its labels; arguments as `save_model`."""
    document = {
        "properties": model.config.to_dict(),
        "neighbors": model.neighbors,
        "units": {row.name: row.unit for row in scaler.properties},
        "training": dict(training),
        "versions": _versions(),
    }
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"scaler.{name}": value for name, value in scaler.state_dict().items()}
    save_tensors(path, tensors, document)


def load_property_model(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[PropertyModel, Scaler, dict[str, Any]]:
    """Property model (float32, in evaluation mode), its scaler and the JSON document.

    Args:
        path: A checkpoint file, or the name of an embedded model ("properties").
        device: Where to put the weights.

    Raises:
        FileNotFoundError: If there is no such file or embedded model.
        CheckpointError: If the file is truncated, altered, or no property model.
    """
    tensors, document = load_tensors(find_model(path))
    if "properties" not in document:
        raise CheckpointError(f"{path} must be a property model, got a potential or a state")
    config = PropertyConfig.from_dict(document["properties"])
    scaler = Scaler(config.properties)
    try:
        with torch.random.fork_rng(devices=[]):
            model = PropertyModel(config, neighbors=document["neighbors"])
        for part, module in (("model.", model), ("scaler.", scaler)):
            module.load_state_dict(
                {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)}
            )
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} must hold the weights of its config, got: {error}"
        ) from error
    return model.to(device).eval(), scaler.to(device).eval(), document


def _converted(tensors: dict[str, Tensor], format_: int) -> dict[str, Tensor]:
    """Weights of an earlier format for today's model: same energies."""
    if format_ < 2:
        tensors = {
            name: value / SCALE if name.endswith("pair_radial.weight") else value
            for name, value in tensors.items()
        }
    if format_ < 3:
        tensors = {
            f"trunk.{name}" if name.startswith(_TRUNK) else name: value
            for name, value in tensors.items()
        }
    return tensors


def find_model(name: str | Path) -> Path:
    """Path of a checkpoint file or of an embedded model by name.

    Raises:
        FileNotFoundError: With the names of the embedded models.
    """
    folder = Path(str(files("qdgnn_ase"))) / "pretrained"
    embedded = folder / f"{name}.safetensors"
    for path in (Path(name), embedded):
        if path.is_file():
            return path
    known = sorted(path.stem for path in folder.glob("*.safetensors"))
    raise FileNotFoundError(f"model must be a checkpoint file or one of {known}, got {name!s}")


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]
) -> None:
    """Write tensors and a JSON document to one file, atomically."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps({"format": FORMAT, **document}, sort_keys=True)
    header = {"qdgnn": text, "sha256": _digest(plain, text)}
    write_atomic(Path(path), save(plain, metadata=header))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON document of a file written by :func:`save_tensors`.

    Raises:
        CheckpointError: If the file is truncated, altered, or of another kind.
    """
    try:
        with safe_open(str(path), framework="pt") as handle:
            header = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} must be a safetensors checkpoint, got: {error}; it is truncated or of another "
            "kind (pickled weights are never loaded)"
        ) from error
    if "qdgnn" not in header:
        raise CheckpointError(
            f"{path} must be written by qdgnn_ase, got a safetensors file without its header"
        )
    if _digest(tensors, header["qdgnn"]) != header.get("sha256"):
        raise CheckpointError(f"{path} must match its sha256, got other content: it was altered")
    document: dict[str, Any] = json.loads(header["qdgnn"])
    if document["format"] > FORMAT:
        raise CheckpointError(
            f"{path} must have format <= {FORMAT}, got {document['format']}; upgrade qdgnn_ase"
        )
    return tensors, document


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file beside ``path`` and move it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    names = ("qdgnn-ase", "torch", "ase", "numpy", "pymatgen")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
