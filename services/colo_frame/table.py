"""Which compare worker has which slots: rendezvous hashing, so that few slots change their worker.

Every slot goes to the worker with the highest keyed hash of slot and worker. A worker that joins takes its share evenly
from all others. When a worker leaves, only its own slots get another worker.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, TypeGuard

from colo_frame.bounds import MAX_NAME
from colo_proto.messages import WorkerTable
from colo_proto.net.flow import SLOTS

_KEY = b"colo worker table"
MAX_WORKERS = 256


def scores(worker: str) -> list[int]:
    """The hash of `worker` with each slot, as a number."""
    name = worker.encode()
    return [
        int.from_bytes(blake2b(slot.to_bytes(2, "big") + name, digest_size=8, key=_KEY).digest(), "big")
        for slot in range(SLOTS)
    ]


def assign(workers: Sequence[str]) -> list[int]:
    """For each slot the index of its worker in `workers`, which holds at least one name and none twice."""
    bids = [scores(worker) for worker in workers]
    return [max(range(len(workers)), key=lambda i: (bids[i][slot], workers[i])) for slot in range(SLOTS)]


def make_table(version: int, workers: Sequence[str]) -> WorkerTable:
    """The table of `workers`. They are sorted by name, so that equal sets of workers make equal tables."""
    ordered = sorted(set(workers))[:MAX_WORKERS]
    return WorkerTable(version, ordered, assign(ordered) if ordered else [])


def read_table(given: dict[str, Any], known: WorkerTable | None = None) -> WorkerTable | None:
    """The table in a peer's heartbeat, or None when it is malformed.

    A heartbeat mostly brings the table that is `known` already, which need not be checked again.
    """
    version, workers, slots = given.get("version"), given.get("workers"), given.get("slots")
    if known is not None and known.version and (version, workers, slots) == (known.version, known.workers, known.slots):
        return known
    if type(version) is not int or version < 1 or not isinstance(slots, list) or not _are_ids(workers):
        return None
    if len(slots) != SLOTS or not all(type(slot) is int and 0 <= slot < len(workers) for slot in slots):
        return None
    return WorkerTable(version, list(workers), list(slots))


def named_table(version: int, workers: object) -> WorkerTable | None:
    """The table of `version`, made from the `workers` that somebody reports; None when those are no ids."""
    return make_table(version, workers) if version >= 1 and _are_ids(workers) else None


def _are_ids(workers: object) -> TypeGuard[list[str]]:
    """True when this is a list of ids of workers."""
    return (
        isinstance(workers, list)
        and 0 < len(workers) <= MAX_WORKERS
        and all(isinstance(worker, str) and 0 < len(worker.encode()) <= MAX_NAME for worker in workers)
    )


def shares(table: WorkerTable) -> dict[str, int]:
    """How many slots each worker has."""
    counts = Counter(table.slots)
    return {worker: counts[index] for index, worker in enumerate(table.workers)}
