"""Checkpoints: exact, checked, never unpickled, written atomically."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from qdgnn_ase.nn.model import QDGNN
from qdgnn_ase.nn.trunk import QDGNNConfig
from qdgnn_ase.training import checkpoint
from qdgnn_ase.training.checkpoint import (
    FORMAT,
    CheckpointError,
    find_model,
    load_model,
    load_property_model,
    load_tensors,
    save_model,
    save_tensors,
    write_atomic,
)

TINY = QDGNNConfig(cutoff=4.0, hidden=8, n_layers=2, n_vectors=2, n_radial=4, n_pair=4, n_heads=2)


@pytest.fixture
def model() -> QDGNN:
    """Random weights and non-trivial buffers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = QDGNN(TINY, neighbors=17.25)
        model.element_energies.copy_(torch.randn(95, dtype=torch.float64))
    model.energy_scale.fill_(0.3)
    model.counts[29] = 12345678901
    return model


@pytest.fixture
def path(tmp_path: Path, model: QDGNN) -> Path:
    save_model(tmp_path / "model.safetensors", model, {"data": "a file", "seed": 3})
    return tmp_path / "model.safetensors"


def refused(path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


@pytest.mark.parametrize("quantum", ["t0", "none", "permuted"])
def test_round_trip_is_bitwise(tmp_path: Path, quantum: Any) -> None:
    config = QDGNNConfig(**TINY.to_dict() | {"quantum": quantum})
    saved = QDGNN(config, neighbors=17.25)
    save_model(tmp_path / "a.safetensors", saved)
    loaded, _ = load_model(tmp_path / "a.safetensors")
    assert loaded.config == config
    assert loaded.neighbors == 17.25
    assert list(loaded.state_dict()) == list(saved.state_dict())
    for name, value in saved.state_dict().items():
        other = loaded.state_dict()[name]
        assert other.dtype == value.dtype, name
        assert torch.equal(other.nan_to_num(7.0), value.nan_to_num(7.0)), name  # row 0 of quantum


def test_buffers_survive(path: Path, model: QDGNN) -> None:
    loaded, _ = load_model(path)
    assert torch.equal(loaded.element_energies, model.element_energies)
    assert loaded.element_energies.dtype == torch.float64
    assert loaded.counts[29] == 12345678901


def test_loaded_model_is_in_evaluation_mode(path: Path) -> None:
    assert not load_model(path)[0].training


def test_document(path: Path) -> None:
    document = load_model(path)[1]
    assert document["format"] == FORMAT
    assert document["config"] == TINY.to_dict()
    assert document["training"] == {"data": "a file", "seed": 3}
    assert document["units"]["forces"] == "eV/Å"
    assert {"python", "torch", "qdgnn-ase"} <= set(document["versions"])


def test_error_is_a_value_error() -> None:
    assert issubclass(CheckpointError, ValueError)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, r"model\.safetensors must be a safetensors checkpoint, got")


def test_longer_than_it_was(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")
    refused(path, "must be a safetensors checkpoint")


def header_size(content: bytes) -> int:
    return 8 + struct.unpack("<Q", content[:8])[0]


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.99999])
def test_flipped_bit_in_the_weights(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    start = header_size(content)
    content[start + int(place * (len(content) - start))] ^= 0b100
    path.write_bytes(content)
    refused(path, r"must match its sha256, got other content: it was altered")


@pytest.mark.parametrize("text", [b"cutoff", b"element_energies", b"F32", b"sha256"])
def test_flipped_bit_in_the_header(path: Path, text: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(text) + 2] ^= 0b1
    path.write_bytes(content)
    refused(path, "must")


def test_every_byte_of_the_header_counts(path: Path) -> None:
    content = path.read_bytes()
    rest = range(0, header_size(content), 97)
    for place in rest:
        altered = bytearray(content)
        altered[place] ^= 0b10
        path.write_bytes(altered)
        refused(path, "must")


def test_altered_config_is_refused(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(rb"\"cutoff\": 4.0") == 1
    path.write_bytes(content.replace(rb"\"cutoff\": 4.0", rb"\"cutoff\": 4.5"))
    refused(path, "must match its sha256")


def test_plain_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    refused(path, "must be written by qdgnn_ase, got a safetensors file without its header")


def test_newer_format(path: Path, model: QDGNN, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", FORMAT + 1)
        save_model(path, model)
    refused(path, f"must have format <= {FORMAT}, got {FORMAT + 1}; upgrade qdgnn_ase")


def test_other_document(path: Path, model: QDGNN) -> None:
    save_tensors(path, model.state_dict(), {"history": []})
    refused(path, "must hold the weights of its config")


def test_weights_of_another_config(path: Path, model: QDGNN) -> None:
    document = {"config": TINY.to_dict() | {"hidden": 16}, "neighbors": 3.0}
    save_tensors(path, model.state_dict(), document)
    refused(path, "must hold the weights of its config")


def test_unknown_config_key(path: Path, model: QDGNN) -> None:
    document = {"config": TINY.to_dict() | {"new": 1}, "neighbors": 3.0}
    save_tensors(path, model.state_dict(), document)
    refused(path, "must hold the weights of its config")


def test_torch_pickle(tmp_path: Path, model: QDGNN) -> None:
    path = tmp_path / "model.safetensors"
    torch.save(model.state_dict(), path)
    refused(path, "pickled weights are never loaded")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickled_code_is_not_executed(tmp_path: Path, kind: str) -> None:
    target, path = tmp_path / "executed", tmp_path / "model.safetensors"
    buffer = io.BytesIO()
    (pickle.dump if kind == "pickle" else torch.save)(Bomb(target), buffer)
    pickle.loads(pickle.dumps(Bomb(target)))  # noqa: S301  the bomb works
    assert target.exists()
    target.unlink()
    path.write_bytes(buffer.getvalue())
    refused(path, "must be a safetensors checkpoint")
    assert not target.exists()


@pytest.mark.parametrize("name", ["no such model", "no/such/file.safetensors", ""])
def test_missing_model_names_the_embedded_ones(name: str) -> None:
    message = r"model must be a checkpoint file or one of \[.*'default'.*\], got"
    with pytest.raises(FileNotFoundError, match=message):
        load_model(name)


def test_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="model must be a checkpoint file"):
        load_model(tmp_path)


def test_embedded_models_by_name() -> None:
    assert find_model("default").name == "default.safetensors"
    assert load_model("default")[1]["format"] <= FORMAT
    assert load_property_model("properties")[1].properties


@pytest.mark.parametrize("content", [b"", b"[]", b"\x08" + b"\0" * 7 + b'{"a": 1}', b"\xff" * 64])
def test_nonsense(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(tmp_path / "a.safetensors", "must be a safetensors checkpoint")


def test_tensors_and_document_round_trip(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6).reshape(2, 3).t(), "a": torch.tensor(1.5), "c": torch.ones(0)}
    save_tensors(tmp_path / "a.safetensors", tensors, {"text": "Å", "rows": [1.0, 1e-300]})
    loaded, document = load_tensors(tmp_path / "a.safetensors")
    assert set(loaded) == set(tensors)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert document == {"format": FORMAT, "text": "Å", "rows": [1.0, 1e-300]}


def broken_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_full_disk_keeps_the_old_file(
    path: Path, model: QDGNN, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = path.read_bytes()
    model.energy_scale.fill_(9.0)
    with monkeypatch.context() as patch:
        patch.setattr(call, broken_disk)
        with pytest.raises(OSError, match="No space left"):
            save_model(path, model)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_file_too_large_for_the_disk(path: Path, tmp_path: Path) -> None:
    """The same with the operating system itself refusing the bytes (a limit on the file size)."""
    resource = pytest.importorskip("resource")
    import signal

    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, b"0" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_crash_during_the_write_keeps_the_old_file(
    path: Path, model: QDGNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that comes before the move, as after a power cut, finds the old file whole."""
    seen: list[dict[str, Any]] = []
    replace = Path.replace

    def look(self: Path, target: Path) -> Path:
        seen.append(load_model(path)[1])
        assert len(list(path.parent.iterdir())) == 2
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look)
    save_model(path, model, {"seed": 4})
    assert [document["training"]["seed"] for document in seen] == [3]
    assert load_model(path)[1]["training"]["seed"] == 4


def test_content_reaches_the_disk_before_the_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (order.append("move"), replace(a, b))[1])
    write_atomic(tmp_path / "new folder" / "a.json", json.dumps([1]).encode())
    assert order == ["fsync", "move"]
    assert (tmp_path / "new folder" / "a.json").read_text() == "[1]"
