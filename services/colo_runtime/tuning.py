"""How a process that moves frames uses the processor and the memory of its machine.

* The processor: it does not preempt other processes as soon as something arrives (`yield_less`).
* Memory: freed memory stays in the process, and reference cycles are looked for seldom (`tune_memory`).
"""

import contextlib
import ctypes
import gc
import os
from typing import Final

COLLECT_AFTER: Final = 100_000
"""Objects made, and not freed again, before Python looks for reference cycles."""

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3)."""
KEPT: Final = 32 << 20
"""Bytes of freed memory that are not returned to the system."""


def yield_less() -> None:
    """Call it before the first thread is started: all threads inherit the setting.

    With SCHED_BATCH (sched(7)) a thread that wakes up waits for its turn instead of preempting the running one. Between
    idle processes this changes nothing. Under load each process of the chain does more work before the next one runs,
    with more frames in a batch and warm caches. No privilege is needed.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def tune_memory() -> None:
    """Call it once, when everything is set up.

    glibc returns freed memory to the system as soon as 128 KiB of it are at the end of the heap, and requests it again,
    page by page, for the next batch: for a batch of GSO frames that costs several times as much as the work on it. With
    another C library nothing is changed.

    Frames are freed as soon as nothing refers to them. The collector would find next to nothing, and each of its rounds
    looks at everything that compare keeps. Objects that exist now are left out of its rounds for ever.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_TOP_PAD, 1 << 20)
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 100)
