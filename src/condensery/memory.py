"""Keep freed memory in the process, so that the next step need not ask the system for fresh pages."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's mallopt parameters, <malloc.h>
_MAPPED = 1 << 30  # above this, memory still goes back at once
_LARGE = 2**31 - 1  # the largest value that mallopt's int takes


def keep_freed_memory() -> bool:
    """Ask the C library not to return freed memory to the system (Linux with glibc only), here and in child processes.

    A training step on a CPU frees and allocates the same tensors again and again. By default glibc gives large ones
    back and the kernel zeroes new pages for each: 62 % of the time of a ConvNet's gradient on 256 images at once
    (benchmarks/pieces.py). The process keeps its peak memory until it ends, which is why the library never does this
    by itself: the command line does, and a script may.

    Returns:
        Whether it took effect.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library: nothing to set
        return False
    for name, value in (("MALLOC_MMAP_THRESHOLD_", _MAPPED), ("MALLOC_TRIM_THRESHOLD_", _LARGE)):
        os.environ.setdefault(name, str(value))
    return bool(mallopt(_MMAP_THRESHOLD, _MAPPED)) and bool(mallopt(_TRIM_THRESHOLD, _LARGE))
