"""Memory that has been used is used again.

A training step makes and drops the same large arrays every time. The C library gives each of them back to the system at
once and fetches fresh pages for the next, which the system must fill with zeros: a quarter of the time of an AlexNet
step. Told otherwise, it keeps them for the next array that fits.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # as malloc.h of the GNU C library numbers them
MOST_KEPT = (1 << 31) - 1  # bytes: what lies free beyond that goes back


@cache
def keep_memory() -> bool:
    """Keep freed arrays for new ones, in this process and from now on; whether that could be arranged.

    It is the GNU C library that is asked: elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, MOST_KEPT) and mallopt(M_ARENA_MAX, 1))
    return False
