"""One whole packet of a guest, as flows are given it."""

from colo_compare.unit import Unit
from colo_proto.compiled import mypyc_attr


@mypyc_attr(acyclic=True)
class Arrival:
    """What a packet holds for its flow: `body` of a datagram, the other fields of a TCP segment.

    The table has one of these and fills it again for each packet, so nobody may keep it: what has to wait becomes a
    `Held` or a `HeldDatagram`. Compiled, the numbers are plain ones.
    """

    __slots__ = ("ack", "body", "buf", "data", "end", "flags", "l4", "seq", "unit", "win")

    def __init__(self, unit: Unit = b"", buf: bytes = b"", l4: int = 0, data: int = 0, win: int = 0) -> None:
        self.unit: Unit = unit
        """What is released: the frame, or the fragments that it came in."""
        self.body = b""
        """What has to be equal of a datagram."""
        self.buf = buf
        """The bytes that the offsets of a segment are about: the frame, or what the fragments were put together to."""
        self.l4 = l4
        """Offset of the TCP header."""
        self.data = data
        """Offset of the payload, as the header says; it may lie outside of the packet when the header is malformed."""
        self.win = win
        """The window field, not scaled. The other fields are as they are on the wire, too."""
        self.end = 0
        """Offset of the packet's end."""
        self.seq = self.ack = self.flags = 0
