"""Process-wide switches that make calls faster: what glibc keeps, how GEMMs multiply."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = -1


def tune_process() -> None:
    """`keep_freed_memory`, and let float32 GEMMs use oneDNN's fast path; for the whole process."""
    torch.set_float32_matmul_precision("medium")
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Tell glibc to keep the memory that a calculation frees for the next one.

    Without it glibc returns to the system what is free above a threshold, and every large tensor,
    and faults the pages in again at each call. The peak of the process stays, with large cells that
    of fragmented memory, a half more.
    Nothing is changed where a variable MALLOC_* of the environment sets glibc, or without glibc.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
