"""Fixtures of the networks."""

from __future__ import annotations

import pytest

from qdgnn_ase.nn import segment
from qdgnn_ase.nn.segment import has_dgl


@pytest.fixture(params=["torch", "dgl"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A check with it runs on both implementations of the sums."""
    if request.param == "dgl" and not has_dgl():
        pytest.skip("DGL has no wheel for this Python")
    monkeypatch.setattr(segment, "DGL_MIN_EDGES", 0 if request.param == "dgl" else 10**9)
    return str(request.param)
