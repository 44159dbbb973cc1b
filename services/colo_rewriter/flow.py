"""Tracked connections: what is known of each, and the bounded table that holds them.

::

              SYN, SYN/ACK of either side         both initial numbers known
    (none) ------------------------------> HALF ---------------------------> OPEN
                                            ^                                  | FIN of either side
                                            | SYN of a new connection          v
                                          CLOSED <----------------------- CLOSING
                                             both FINs acknowledged, or RST (also from OPEN)

The connections of each state stand in one queue, ordered by last use, so expiry and eviction look only at its head.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from enum import IntEnum
from itertools import takewhile
from typing import Final, NamedTuple

from colo_proto.net import flow as flows
from colo_proto.net.craft import Connection, Ethernet, vlan_tags
from colo_proto.net.packet import PROTO_TCP
from colo_proto.net.tcp import Segment, segment
from colo_proto.seq import HALF, MASK

MAX_GAPS: Final = 64
"""Pieces behind a gap in what a guest sent that are remembered."""

Frames = list[bytes | bytearray]

SLOW, PLAIN, SHIFT, PACED = range(4)
"""What the fast path may do with a segment without SYN, FIN and RST: nothing, pass it, shift it, or ask its `Pace`."""


class Outbox:
    """Frames on their way out, in order, until the rewriter sends them."""

    def __init__(self) -> None:
        self.to_guest: Frames = []
        self.to_client: Frames = []
        self.notes: Frames = []
        """What compare has to know of clients. It goes to `outdev` behind what the guest has sent."""

    def take(self) -> tuple[Frames, Frames]:
        """Everything for the guest, and everything for the client; nothing is left."""
        taken = self.to_guest, self.to_client + self.notes if self.notes else self.to_client
        self.to_guest, self.to_client, self.notes = [], [], []
        return taken


class State(IntEnum):
    """The state of a connection, as far as the rewriter must know it."""

    HALF = 0
    """Not both initial sequence numbers are known; nothing can be shifted."""
    OPEN = 1
    CLOSING = 2
    """At least one side has sent FIN."""
    CLOSED = 3
    """It is over (TIME_WAIT, or reset), and kept for a while because late segments and retransmissions may come."""


class Fate(IntEnum):
    """What a failover would mean, or has meant, for a connection (`ending`)."""

    PROTECTED = 0
    DOUBTFUL = 1
    """It waits for a checkpoint. If that copies no state, it is lost."""
    LOST = 2
    """It is unprotected: a failover cannot continue it."""
    ENDED = 3
    """The guest is told that it is over, and after a failover the client as well."""
    OVER = 4
    """The client has said that it does not have it any more."""


class Arrival(NamedTuple):
    """A frame with a TCP header at `l4`, which is read only once. `key` is that of this frame's direction."""

    frame: bytes
    key: bytes
    l4: int
    segment: Segment
    whole: bool
    """False for the first fragment of a larger packet, which does not hold the end of the segment."""


class Pace:
    """How far a guest has come that the primary does not wait for, and what waits for it (`pace`).

    All numbers are the guest's own, with the names of RFC 9293 §3.3.1.
    """

    def __init__(self, snd_nxt: int, rcv_nxt: int, rcv_edge: int) -> None:
        self.snd_nxt = self.snd_una = snd_nxt
        """What follows the last byte that it has sent without a gap; what follows the last that was acknowledged to it
        here."""
        self.rcv_nxt = rcv_nxt
        """The next byte of the client that it expects."""
        self.rcv_edge = rcv_edge
        """The right edge of the window that it offers."""
        self.gaps: list[tuple[int, int]] = []
        """What it sent behind a gap: frames between it and us were lost, and it sends them again."""
        self.gap_grew = False
        """Something more has come from behind a gap."""
        self.queue: deque[Arrival] = deque()
        self.bytes = 0
        self.owed: Arrival | None = None
        """The client's last segment that went with a lowered acknowledgement, up to its payload: the guest has still
        to hear of the full acknowledgement."""
        self.lowering = False
        """Something waited for too long. The client's segments go at once, with a lowered acknowledgement, as far as
        the guest's window allows."""
        self.dropped_at = -1
        """The first byte of the client that was dropped because too much waited, and that the guest never gets."""
        self.overrun_noted = False
        """Compare knows of that."""

    def may_pass(self, seq: int, ack: int, after: int) -> bool:
        """May a client's segment (bytes from `seq` to before `after`) go at once?"""
        if self.queue or (ack - self.snd_nxt - 1) & MASK < HALF:
            return False
        if seq != after and (after - self.rcv_edge - 1) & MASK < HALF:
            return False
        if (ack - self.snd_una) & MASK < HALF:
            self.snd_una = ack
        return True

    def heard(self, seq: int, after: int, ack: int, window: int, has_ack: bool) -> None:
        """Note a segment of the guest (bytes from `seq` to before `after`)."""
        if has_ack:
            if (ack - self.rcv_nxt) & MASK < HALF:
                self.rcv_nxt = ack
            edge = (ack + window) & MASK
            if (edge - self.rcv_edge) & MASK < HALF:
                self.rcv_edge = edge
        if (after - self.snd_nxt - 1) & MASK >= HALF:
            return
        if (seq - self.snd_nxt - 1) & MASK < HALF:
            if after != seq and len(self.gaps) < MAX_GAPS:
                self.gaps.append((seq, after))
                self.gap_grew = True
            return
        self.snd_nxt = after
        before = -1
        while self.gaps and self.snd_nxt != before:
            before = self.snd_nxt
            left = []
            for start, end in self.gaps:
                if (start - self.snd_nxt - 1) & MASK < HALF:
                    left.append((start, end))
                elif (end - self.snd_nxt) & MASK < HALF:
                    self.snd_nxt = end
            self.gaps = left


_NO_QUEUE: OrderedDict["Flow", None] = OrderedDict()


class Flow:
    """One connection. Sequence numbers of the guest are the secondary's own unless said otherwise."""

    __slots__ = (
        "acks_syn_data", "again", "challenged", "client_ack", "client_fin", "client_fin_acked", "client_isn",
        "client_over", "client_scale", "closed_by_reset", "dropped_at", "echo", "fast", "fate", "guest_fin",
        "guest_fin_acked", "guest_scale", "guest_syn_data", "held", "hold_expired", "isn_primary", "isn_secondary",
        "key_client", "key_guest", "last_client", "last_guest", "offset", "own", "pace", "paced", "predecessor",
        "queue", "reset_by_guest", "sacks", "seen", "state", "state_since", "successor", "syn_data", "ts_offset",
        "ts_primary", "ts_secondary",
    )  # fmt: skip

    def __init__(self, key_client: bytes, key_guest: bytes, now: float) -> None:
        self.key_client = key_client
        """Bytes of addresses, ports and tags as a frame of the client carries them."""
        self.key_guest = key_guest
        self.state = State.HALF
        self.fast = SLOW
        self.offset = 0
        """ISN of the secondary minus ISN of the primary, modulo 2^32."""
        self.own = False
        """It was opened while this host leads, and this host has led ever since: the client has the guest's own numbers
        and timestamps."""
        self.ts_offset = 0
        """The secondary's timestamp clock minus the primary's, modulo 2^32."""
        self.client_isn: int | None = None
        self.challenged = -1
        """The sequence number that a guest expects which has answered the client's SYN with an ACK of another
        connection; -1 when it has not."""
        self.syn_data = 0
        """Bytes of data on the client's SYN (Fast Open, RFC 7413): the answer may acknowledge any part of them."""
        self.guest_syn_data = 0
        """The same of the guest's last SYN."""
        self.acks_syn_data = False
        """`isn_primary` was learned from an answer to the guest's SYN, and counts the data on that SYN as well."""
        self.client_scale = self.guest_scale = -1
        """Window scales that the SYNs offered; -1 for none."""
        self.sacks = False
        """The guest understands SACK blocks."""
        self.isn_secondary: int | None = None
        self.ts_secondary: int | None = None
        self.isn_primary: int | None = None
        self.ts_primary: int | None = None
        self.echo: int | None = None
        """Highest timestamp of the primary that the client has echoed."""
        self.last_guest: tuple[bytes, int, int] | None = None
        """The guest's last segment, in its own numbers: up to its payload, where its TCP header is, payload bytes."""
        self.last_client: tuple[bytes, int] | None = None
        """While numbers are equal: the client's last segment up to its payload, and where its TCP header is."""
        self.client_over = False
        """A FIN or RST of the client was seen, whatever the guest made of it."""
        self.client_fin: int | None = None
        """Sequence number after the client's FIN."""
        self.client_fin_acked = False
        self.guest_fin: int | None = None
        self.guest_fin_acked = False
        self.closed_by_reset = False
        self.reset_by_guest = False
        self.state_since = now
        """When the state last changed."""
        self.seen = now
        self.queue: OrderedDict[Flow, None] = _NO_QUEUE
        """The table's queue that it stands in."""
        self.held: list[Arrival] = []
        """Client frames that wait for the guest's SYN or SYN/ACK."""
        self.dropped_at = -1
        """The first byte of the client that was dropped behind those, because too much waited (shadow mode); or -1."""
        self.hold_expired = False
        """They were not waited for any longer: later frames pass at once."""
        self.successor: Flow | None = None
        """A new connection on these ports of which only the client has spoken so far: the guest has not taken it."""
        self.predecessor: Flow | None = None
        """While this one is HALF: the connection whose ports it took. The client may not know of the new one."""
        self.fate = Fate.PROTECTED
        self.client_ack = -1
        """The newest acknowledgement number of the client, from when on the connection was unprotected; or -1."""
        self.again = b""
        """The client's SYN that goes to the guest once more when the guest has been reset (`ending`)."""
        self.paced = False
        """The client may be ahead of this guest, because the primary's frames do not wait for it (shadow mode), or did
        not before: the client's segments wait for the guest (`pace`)."""
        self.pace: Pace | None = None
        """How far the guest has come, where its client may be ahead of it."""

    def compute_offsets(self) -> None:
        """Compute both offsets: call when both initial sequence numbers are known."""
        assert self.isn_secondary is not None
        assert self.isn_primary is not None
        if self.acks_syn_data:
            self.isn_primary = (self.isn_primary - self.guest_syn_data) & MASK
            self.acks_syn_data = False
        self.offset = (self.isn_secondary - self.isn_primary) & MASK
        self.predecessor = None
        if self.ts_secondary is not None and self.ts_primary is not None:
            self.ts_offset = (self.ts_secondary - self.ts_primary) & MASK

    def last_segment(self) -> Segment | None:
        """The guest's last segment, in its own numbers; None while it has sent none."""
        if self.last_guest is None:
            return None
        header, l4, length = self.last_guest
        return segment(header, l4, len(header) + length)

    def text(self) -> str:
        """The flow in words, from the guest's point of view."""
        return flows.describe(bytes((PROTO_TCP,)) + self.key_guest)


def sender(key: bytes, src_mac: bytes, dst_mac: bytes) -> Connection:
    """Who sends on the connection `key`, as segments are built from it; VLAN tags included."""
    width = 4 if len(key) < 36 else 16
    ports = 2 * width
    ethernet = Ethernet(src_mac, dst_mac, vlan_tags(key[ports + 4 :]))
    return Connection(ethernet, key[:width], key[width:ports], key[ports : ports + 4])


def opposite(key: bytes) -> bytes:
    """The key of the other direction (keys here lack the protocol byte of `colo_proto.net.flow`)."""
    return flows.reverse(bytes((PROTO_TCP,)) + key)[1:]


class FlowTable:
    """At most `limit` connections, found by either direction's key, expired in constant time each."""

    def __init__(self, limit: int, half_open: float, established: float, closed: float) -> None:
        self.by_client: dict[bytes, Flow] = {}
        self.by_guest: dict[bytes, Flow] = {}
        self.promoted = False
        """After a failover even connections with equal numbers are shifted: the survivor's clock may run behind."""
        self.roles_change = False
        """This host may follow again after it has led, so connections that begin while it leads are tracked as well."""
        self._limit = limit
        self._queues: tuple[OrderedDict[Flow, None], ...] = tuple(OrderedDict() for _ in range(3))
        self._timeouts = (half_open, established, closed)
        self._next_sweep = 0.0

    # CLOSING stands in the queue of OPEN: a half-closed connection may last as long as an open one.
    _QUEUE_OF = (0, 1, 1, 2)

    def __len__(self) -> int:
        return len(self.by_client)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.by_client.values())

    def count(self) -> dict[str, int]:
        """Entries by queue: `half_open`, `established` (closing ones too), `closed`."""
        return dict(zip(("half_open", "established", "closed"), map(len, self._queues), strict=True))

    def add(self, flow: Flow) -> Flow | None:
        """Put a new flow in; returns the flow that had to make room, if any."""
        victim = None
        if len(self.by_client) >= self._limit:
            # A flood of SYNs or of short connections must not push out established connections. So the larger one of
            # these two queues gives up an entry first.
            half, established, closed = self._queues
            queue = max(half, closed, key=len) or established
            victim = next(iter(queue))
            self.remove(victim)
        self.by_client[flow.key_client] = flow
        self.by_guest[flow.key_guest] = flow
        flow.queue = self._queues[self._QUEUE_OF[flow.state]]
        flow.queue[flow] = None
        return victim

    def excess_established(self) -> Flow | None:
        """The established flow that has to go after another became established, if any. The caller removes it.

        A part of the table is left to handshakes. So only a connection that has completed one, which needs the guest's
        answer and a client that hears it, can push out an established connection.
        """
        established = self._queues[1]
        most = self._limit - (max(self._limit >> 4, 1) if self._limit > 1 else 0)
        return next(iter(established)) if len(established) > most else None

    def touch(self, flow: Flow, now: float) -> None:
        """Note that the flow was used: it moves to the young end of its queue."""
        flow.seen = now
        flow.queue.move_to_end(flow)

    def enter(self, flow: Flow, state: State, now: float) -> None:
        """Change a flow's state, and with it what the fast path may do."""
        del flow.queue[flow]
        flow.state = state
        flow.state_since = flow.seen = now
        flow.queue = self._queues[self._QUEUE_OF[state]]
        flow.queue[flow] = None
        self.refresh(flow)

    def refresh(self, flow: Flow) -> None:
        """Set what the fast path may do after offsets or the successor changed."""
        if flow.state is not State.OPEN or flow.successor is not None or flow.fate >= Fate.LOST:
            flow.fast = SLOW
        elif (flow.paced or flow.pace is not None) and not self.promoted:
            flow.fast = PACED
        else:
            flow.fast = SHIFT if self.shifts(flow) else PLAIN

    def shifts(self, flow: Flow) -> bool:
        """Do the connection's segments need other numbers, or (after a failover) a look at their timestamps?"""
        return bool(flow.offset or flow.ts_offset or (self.promoted and not flow.own))

    def remove(self, flow: Flow) -> None:
        """Forget a flow."""
        del flow.queue[flow]
        del self.by_client[flow.key_client]
        del self.by_guest[flow.key_guest]

    def expire(self, now: float) -> list[Flow]:
        """Remove and return every flow that was idle for the time of its state."""
        gone: list[Flow] = []
        for queue, timeout in zip(self._queues, self._timeouts, strict=True):
            gone += takewhile(lambda flow, idle=timeout: flow.seen + idle <= now, queue)  # type: ignore[misc]
        for flow in gone:
            self.remove(flow)
        # At most one sweep a second, so that many idle flows do not mean as many timers.
        self._next_sweep = now + 1.0
        return gone

    def deadline(self) -> float | None:
        """When `expire` has something to do, or None for an empty table."""
        due = [next(iter(q)).seen + timeout for q, timeout in zip(self._queues, self._timeouts, strict=True) if q]
        return max(min(due), self._next_sweep) if due else None
