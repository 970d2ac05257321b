"""Options that the plugin's commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def target_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--target NAME=WANTED``, at least once; ``text`` says what may be wanted."""
    return click.option(
        "--target",
        "-t",
        "targets",
        multiple=True,
        required=True,
        metavar="NAME=WANTED",
        help=text,
    )
