"""Is it a difference when something of the secondary does not come, or will it come later?

Two guests that say the same need not say it at the same time. Frames of one of them may get lost on the way to compare
(a tap overflows). Then its retransmission timeout has to pass, and that grows with the time that frames wait in queues.
Meanwhile what is held of the other guest is dropped when it is too old, or when there is no room for it. That is loss
on a wire: the guest will send it again.
"""

from typing import Final

from colo_compare.tcp.reference import LOWEST
from colo_compare.tcp.state import Connection

LOSS_TIMEOUTS: Final = 4
"""How many times `compare_timeout` a connection may stand still while frames are known to be lost, or the secondary
host is behind: retransmission timeouts double, and retransmissions get lost as well."""
BEHIND: Final = 0.25
"""The share of `compare_timeout` from which the secondary host counts as behind."""


def may_come_later(flow: Connection, now: float) -> bool:
    """May what is missing of the secondary still come, though it is late?

    That is so while it is known that frames were lost, while the secondary repeats what has left (it may send no more
    until the client acknowledges that), and while no flow gets its equal sooner. If the connection stands still for too
    long, it is a difference all the same.
    """
    ledger = flow.ledger
    timeout = ledger.timeout
    if flow.advanced_at <= now - LOSS_TIMEOUTS * timeout:
        return False
    return ledger.lag.seconds >= BEHIND * timeout or flow.repeated_at > (now - timeout) * 1000 or lost(flow)


def lost(flow: Connection) -> bool:
    """Does what is held wait for bytes that a guest has sent, because they lie before others that have come? Then a
    frame of the one guest was dropped on the way, and not that of the other. In a connection that was adopted from the
    middle this is not certain: another compare may have released those bytes, and then nobody sends them again.
    """
    data, pieces, first = flow.data, flow.ref.pieces, flow.ref.first
    if not data or flow.diverged or flow.adopted:
        return False
    base, fin = flow.committed, flow.ref.fin
    return data[0].start > base or (pieces[first].start > base if first < len(pieces) else (fin or LOWEST) > base)
