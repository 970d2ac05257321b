"""When and where results were measured."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from qdgnn_ase import measured
from qdgnn_ase.inference import provenance


def test_date_and_machine_are_told() -> None:
    found = measured()
    assert found["date"] == date.today().isoformat()
    assert "cores" in found["machine"]
    assert json.dumps(found)


def test_processor_comes_from_the_system_where_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Deep Thought 42\nmodel name\t: other\n")
    monkeypatch.setattr(provenance, "_CPUINFO", info)
    assert measured()["machine"].startswith("Deep Thought 42, ")
    monkeypatch.setattr(provenance, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr(provenance.platform, "processor", lambda: "")
    assert measured()["machine"].startswith("processor of unknown name, ")
