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
from colo_proto.net.tcp import ACK, timestamps_at
from colo_proto.seq import MASK
from colo_rewriter.flow import Flow, State, sender
from colo_rewriter.shift import toward_client

REVIVE_AT: Final[Sequence[float]] = (0.05, 0.3, 0.8)
"""Seconds after the promotion. The first leaves the other filters time to swap, the others replace what was lost."""
MAX_REVIVED: Final = 4096
"""Connections revived at a time, those used last."""

_UNREACHABLE: Final = {4: (3, 1), 16: (1, 0)}
"""By the address length: ICMP host unreachable (RFC 792), ICMPv6 no route (RFC 4443), the codes of RFC 6069 §3."""


def may_be_waiting(flow: Flow) -> bool:
    """Could an end of this connection wait for a retransmission timeout since before the failover?"""
    return not flow.own and flow.last_guest is not None and flow.state in (State.OPEN, State.CLOSING)


def end_backoff(flow: Flow) -> tuple[bytes, list[bytes | bytearray]]:
    """The frame for the guest and the two for the client of a connection that `may_be_waiting`."""
    last = flow.last_segment()
    assert flow.last_guest is not None
    assert last is not None
    header, l4, _ = flow.last_guest
    guest = sender(flow.key_guest, header[16:22], header[10:16])
    client = sender(flow.key_client, header[10:16], header[16:22])
    at = timestamps_at(header, l4, len(header))
    stamps = b"" if at is None else b"\x01\x01" + header[at - 2 : at + 8]
    kind, code = _UNREACHABLE[len(guest.src)]
    again = guest.tcp((last.seq + last.length) & MASK, last.ack, ACK, last.window, stamps)
    shifted = toward_client(again, len(again) - 20 - len(stamps), len(again), flow, True)
    sent = guest.tcp(last.seq, last.ack, ACK)
    behind = client.tcp(last.ack, 0, ACK)
    for_guest = craft.icmp_error(client.ethernet, client.src, client.dst, kind, code, sent)
    for_client = craft.icmp_error(guest.ethernet, guest.src, guest.dst, kind, code, behind)
    return for_guest, [shifted, for_client]
