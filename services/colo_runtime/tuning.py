"""How a process that moves frames treats its machine.

* The processor: it does not take it from others the moment something arrives (`yield_less`).
* Memory: what is freed stays at hand, and cycles are seldom looked for (`settle`).
"""

import contextlib
import ctypes
import gc
import os
from typing import Final

COLLECT_AFTER: Final = 100_000
"""Objects made and not freed again before Python looks for cycles."""

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""glibc's mallopt(3)."""
KEPT: Final = 32 << 20
"""Bytes of freed memory that are not given back to the system."""


def yield_less() -> None:
    """Call it before the first thread is made: they all inherit it.

    Under SCHED_BATCH (sched(7)) a thread that wakes up waits for its turn instead of preempting whoever runs. Between
    idle processes nothing changes. Under load each process of the chain gets further before the next one starts, with
    more frames in a batch, and its caches are still its own. It needs no privilege.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def settle() -> None:
    """Call it once everything is set up.

    glibc hands freed memory back as soon as 128 KiB of it lie at the end of the heap, and takes it again, page by page,
    for the next batch: a batch of GSO frames costs several times as much as the work on it. Elsewhere nothing changes.

    Frames are freed as soon as nobody refers to them; what the collector could find is next to nothing, and each of its
    rounds looks at everything that compare keeps. What was made until now stays out of them for good.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_TOP_PAD, 1 << 20)
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 100)
