"""The documentation builds without warnings, its Python runs, and it names every export."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import qdgnn_ase

DOCS = Path(__file__).parent.parent / "docs"
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{k}")
    for page in sorted(DOCS.glob("*.md"))
    for k, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.S | re.M))
]


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_export_is_documented() -> None:
    documented = set(re.findall(r":: qdgnn_ase\.(\w+)", (DOCS / "api.md").read_text()))
    assert documented == set(qdgnn_ase.__all__) - {"PROPERTIES"}


@pytest.mark.slow
def test_pages_build_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("myst_parser")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "api.html").read_text()
    assert "QDGNNCalculator" in page
    assert (tmp_path / "benchmarks.html").is_file()
