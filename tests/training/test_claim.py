"""Folders of studies that go on where they were killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from qdgnn_ase import claim_folder


def test_the_same_plan_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "new" / "plan.json"
    plan = {"epochs": 3, "sizes": (1, 2), "columns": {"band_gap": "gap"}}
    claim_folder(file, plan)
    written = file.read_bytes()
    claim_folder(file, plan)
    with pytest.raises(ValueError, match=r"epochs: 3, not 4; rows: None, not 5\); choose another"):
        claim_folder(file, plan | {"epochs": 4, "rows": 5})
    assert file.read_bytes() == written
