"""What is known of one TCP connection, its queues, and how they end.

`TcpState` keeps; `TcpWindow` sends, with the pair's flow control; `TcpFlow` (in `tcp`) decides.
"""

from typing import Any, Final, NamedTuple

from colo_compare.flow import HeldUnit, Stream, Unit, frames_in
from colo_compare.ledger import Ledger
from colo_compare.stream import Reference
from colo_proto.compiled import mypyc_attr
from colo_proto.frame import ETH
from colo_proto.messages import Reason
from colo_proto.net.stamp import NO_STAMP
from colo_proto.net.tcp import SynOptions
from colo_proto.pcapng import Shown
from colo_proto.rules import Rule
from colo_proto.seq import HALF, MASK, MOD

SHOWN: Final = 16
"""Frames of each side in an evidence file."""

CONTEXT: Final = 16
"""Bytes shown on both sides of a difference."""

PATIENCE: Final = 4
"""How many times `compare_timeout` a connection may stand still while frames are known to be lost: retransmission
timeouts double, and retransmissions get lost as well."""

NEVER: Final = -(1 << 62)
UNKNOWN: Final = NEVER >> 1
FORMER: Final = NEVER
"""Place of a RST that belongs to the connection before on the same ports: before everything of this one."""
IDLE: Final = 7200.0
"""Seconds after which a silent connection is forgotten (tcp_keepalive_time of common stacks)."""
LINGER: Final = 60.0
"""Seconds that a closed one is remembered, for retransmitted FINs (TIME_WAIT of common stacks)."""


class NextSyn(NamedTuple):
    """The secondary's SYN of a connection that the primary has not opened yet."""

    options: SynOptions
    isn: int
    ack: int
    edge: int
    at: float


@mypyc_attr(acyclic=True)
class Held(HeldUnit):
    """A primary segment that may not go out yet."""

    __slots__ = ("ack", "buf", "data", "end", "fin", "gone", "good", "l4", "overtakes", "start", "stop", "syn", "win")

    def __init__(
        self, unit: Unit, buf: bytes, l4: int, data: int, start: int, stop: int, ack: int, win: int, at: float
    ) -> None:
        self.unit = unit
        self.buf = buf
        self.l4 = l4
        self.data = data
        self.start = self.good = self.gone = start
        """Everything before `good` was found equal, and before `gone` has left: from here, or from a newer copy."""
        self.stop = self.end = stop
        """Where its payload ends; `end` counts a FIN as well."""
        self.syn = self.fin = 0
        self.ack = ack
        self.win = win
        self.at = at
        self.out = False
        self.overtakes = False
        """It came after segments that follow it in the stream, and leaves before them."""


def by_start(held: Held) -> int:
    return held.start


def by_arrival(held: Held) -> float:
    return held.at


def by_ack(held: Held) -> int:
    return held.ack


class TcpState(Stream):
    """State of one connection; `ledger` is the compare it belongs to."""

    __slots__ = (
        "adopted",
        "clamped",
        "closed",
        "committed",
        "data",
        "headed",
        "isn",
        "ledger",
        "mask_end",
        "mask_start",
        "moved",
        "near",
        "next_syn",
        "opener",
        "origin",
        "p_ack",
        "p_fin",
        "p_first",
        "p_scale",
        "p_syn",
        "p_top",
        "p_win",
        "p_wire_ack",
        "parted",
        "ref",
        "repeated",
        "resets",
        "rivals",
        "s_ack",
        "s_edge",
        "s_first",
        "s_isn",
        "s_last_ack",
        "s_plain",
        "s_reset",
        "s_rst",
        "s_scale",
        "s_syn",
        "s_top",
        "s_win",
        "s_wire_ack",
        "stamp",
        "stamp_until",
        "unproven",
        "waiting",
    )  # fmt: skip

    def __init__(self, ledger: Ledger, key: bytes, rule: Rule, now: float) -> None:
        super().__init__(key, rule, now)
        self.ledger = ledger
        # What every segment touches comes first and together: compiled objects lie in memory in this order, and with
        # ten thousand flows each line of a processor's cache less counts.
        self.ref = Reference()
        self.data: list[Held] = []
        self.waiting: list[Held] = []
        self._blank()
        self.resets: list[Held] = []
        self.next_syn: NextSyn | None = None

    def _blank(self) -> None:
        """A connection of which nothing is known yet."""
        self.committed = -1
        """How far both guests have come; negative while that is not known. No `None`, for then every new number of
        every segment would be an object of its own."""
        self.p_wire_ack = -1
        self.p_ack = NEVER
        """The primary's last ACK as it stood on the wire and unwrapped: most segments repeat it."""
        self.p_win = 0
        """The window field that came with it; negative with a SYN, whose window is never scaled (RFC 7323 §2.2)."""
        self.p_top = NEVER
        self.s_wire_ack = self.s_win = -1
        self.s_ack = NEVER
        self.s_edge = NEVER
        self.p_scale = 0
        self.s_scale = -1
        """Window scales; -1 while unknown, and then windows are left alone."""
        self.moved = NEVER * 1.0
        """When `committed` last moved on."""
        self.clamped: Held | None = None
        self.stamp = NO_STAMP
        """The newest TSval that has left before older segments, when it has: they leave with it."""
        self.s_first: int | None = None
        self.opener = False
        """The guests opened the connection and offered to scale: whether the client agreed, their segments do not
        say. So no window may pass the secondary's edge in either reading."""
        self.s_rst = False
        self.closed = False
        self.parted = NEVER
        """When the client reset the connection, in milliseconds; it is told so in shadow mode."""
        self.adopted = False
        # From here on: what acknowledgements, the beginning and rare events need.
        self.near = NEVER
        """ACKs are unwrapped around this: the secondary's highest, or the first that either side sent. It outlives
        connections, so it may wander below zero."""
        self.s_last_ack = NEVER
        self.s_top = NEVER
        """In shadow mode: how far the secondary's pure ACKs say that it is."""
        self.s_reset = NEVER
        """How far the secondary had come when it sent RST: what lies before may have been overtaken by it."""
        self.s_plain = NEVER
        """For an opener, the secondary's right edge if windows are not scaled."""
        self.origin = -1
        self.isn: int | None = None
        self.unproven = NEVER
        """Bytes before this position were not compared here, for the connection was adopted from the middle."""
        self.rivals: tuple[int, ...] = ()
        """Other initial sequence numbers with which the primary has answered the same SYN of the client."""
        self.p_first: int | None = None
        self.p_fin = NEVER
        """Position of the primary's FIN, when it has sent one."""
        self.p_syn: SynOptions | None = None
        self.s_syn: SynOptions | None = None
        self.s_isn = -1
        self.repeated = NEVER
        """When the secondary last repeated what is committed, in milliseconds."""
        self.mask_start = self.mask_end = NEVER
        """Bytes between these positions may differ: a mask covers them."""
        self.headed = NEVER
        """Where the last head ended that left: everything before has left, too."""
        self.stamp_until = NEVER
        """No segment that begins later than this is older than `stamp`."""

    def _position(self, seq: int) -> int:
        near = self.committed
        if near < 0:
            if self.origin < 0:
                self.origin = seq + MOD
            near = self.origin
        return near + ((seq - near + HALF) & MASK) - HALF

    def _ack(self, ack: int) -> int:
        near = self.near
        if near < UNKNOWN:
            self.near = near = ack + MOD
        return near + ((ack - near + HALF) & MASK) - HALF

    def _settle(self, seq: int) -> None:
        """A guest has sent `seq`, and no SYN: that says which of the primary's SYN/ACKs the client has taken.

        It lies behind that number, or at it, as that of a keep-alive or a probe does.
        """
        mine = self.isn or 0
        number = min((mine & MASK, *self.rivals), key=lambda isn: (seq - isn) & MASK)
        self.rivals = ()
        self.unproven = NEVER
        if number == mine & MASK:
            return
        self.isn = self.p_first = isn = self._position(number)
        self._forget_reference("overtaken")
        self.ref = Reference()
        self.committed = self.p_top = isn + 1
        for held in self.data:
            # Positions are relative to `committed`, and none is farther from it than half of all numbers.
            by = self._position(held.start & MASK) - held.start
            held.start, held.stop, held.end = held.start + by, held.stop + by, held.end + by
            held.good = held.gone = held.start
            self.p_top = max(self.p_top, held.end)
            if held.fin:
                self.p_fin = held.stop

    def _clear_queues(self) -> None:
        self.data, self.waiting, self.resets = [], [], []

    def _forget_reference(self, reason: str) -> None:
        """Drop what is kept of the secondary's stream."""
        pending, saved = self.ref.forget(self.ledger.history)
        self.ledger.secondary_bytes -= saved
        self.ledger.secondary_gone(pending, reason, stored=True)

    def offset(self, position: int) -> int:
        """Offset in the guest's stream: 0 is the first byte after the SYN (or of what was adopted)."""
        if self.isn is not None:
            return position - self.isn - 1
        return position - (self.p_first if self.p_first is not None else self.origin)

    def _explain(self, position: int, held: Held, now: float) -> dict[str, Any]:
        low = max(position - CONTEXT, held.start + held.syn)
        before = max(position - low, 0)
        at = held.data + low - held.start
        mine = bytes(held.buf[at : min(at + before + CONTEXT, held.data + held.stop - held.start)])
        its, begin = self.ref.slice(low, position + CONTEXT)
        detail: dict[str, Any] = {
            "position": position & MASK,
            "context": before,
            "primary": mine.hex(),
            "secondary": its.hex(),
            "secondary_context": position - begin,
            "age_ms": round((now - held.at) * 1000),
            "held": len(self.data) + len(self.waiting),
            "secondary_pending": self.ref.pending(),
            "committed": self.offset(self.committed if self.committed >= 0 else position),
        }
        if self.p_syn != self.s_syn and held.syn:
            detail["primary_options"] = str(self.p_syn)
            detail["secondary_options"] = str(self.s_syn)
        return detail

    # -- what the compare asks of every kind of flow -------------------------------------------------

    def oldest(self) -> float | None:
        """Arrival time of the oldest held primary frame."""
        return min((h.at for h in (*self.data, *self.waiting, *self.resets) if not h.out), default=None)

    def leftover(self) -> bool:
        """Does it keep something of the secondary that the primary has not sent?"""
        return self.ref.pending() > 0

    def lingers(self) -> bool:
        """True while `expire` may have something to do."""
        return any(held.out for held in (*self.data, *self.waiting, *self.resets))

    def sweep(self) -> None:
        """Let go of what is of no use any more."""
        self.ref.sweep()

    def timed_out(self, now: float) -> None:
        """A frame waited longer than compare_timeout.

        While bytes are still found equal, the primary is merely ahead: its congestion window is larger, or the
        client's network slow. Then the old frames are dropped, which is loss on a wire, and come again in time. So are
        those that wait only for what was lost on its way to us: guests send it again, though later each time. So are
        those that wait for a secondary which repeats what has left: it may send no more before the client acknowledges
        that.
        """
        limit = now - self.ledger.timeout
        for held in [one for one in self.resets if one.start == FORMER and one.at < limit and not one.out]:
            # The secondary has not reset the connection before, and the client will hear of that from itself.
            self.resets.remove(held)
            self.ledger.drop(held, "replaced")
        if self.closed and self.s_rst:
            # Both have reset it, and the primary's RST has overtaken what both had sent before.
            self._drop_old(limit, self.s_reset, "reset")
        waits = self.repeated > limit * 1000 or self._lost()
        if self.moved > limit or (waits and self.moved > now - PATIENCE * self.ledger.timeout):
            self._drop_old(limit, -NEVER, "stale")
        late = [h for h in (*self.data, *self.waiting, *self.resets) if not h.out and h.at < limit]
        if late:
            self._late(min(late, key=by_arrival), now)

    def _drop_old(self, limit: float, end: int, reason: str) -> None:
        """Drop what came before `limit` and lies before `end`."""
        old = [held for held in self.data if held.at < limit and held.end <= end and not held.out]
        self.data = [held for held in self.data if held.at >= limit or held.end > end or held.out]
        for held in old:
            self.ledger.drop(held, reason)

    def _lost(self) -> bool:
        """Does what is held wait for bytes that a guest has sent, for they lie before others that have come? A frame of
        the one guest was dropped on the way, and not of the other. Of a connection that was adopted from the middle
        that is not so sure: another compare may have let those bytes go, and nobody sends them again.
        """
        data, segments, first = self.data, self.ref.segments, self.ref.first
        if not data or self.diverged or self.adopted:
            return False
        base, fin = self.committed, self.ref.fin
        return data[0].start > base or (segments[first].start > base if first < len(segments) else (fin or 0) > base)

    def _late(self, held: Held, now: float) -> None:
        if self.rivals and not held.syn and held in self.data:
            self._settle(held.start & MASK)
        position = max(held.good, held.start)
        detail = self._explain(position, held, now)
        detail["waits_for"] = "bytes" if held in self.data else "ack" if held in self.waiting else "rst"
        self.ledger.want(self, Reason.TIMEOUT, self.offset(position), detail, now)

    def abandon(self, reason: str) -> None:
        """The flow is evicted: what it holds is dropped (a guest sends it again)."""
        for held in (*self.data, *self.waiting, *self.resets):
            self.ledger.drop(held, reason)
        self._clear_queues()
        self._forget_reference(reason)

    def evidence(self, verdict: str) -> list[Shown]:
        """Held frames of the primary, and the secondary's around the first that is not wholly equal, on which the
        verdict stands. When the secondary's frames came is not kept: they show the time of that one.
        """
        held = [one for one in (*self.data, *self.waiting, *self.resets) if one.buf]
        unequal = next((at for at, one in enumerate(held) if one.good < one.end), 0)
        held = held[max(unequal - 2, 0) :][:SHOWN]
        worst = next((one for one in held if one.good < one.end), held[0] if held else None)
        shown = []
        for one in held:
            place = f"primary, stream {self.offset(one.start)} to {self.offset(one.end)}"
            comment = verdict if one is worst else f"{place}, equal to {self.offset(one.good)}"
            shown += [Shown(0, one.at, frame, comment) for frame in frames_in(one.unit)]
        if worst is None:
            return shown
        first = max(self.ref.find(worst.good) - 2, 0)
        for segment in self.ref.segments[first : first + SHOWN]:
            if len(segment.buffer) > ETH + 14:
                comment = f"secondary, stream {self.offset(segment.start)} to {self.offset(segment.stop)}"
                shown.append(Shown(1, worst.at, segment.buffer, comment))
        return shown

    def idle_since(self, now: float) -> bool:
        """True when the flow can be forgotten."""
        return now - self.touched > (LINGER if self.closed else IDLE)
