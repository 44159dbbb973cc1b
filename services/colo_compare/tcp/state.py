"""Everything that is known of one TCP connection.

Positions are unwrapped sequence numbers: plain integers that never wrap. The compare sees only what guests send, so
acknowledgements are in the client's sequence space and data in the guest's. The rewriter has already moved the
secondary's numbers into the primary's space, except for those of its SYN, of which only the options are compared.

Names that begin with `p_` are about the primary, those with `s_` about the secondary.
"""

from operator import attrgetter
from typing import Final, NamedTuple

from colo_compare.arrival import Arrival
from colo_compare.flow import Flow
from colo_compare.ledger import Ledger
from colo_compare.tcp.reference import LOWEST, Reference
from colo_compare.unit import HeldUnit
from colo_proto.compiled import mypyc_attr
from colo_proto.net.stamp import NO_STAMP
from colo_proto.net.tcp import SynOptions
from colo_proto.rules import Rule
from colo_proto.seq import HALF, MASK, MOD

FORMER: Final = LOWEST
"""Place of a RST that belongs to the connection before on the same ports: before everything of this one."""


class NextSyn(NamedTuple):
    """The secondary's SYN of a connection that the primary has not opened yet."""

    options: SynOptions
    isn: int
    ack: int
    edge: int
    at: float


@mypyc_attr(acyclic=True)
class Held(HeldUnit):
    """A primary segment that may not leave yet. `start` and `stop` are where its payload begins and ends."""

    __slots__ = ("ack", "buf", "data", "end", "equal", "fin", "l4", "left", "overtakes", "start", "stop", "syn", "win")

    def __init__(self, arrival: Arrival, start: int, stop: int, ack: int, at: float) -> None:
        self.unit = arrival.unit
        self.buf = arrival.buf
        """Empty when only the segment's place was kept (`overflow`)."""
        self.l4 = arrival.l4
        self.data = arrival.data
        """Offset in `buf` of what is at `start`; for a SYN one less than that of the payload, because SYN counts one.
        """
        self.win = arrival.win
        self.start = self.equal = self.left = start
        """Everything before `equal` was found equal. Everything before `left` has left, in this segment or a copy."""
        self.stop = self.end = stop
        """`end` counts a FIN as well."""
        self.syn = self.fin = 0
        self.ack = ack
        self.at = at
        self.out = False
        self.overtakes = False
        """It came after segments that follow it in the stream, and leaves before them."""


@mypyc_attr(acyclic=True)
class LoweredWindow:
    """What the client has been told since a window was lowered."""

    __slots__ = ("ack", "edge", "end", "head", "l4", "plain_edge", "win")

    def __init__(self, head: bytes, l4: int, end: int, edge: int, plain_edge: int, ack: int, win: int) -> None:
        self.head = head
        """The newest segment that left, up to the end of its TCP header, which is at `l4`: to make a window update of.
        """
        self.l4 = l4
        self.end = end
        """The farthest position that has left."""
        self.edge = edge
        """The farthest right edge that has left; `plain_edge` is the same if windows are not scaled."""
        self.plain_edge = plain_edge
        self.ack = ack
        """The newest ACK that has left, and `win` the primary's own window with it (negative: not scaled)."""
        self.win = win


by_start, by_arrival, by_ack = attrgetter("start"), attrgetter("at"), attrgetter("ack")


class Connection(Flow):
    """State of one connection; `ledger` is that of the compare it belongs to."""

    __slots__ = (
        "ack_base", "adopted", "advanced_at", "clamped", "client_reset", "closed", "committed", "counted", "data",
        "edge", "head_end", "isn", "ledger", "mark", "mask_end", "mask_start", "next_syn", "opener", "origin",
        "p_ack", "p_fin", "p_first", "p_scale", "p_syn", "p_top", "p_win", "p_wire_ack", "ref", "repeated_at",
        "resets", "rivals", "s_ack", "s_edge", "s_first", "s_isn", "s_last_ack", "s_plain", "s_reset", "s_rst",
        "s_scale", "s_syn", "s_top", "s_win", "s_wire_ack", "stamp", "stamp_until", "unproven", "waiting",
    )  # fmt: skip

    def __init__(self, ledger: Ledger, key: bytes, rule: Rule, now: float) -> None:
        super().__init__(key, rule, now)
        self.ledger = ledger
        # What every segment touches comes first and together: compiled objects have their fields in this order, and
        # with ten thousand flows each cache line less counts.
        self.ref = Reference()
        self.data: list[Held] = []
        """By position: not equal to the end yet."""
        self.waiting: list[Held] = []
        """By ACK: equal, and waiting for the secondary to acknowledge as much."""
        self.blank()
        self.resets: list[Held] = []
        """RSTs of the primary that the secondary has not sent yet."""
        self.next_syn: NextSyn | None = None

    def blank(self) -> None:
        """A connection of which nothing is known yet."""
        self.committed = -1
        """Position up to which both guests have sent the same; negative while that is not known. (`None` would make an
        object of every new number of every segment.)"""
        self.p_wire_ack = -1
        self.p_ack = LOWEST
        """The primary's last ACK, on the wire and unwrapped: most segments repeat it."""
        self.p_win = 0
        """The window field that came with it; negative with a SYN, whose window is never scaled (RFC 7323 §2.2)."""
        self.p_top = LOWEST
        """The farthest position that the primary has sent."""
        self.s_wire_ack = self.s_win = -1
        self.s_ack = LOWEST
        """The secondary's highest ACK."""
        self.s_edge = LOWEST
        """The farthest right edge that the secondary has offered."""
        self.edge = LOWEST
        """The farthest right edge that has left for the client; `LOWEST` while that is not known. It is no farther than
        `s_edge`, so a segment that offers no more may leave as it is."""
        self.p_scale = 0
        self.s_scale = -1
        """Window scales; -1 while unknown, and then windows are left alone."""
        self.advanced_at = LOWEST * 1.0
        """When `committed` last moved on."""
        self.clamped: LoweredWindow | None = None
        """What the client knows, while that is less than the primary offers."""
        self.stamp = NO_STAMP
        """The newest TSval that has left before older segments, when it has: they leave with it."""
        self.s_first: int | None = None
        self.opener = False
        """The guests opened the connection and offered to scale windows. Whether the client agreed cannot be seen, so
        no window may pass the secondary's edge in either reading."""
        self.s_rst = False
        self.closed = False
        self.client_reset = LOWEST
        """When the client reset the connection, in milliseconds; known in shadow mode only."""
        self.adopted = False
        # From here on: what acknowledgements, the beginning and rare events need.
        self.counted = LOWEST
        """Where `edge` was when the connection was last counted as one that the client sends on, in the tick `mark`."""
        self.mark = 0
        self.ack_base = LOWEST
        """ACKs are unwrapped around this: the secondary's highest, or the first that either side sent. It is kept from
        one connection to the next on the same ports, so it may become negative."""
        self.s_last_ack = LOWEST
        self.s_top = LOWEST
        """In shadow mode: the position that the secondary's pure ACKs say it has reached."""
        self.s_reset = LOWEST
        """How far the secondary had come when it sent RST: what lies before may have been overtaken by it."""
        self.s_plain = LOWEST
        """For an opener, the secondary's right edge if windows are not scaled."""
        self.origin = -1
        """The first position seen, while nothing better is known."""
        self.isn: int | None = None
        self.unproven = LOWEST
        """Bytes before this position were not compared here, because the connection was adopted from the middle."""
        self.rivals: tuple[int, ...] = ()
        """Other initial sequence numbers with which the primary has answered the same SYN of the client."""
        self.p_first: int | None = None
        self.p_fin = LOWEST
        """Position of the primary's FIN, when it has sent one."""
        self.p_syn: SynOptions | None = None
        self.s_syn: SynOptions | None = None
        self.s_isn = -1
        self.repeated_at = LOWEST
        """When the secondary last repeated what is committed, in milliseconds."""
        self.mask_start = self.mask_end = LOWEST
        """Bytes between these positions may differ, because a mask covers them."""
        self.head_end = LOWEST
        """Where the last part of a segment ended that left by itself: everything before it has left, too."""
        self.stamp_until = LOWEST
        """No segment that begins later than this is older than `stamp`."""

    def position(self, seq: int) -> int:
        """Unwrap a sequence number."""
        base = self.committed
        if base < 0:
            if self.origin < 0:
                self.origin = seq + MOD
            base = self.origin
        return base + ((seq - base + HALF) & MASK) - HALF

    def unwrap_ack(self, ack: int) -> int:
        """Unwrap an acknowledgement number."""
        base = self.ack_base
        if base == LOWEST:
            self.ack_base = base = ack + MOD
        return base + ((ack - base + HALF) & MASK) - HALF

    def offset(self, position: int) -> int:
        """Offset in the guest's stream: 0 is the first byte after the SYN (or of what was adopted)."""
        if self.isn is not None:
            return position - self.isn - 1
        return position - (self.p_first if self.p_first is not None else self.origin)

    def held(self) -> tuple[Held, ...]:
        """All held segments."""
        return (*self.data, *self.waiting, *self.resets)

    def choose_isn(self, seq: int) -> None:
        """A guest has sent `seq`, in no SYN. That says which of the primary's SYN/ACKs the client has taken: the one
        whose number is nearest before it, or equal to it as in a keep-alive or a window probe. What the primary holds
        says it better: the secondary's numbers may be wrong (its rewriter was restarted), and then none is near.
        """
        mine = self.isn or 0
        seq = next((held.start & MASK for held in self.data if not held.syn), seq)
        number = min((mine & MASK, *self.rivals), key=lambda isn: (seq - isn) & MASK)
        if (seq - number) & MASK > self.ledger.max_stream_bytes:
            return
        self.rivals = ()
        self.unproven = LOWEST
        if number == mine & MASK:
            return
        self.isn = self.p_first = isn = self.position(number)
        self.forget_reference("overtaken")
        self.committed = self.p_top = isn + 1
        for held in self.data:
            # Positions are relative to `committed`, and none is farther from it than half of all numbers.
            by = self.position(held.start & MASK) - held.start
            held.start, held.stop, held.end = held.start + by, held.stop + by, held.end + by
            held.equal = held.left = held.start
            self.p_top = max(self.p_top, held.end)
            if held.fin:
                self.p_fin = held.stop

    def clear_queues(self) -> None:
        """Hold nothing any more."""
        self.data, self.waiting, self.resets = [], [], []

    def forget_reference(self, reason: str) -> None:
        """Drop what is kept of the secondary's stream, and its FIN."""
        pending, saved = self.ref.forget(self.ledger.history)
        self.ledger.secondary_bytes -= saved
        self.ledger.secondary_gone(pending, reason, stored=True)
        self.ref = Reference()
