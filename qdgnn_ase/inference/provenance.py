"""When and where a number was measured, for every document of results."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
"""Linux."""


def measured() -> dict[str, str]:
    """``date`` (today, ISO) and ``machine`` (processor, cores, instruction set), JSON-ready."""
    name = f"{_processor()}, {os.cpu_count()} cores, {platform.machine()}"
    return {"date": date.today().isoformat(), "machine": name}


def _processor() -> str:
    """The model's name where the system tells it."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "processor of unknown name"
