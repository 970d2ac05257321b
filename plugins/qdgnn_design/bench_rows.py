"""Rows of the benchmark on disk, one per line: what is there is not measured again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def resumed(path: Path, heads: Iterable[Row], measure: Callable[[Row], Row]) -> Iterator[Row]:
    """Measure what is not in the file yet and append it, row by row.

    Args:
        path: JSON lines; a half line at the end, of a run that was killed, is cut off.
        heads: What to measure, in order; entries of a row that no other row shares.
        measure: Gives the rest of the row.

    Returns:
        The new rows, as they come.
    """
    cut_half_line(path)
    rows = read_rows(path)
    for head in heads:
        if any(head.items() <= row.items() for row in rows):
            continue
        row = head | measure(head)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        yield row


def read_rows(path: Path) -> list[Row]:
    """Complete lines of a file, none if there is no file; a half one at the end is left out."""
    if not path.is_file():
        return []
    content = path.read_text()
    return [json.loads(line) for line in content[: content.rfind("\n") + 1].splitlines()]


def cut_half_line(path: Path) -> None:
    """The next row would go on in it."""
    if path.is_file():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
