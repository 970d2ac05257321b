"""Files that grow by appending and survive a kill: one writer, and no half entry at the end."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO

KEY = "key"
_STORED_KEY = re.compile(r'(?:^|\s)key="?([\w.:+-]+)', re.ASCII)


def lock(file: IO[bytes]) -> None:
    """Keep other writers away until the file is closed; they would mix their frames with ours."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(
            f"{file.name} must have one writer, got a second; wait for the other process to end"
        ) from error


def resume(
    file: IO[bytes], read_keys: Callable[[IO[bytes]], Iterator[tuple[str, int]]]
) -> set[str]:
    """Keys in the file, which is cut after its last complete entry."""
    keys, end = set(), 0
    file.seek(0)
    for key, position in read_keys(file):
        keys.add(key)
        end = position
    file.seek(end)
    file.truncate()
    return keys


def frame_keys(file: IO[bytes]) -> Iterator[tuple[str, int]]:
    """Key and end of every complete frame of an extended XYZ file."""
    while head := file.readline():
        lines = [head, file.readline()]
        if not lines[1].endswith(b"\n"):
            return
        found = _STORED_KEY.search(lines[1].decode())
        if not head.strip().isdigit() or not found:
            raise ValueError(
                f"{file.name} must hold labelled frames with a key, got {head + lines[1]!r}; "
                "write to another file"
            )
        lines += islice(file, int(head))
        if len(lines) < int(head) + 2 or not lines[-1].endswith(b"\n"):
            return
        yield found[1], file.tell()


def failure_keys(file: IO[bytes]) -> Iterator[tuple[str, int]]:
    """Key and end of every complete line of a file of failures."""
    while (line := file.readline()).endswith(b"\n"):
        yield json.loads(line)[KEY], file.tell()
