"""What model cards share: the README's tables, the notes of the last card.

A table stands between ``<!-- NAME: made by ... -->`` and ``<!-- end of NAME -->``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

_BLOCK = re.compile(r"(<!-- (\w+): made by [^\n]* -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def check_blocks(readme: str | Path, needed: str, known: Collection[str] = ()) -> None:
    """Refuse a file before hours are spent on what goes into it.

    Args:
        readme: File.
        needed: Block that it must hold.
        known: If given, the only other blocks that it may hold: one without a table goes stale.
    """
    names = {match[2] for match in _BLOCK.finditer(Path(readme).read_text())}
    if needed not in names or (known and names - {needed, *known}):
        raise click.UsageError(
            f"{readme} must hold the block <!-- {needed}: made by ... --> ... "
            f"<!-- end of {needed} --> and blocks with tables, got {sorted(names)}"
        )


def replace_blocks(readme: str | Path, tables: dict[str, str]) -> None:
    """Put tables in their blocks; blocks without a table stay."""
    path = Path(readme)

    def block(match: re.Match[str]) -> str:
        if match[2] not in tables:
            return match[0]
        return f"{match[1]}{tables[match[2]].strip()}\n{match[3]}"

    path.write_text(_BLOCK.sub(block, path.read_text()))


def last_notes(model: str | Path) -> list[str]:
    """Notes of the card beside a model; none without a card."""
    card = Path(model).with_suffix(".json")
    notes: list[str] = json.loads(card.read_text())["notes"] if card.is_file() else []
    return notes


def versions(document: dict[str, Any]) -> str:
    """Versions that a checkpoint was made with."""
    return ", ".join(f"{name} {version}" for name, version in document["versions"].items())
