"""Keeping the secondary's bytes until the primary sends the same."""

from colo_compare.arrival import Arrival
from colo_compare.tcp.history import PIECE_COST
from colo_compare.tcp.state import Connection


def store(flow: Connection, start: int, stop: int, arrival: Arrival, base: int) -> None:
    """Keep the secondary's bytes from `start` to `stop`, as far as they lie behind `base`, which is `committed`."""
    ledger, ref, buf, data = flow.ledger, flow.ref, arrival.buf, arrival.data
    if start < base:
        if start < flow.unproven:
            remember(flow, arrival, start, base)
        data += base - start
        start = base
    if ref.pending() >= ledger.secondary_quota or (base >= 0 and stop - base > ledger.max_stream_bytes):
        # Nothing past `committed` was acknowledged by the client, so the guest will send it again.
        ledger.secondary_gone(1, "queue_full")
        return
    added = len(ref.insert(start, stop, buf, data))
    ledger.held_secondary += added
    ledger.secondary_bytes += added * (len(buf) + PIECE_COST)
    # A frame that only fills holes may become several pieces, or none: the count of frames stays right.
    if added != 1:
        ledger.secondary_pieces(added)


def remember(flow: Connection, arrival: Arrival, start: int, stop: int) -> None:
    """Keep bytes from before the place where this connection was adopted: the primary will repeat them, too."""
    ref, ledger = flow.ref, flow.ledger
    added = ref.insert(start, stop, arrival.buf, arrival.data)
    ref.first += len(added)
    ledger.secondary_bytes += len(added) * (len(arrival.buf) + PIECE_COST)
    for one in added:
        ledger.secondary_bytes -= ledger.history.add(one)
