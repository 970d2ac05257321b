"""Memory of the process: what glibc keeps, and opt-in switches for programs that own it."""

from __future__ import annotations

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def tune_process() -> None:
    """Keep freed memory in the process (glibc) and let float32 GEMMs use oneDNN's fast path.

    Without it glibc returns every tensor above 32 MiB to the system and faults its pages again.
    Memory use grows by a third to a half. Changes settings of the whole process.
    """
    torch.set_float32_matmul_precision("medium")
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
            libc.mallopt(_M_TOP_PAD, 64 << 20)


def warm_allocator() -> None:
    """Free one block of nearly 32 MiB, after which glibc keeps up to 64 MiB that are freed.

    glibc returns freed memory above a threshold to the system and faults its pages in again at the
    next call. The threshold follows the largest block freed so far; this one is never touched.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
