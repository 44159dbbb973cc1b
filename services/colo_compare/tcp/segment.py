"""One TCP segment, as compare reads it."""

from colo_compare.unit import Unit
from colo_proto.compiled import mypyc_attr


@mypyc_attr(acyclic=True)
class Segment:
    """The header fields of one segment, as they are on the wire, and where its payload is.

    The table has one of these and fills it again for each frame, so nobody may keep it: what has to wait becomes a
    `Held`. Compiled, the fields are plain numbers.
    """

    __slots__ = ("ack", "buf", "data", "end", "flags", "l4", "seq", "unit", "win")

    def __init__(self, unit: Unit = b"", buf: bytes = b"", l4: int = 0, data: int = 0, win: int = 0) -> None:
        self.unit: Unit = unit
        """What is released: the frame, or the fragments that it came in."""
        self.buf = buf
        """The bytes that the offsets are about: the frame, or what the fragments were put together to."""
        self.l4 = l4
        """Offset of the TCP header."""
        self.data = data
        """Offset of the payload, as the header says; it may lie outside of the packet when the header is malformed."""
        self.win = win
        """The window field, not scaled."""
        self.end = 0
        """Offset of the packet's end."""
        self.seq = self.ack = self.flags = 0
