"""The first Python block of the README runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def first_block() -> str:
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.S | re.M)
    assert blocks
    return blocks[0]


def test_first_block_compiles() -> None:
    compile(first_block(), "README.md", "exec")


def test_first_block_runs(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", first_block()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
