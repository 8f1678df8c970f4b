"""Giving freed memory back to the system, so that a large batch in parts needs the memory of a part."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_MMAP_THRESHOLD = -3  # glibc's M_MMAP_THRESHOLD
_BLOCK_BYTES = 1 << 20


@cache
def give_back_freed_memory() -> bool:
    """Let the C library take blocks of a megabyte or more from the system one by one, and give them back when freed.

    By default glibc keeps freed blocks for later. Parts of a batch differ in shape, so what one part freed seldom fits
    the next, and a process grows by gigabytes that it does not use. Affects the whole process, which page faults make
    a little slower; does nothing where there is no glibc. Returns whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL("libc.so.6").mallopt(_MMAP_THRESHOLD, _BLOCK_BYTES))
    except (OSError, AttributeError):  # another C library
        return False
