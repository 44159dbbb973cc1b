"""What is remembered of segments for which there is no memory, when the primary is far ahead in shadow mode.

::

    with bytes   [ 60,000 bytes ][ 60,000 bytes ]                            [ 60,000 bytes ]    compared
    place only                                   [ position, ACK, no bytes ]                     accepted as it is

In shadow mode the client waits for nobody, so the primary may be ahead by any amount, which is no difference; but
memory is bounded. Of a segment without bytes its place and its ACK are remembered, and segments that follow each other
become one place. What the secondary sends there is accepted without comparing it, and counted. A stream that ends
elsewhere, or a guest that stops sending, is still found.
"""

from bisect import bisect_left

from colo_compare.arrival import Arrival
from colo_compare.tcp.state import Connection, Held, by_start


def keep_place(flow: Connection, held: Held) -> None:
    """Keep only the place of `held`."""
    data, ledger = flow.data, flow.ledger
    if held.syn:
        # Its options say whether the connection could go on at all, and it is small.
        ledger.hold(flow, held)
        data.insert(bisect_left(data, held.start, key=by_start), held)
        return
    if held.start == held.end or 0 <= held.end <= flow.committed:
        return
    ledger.counters["frames_unkept"] += 1
    last = data[-1] if data else None
    if last is not None and not last.buf and last.start <= held.start:
        if held.end > last.end:
            last.stop, last.end, last.fin = held.stop, held.end, held.fin
        last.ack = max(last.ack, held.ack)
        return
    at = bisect_left(data, held.start, key=by_start)
    if at < len(data) and data[at].start == held.start and data[at].end >= held.end:
        return
    place = Held(Arrival(win=held.win), held.start, held.stop, held.ack, held.at)
    place.end, place.fin = held.end, held.fin
    ledger.hold(flow, place)
    data.insert(at, place)


def keep_ack(flow: Connection, held: Held) -> None:
    """Of many ACKs that wait for the secondary's keep only the last: it acknowledges what the others do."""
    waiting, ledger = flow.waiting, flow.ledger
    if waiting and held.ack < waiting[-1].ack:
        return
    if len(waiting) > 1:
        # The first one stays, because it says since when the secondary has not acknowledged.
        ledger.unhold(waiting.pop())
    ledger.hold(flow, held)
    waiting.append(held)


def place_ahead(flow: Connection, where: int, size: int) -> bool:
    """Are there bytes of the primary that were not kept, within `size` bytes from `where`?"""
    return any(not one.buf and one.start < where + size and where < one.end for one in flow.data)
