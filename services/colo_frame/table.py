"""Which compare worker has which slots: rendezvous hashing, so that few slots move.

Every slot goes to the worker with the highest keyed hash of (slot, worker). A worker that joins takes its share evenly
from all others. When a worker leaves, only its own slots move.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from colo_frame.bounds import MAX_NAME
from colo_proto.messages import WorkerTable
from colo_proto.net.flow import SLOTS

_KEY = b"colo worker table"
MAX_WORKERS = 256


def scores(worker: str) -> list[int]:
    """What `worker` bids for each slot."""
    name = worker.encode()
    return [
        int.from_bytes(blake2b(slot.to_bytes(2, "big") + name, digest_size=8, key=_KEY).digest(), "big")
        for slot in range(SLOTS)
    ]


def assign(workers: Sequence[str]) -> list[int]:
    """For each slot the index of its worker in `workers` (at least one, no name twice)."""
    bids = [scores(worker) for worker in workers]
    return [max(range(len(workers)), key=lambda i: (bids[i][slot], workers[i])) for slot in range(SLOTS)]


def make_table(version: int, workers: Sequence[str]) -> WorkerTable:
    """The table of `workers`, which stand in it in the order of their names, so that equal sets make equal tables."""
    ordered = sorted(set(workers))[:MAX_WORKERS]
    return WorkerTable(version, ordered, assign(ordered) if ordered else [])


def read_table(given: dict[str, Any], known: WorkerTable | None = None) -> WorkerTable | None:
    """The table in a peer's heartbeat, or None when it is not a proper one.

    A heartbeat mostly brings the table that is `known` already, which need not be checked again.
    """
    if (
        known is not None
        and known.version
        and given == {"version": known.version, "workers": known.workers, "slots": known.slots}
    ):
        return known
    version, workers, slots = given.get("version"), given.get("workers"), given.get("slots")
    if type(version) is not int or version < 1 or not isinstance(workers, list) or not isinstance(slots, list):
        return None
    if not _names(workers):
        return None
    if len(slots) != SLOTS or not all(type(slot) is int and 0 <= slot < len(workers) for slot in slots):
        return None
    return WorkerTable(version, list(workers), list(slots))


def named_table(version: int, workers: object) -> WorkerTable | None:
    """The table of `version`, made from the `workers` that somebody reports; None when those are not ids."""
    return make_table(version, workers) if version >= 1 and isinstance(workers, list) and _names(workers) else None


def _names(workers: list[Any]) -> bool:
    """True when this is a list of ids of workers."""
    ids = all(isinstance(worker, str) and 0 < len(worker.encode()) <= MAX_NAME for worker in workers)
    return 0 < len(workers) <= MAX_WORKERS and ids


def shares(table: WorkerTable) -> dict[str, int]:
    """How many slots each worker has."""
    counts = dict.fromkeys(table.workers, 0)
    for index in table.slots:
        counts[table.workers[index]] += 1
    return counts
