"""After a failover: ends the retransmission back-off of both ends of a connection.

While the primary was dead and the secondary was not promoted yet, both ends of a connection got no answer and doubled
their retransmission timeout each time (RFC 6298 §5.5). After a silence of two seconds, the next attempt may be two
seconds away. RFC 6069, which Linux implements, has the remedy: an ICMP "host unreachable" that quotes the first
unacknowledged segment tells its sender that the path was at fault. The sender takes the doubling back, and sends at
once if the shorter timeout is over already. An end that waits for nothing ignores the message.

::

    to the guest     ICMP unreachable, quoting the guest's last segment (a retransmission, if it waits)
    to the client    the guest's last ACK once more, then ICMP unreachable, quoting the segment behind it

All three follow from the guest's last segment, whose header each connection keeps (`Flow.last_guest`).
"""

from collections.abc import Sequence
from typing import Final

from colo_proto.net import craft
from colo_proto.net.tcp import ACK, ACK_AT, FIN, FLAGS_AT, OPT_TIMESTAMPS, SEQ_AT, SYN, WINDOW_AT, options
from colo_rewriter.flow import Flow, State, sender
from colo_rewriter.shift import toward_client

REVIVE_AT: Final[Sequence[float]] = (0.05, 0.3, 0.8)
"""Seconds after the promotion. The first leaves the other filters time to swap, the others replace what was lost."""
MAX_REVIVED: Final = 4096
"""Connections revived at a time, those used last."""

_UNREACHABLE: Final = {4: (3, 1), 16: (1, 0)}
"""By the address length: ICMP host unreachable (RFC 792), ICMPv6 no route (RFC 4443), the codes of RFC 6069 §3."""


def may_be_waiting(flow: Flow) -> bool:
    """Could an end of this connection wait for a retransmission timeout?"""
    return flow.last_guest is not None and flow.state in (State.OPEN, State.CLOSING)


def end_backoff(flow: Flow) -> tuple[bytes, list[bytes | bytearray]]:
    """The frame for the guest and the two for the client of a connection that `may_be_waiting`."""
    assert flow.last_guest is not None
    last, l4, length = flow.last_guest
    guest = sender(flow.key_guest, last[16:22], last[10:16])
    client = sender(flow.key_client, last[10:16], last[16:22])
    seq, ack = (int.from_bytes(last[at : at + 4], "big") for at in (l4 + SEQ_AT, l4 + ACK_AT))
    flags, window = last[l4 + FLAGS_AT], int.from_bytes(last[l4 + WINDOW_AT : l4 + WINDOW_AT + 2], "big")
    after = (seq + length + bool(flags & SYN) + bool(flags & FIN)) & 0xFFFFFFFF
    stamps = b""
    for option, start, size in options(last, l4, len(last)):
        if option == OPT_TIMESTAMPS and size == 10:
            stamps = b"\x01\x01" + last[start : start + 10]
    kind, code = _UNREACHABLE[len(guest.src)]
    again = guest.tcp(after, ack, ACK, window, stamps)
    shifted = toward_client(again, len(again) - 20 - len(stamps), len(again), flow, True)
    sent = guest.tcp(seq, ack, ACK)
    behind = client.tcp(ack, 0, ACK)
    for_guest = craft.icmp_error(client.ethernet, client.src, client.dst, kind, code, sent)
    for_client = craft.icmp_error(guest.ethernet, guest.src, guest.dst, kind, code, behind)
    return for_guest, [shifted, for_client]
