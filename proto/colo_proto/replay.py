"""The two ends of a link that must not lose a frame unnoticed (`?reliable=on`; `docs/design.md`, "Links").

::

    core -> push -> [ ring: sent, not acknowledged | not sent ] -> batches -> [ in order? ] -> core
                      ^ base                        ^ cursor   ^ end            next
                      |                                                          |
                      +-- ack(next): free -------------------------- LinkAck ----+
                      +-- hello(next): cursor := next -------------- LinkHello --+  attached, gap, silence
                          answer: LinkStart (nothing missing) or LinkReset (a gap) ->

Sequence numbers count frames since the start of the sender (its *incarnation*). The ring keeps the frames that were
not acknowledged, up to a bound in bytes; frames that the bound pushes out are lost. The receiver passes frames on in
order, drops duplicates, and says hello again when a batch is missing. It accepts nothing from a sender that has not
answered its hello, because what arrives before that answer may begin anywhere. A frame can reach the core twice, when
the receiver is killed before it has acknowledged it; it is never skipped without a gap being reported.

What happens when one of them is killed:

* the receiver: the new one says `hello(-1)` and gets everything that was not acknowledged;
* the sender: the hello of the receiver names the dead incarnation. A *source* (it reads a tap) cannot know
  what its predecessor still had, so it answers `LinkReset`, which is a gap. A *relay* acknowledges its own
  input only when its output is acknowledged (never what its own ring has pushed out), so the process before it
  replays, and nothing is missing;
* the connection: when it is back, the receiver says hello with its `next`, and the sender continues from there;
* both at once: the new ones cannot know what was before them. Their COLO frame does: it notices the Hello of a mirror
  with another incarnation, and demands a checkpoint;
* an old second connection delivers old batches: they are duplicates, or of another incarnation, and are ignored.

There are no sockets and no clocks here: `now` (monotonic seconds) is an argument, and the runtime carries the messages.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from colo_proto.codec import MAX_BATCH_BYTES, MAX_BATCH_FRAMES, Batch, LinkReset, LinkStart
from colo_proto.errors import WireError
from colo_proto.frame import Buffer

SomeBuffer = TypeVar("SomeBuffer", bytes, Buffer)
"""The type of a frame stays what it is."""

FRAME_OVERHEAD: Final = 64
"""Bytes that a frame costs in the ring beside its own, so that the number of tiny frames is bounded too."""

HELLO_INTERVAL: Final = 0.2
"""Seconds before a receiver repeats an unanswered hello: longer than a round trip between hosts."""
SENDER_SILENCE: Final = 0.5
"""Seconds without a message from the sender after which a receiver says hello, to learn whether it is there."""


class _Entry(NamedTuple):
    sequence: int
    frames: Sequence[Buffer]
    cost: int


def cut(frames: Sequence[SomeBuffer]) -> list[Sequence[SomeBuffer]]:
    """`frames` in pieces of at most 64 frames or 256 KiB; the frame that reaches the limit is the last of its piece."""
    count = len(frames)
    if count == 1 or (count <= MAX_BATCH_FRAMES and sum(map(len, frames)) <= MAX_BATCH_BYTES):
        return [frames]
    pieces: list[Sequence[SomeBuffer]] = []
    start = size = 0
    for at, frame in enumerate(frames):
        size += len(frame)
        if size >= MAX_BATCH_BYTES or at + 1 - start == MAX_BATCH_FRAMES:
            pieces.append(frames[start : at + 1])
            start, size = at + 1, 0
    if start < count:
        pieces.append(frames[start:])
    return pieces


class ReplaySender:
    """The sending end. `source` is false for a relay, whose own input is acknowledged only after this output.

    `counters`, of the link that this is a part of, counts the frames `evicted` and `replayed`, and the `resets`.
    """

    def __init__(self, link: str, incarnation: int, limit: int, counters: Counter[str], *, source: bool = True) -> None:
        self.link = link
        self.incarnation = incarnation
        self.limit = limit
        self.source = source
        self.counters = counters
        self.ring_bytes = 0
        self.end = 0
        """Sequence number of the next frame to be pushed."""
        self.acked = 0
        """The receiver has acknowledged everything before this number."""
        self.attached = False
        """A receiver has said hello on the present connection."""
        self._ring: deque[_Entry] = deque()
        self._cursor = 0
        """Index in the ring of the next batch to send."""
        self._sent = 0
        """The highest number that was ever sent, to recognise replays."""

    @property
    def base(self) -> int:
        """Sequence number of the oldest frame that can still be sent."""
        return self._ring[0].sequence if self._ring else self.end

    def push(self, frames: Sequence[Buffer]) -> None:
        """Append frames. At the bound the oldest frames leave the ring: a gap, if they were not acknowledged."""
        for piece in cut(frames):
            cost = sum(map(len, piece)) + len(piece) * FRAME_OVERHEAD
            self._ring.append(_Entry(self.end, piece, cost))
            self.end += len(piece)
            self.ring_bytes += cost
        while self.ring_bytes > self.limit and len(self._ring) > 1:
            gone = self._drop_oldest()
            self.counters["evicted"] += len(gone.frames)

    def due(self) -> Batch | None:
        """The next batch to send, or None; without a receiver there is none. Call `sent` after sending it. Epoch and
        timestamp are 0.
        """
        if not self.attached or self._cursor >= len(self._ring):
            return None
        entry = self._ring[self._cursor]
        # Frames that a core has made may be bytearrays; the packer takes them as they are.
        return Batch(self.link, self.incarnation, entry.sequence, 0, 0.0, entry.frames)  # type: ignore[arg-type]

    def sent(self) -> None:
        """The batch that `due` returned was sent."""
        entry = self._ring[self._cursor]
        self._cursor += 1
        upto = entry.sequence + len(entry.frames)
        if entry.sequence < self._sent:
            self.counters["replayed"] += min(upto, self._sent) - entry.sequence
        self._sent = max(self._sent, upto)

    def detached(self) -> None:
        """The receiver is gone; wait for the next hello."""
        self.attached = False

    def hello(self, incarnation: int, next_wanted: int) -> LinkStart | LinkReset:
        """A receiver attaches, or asks again. Returns the answer; `WireError` when it asks for a number never used."""
        mine = incarnation == self.incarnation
        if mine and next_wanted > self.end:
            raise WireError("hello_range", f"{next_wanted} was never sent")
        base = self.base
        if mine and next_wanted >= 0:
            start, missing = max(next_wanted, base), next_wanted < base
        else:
            # A new receiver, or one that has followed a predecessor of this process.
            start, missing = base, base > self.acked or (next_wanted >= 0 and self.source)
        self.attached = True
        self._cursor = self._index(start)
        if missing:
            self.counters["resets"] += 1
            return LinkReset(self.link, self.incarnation, start)
        return LinkStart(self.link, self.incarnation, start)

    def ack(self, incarnation: int, next_wanted: int) -> None:
        """Free everything before `next_wanted`. Acknowledgements for a predecessor of this process are ignored."""
        if incarnation != self.incarnation:
            return
        if next_wanted > self._sent:
            raise WireError("ack_range", f"{next_wanted} was never sent")
        self.acked = max(self.acked, next_wanted)
        ring = self._ring
        while ring and ring[0].sequence + len(ring[0].frames) <= self.acked:
            self._drop_oldest()

    @property
    def unacknowledged(self) -> int:
        """Frames in the ring that the receiver has not acknowledged."""
        return self.end - max(self.acked, self.base)

    def _drop_oldest(self) -> _Entry:
        entry = self._ring.popleft()
        self.ring_bytes -= entry.cost
        if self._cursor:
            self._cursor -= 1
        return entry

    def _index(self, sequence: int) -> int:
        """Index of the batch that contains `sequence`. It may begin earlier: the receiver drops the duplicates."""
        return bisect_right(self._ring, sequence, key=lambda entry: entry.sequence + len(entry.frames))


class ReplayReceiver:
    """The receiving end for one sender. `counters` are those of the link that this is a part of."""

    def __init__(self, counters: Counter[str]) -> None:
        self.link = ""
        self.incarnation = 0
        self.next = -1
        """Sequence number of the next frame to pass on; -1 until a sender has answered."""
        self.counters = counters
        self.asking = True
        """True when a hello is to be sent as soon as the link accepts it."""
        self._asked = float("-inf")
        self.heard = float("-inf")
        """When the sender was last heard."""

    def batch(self, batch: Batch, now: float) -> list[bytes]:
        """The frames of `batch` that come next in order; empty when they are old, or come too early."""
        self.heard = now
        if batch.incarnation != self.incarnation or self.next < 0:
            # This sender has not answered our hello: what it sends may begin anywhere.
            self._ask(now)
            return []
        frames = batch.frames
        late = self.next - batch.sequence
        if late < 0:
            self.counters["early"] += len(frames)
            self._ask(now)
            return []
        if late:
            self.counters["duplicates"] += min(late, len(frames))
            if late >= len(frames):
                return []
            frames = frames[late:]
        self.next += len(frames)
        return frames

    def answer(self, answer: LinkStart | LinkReset, now: float) -> bool:
        """The sender has answered a hello. Returns True when frames are lost for ever."""
        self.heard = now
        if answer.incarnation == self.incarnation and self.next >= 0:
            if answer.sequence <= self.next:
                # What follows overlaps what we have, or the answer came twice.
                return False
            missing = True
        else:
            missing = isinstance(answer, LinkReset)
        if answer.incarnation == self.incarnation:
            self.counters["gap_frames"] += answer.sequence - max(self.next, 0)
        self.incarnation = answer.incarnation
        self.link = answer.link
        self.next = answer.sequence
        self.asking = False
        self.counters["gaps"] += missing
        return missing

    def hello(self, now: float) -> tuple[int, int]:
        """The incarnation and the number to put into the hello that is sent now."""
        self.asking = False
        self._asked = now
        return self.incarnation, self.next

    def connected(self) -> None:
        """A connection was made: the sender may be new, or may have sent frames that nobody received."""
        self.asking = True

    def deadline(self) -> float:
        """When `on_timer` is due."""
        return max(self._asked, self.heard) + SENDER_SILENCE

    def on_timer(self, now: float) -> None:
        """Say hello when the sender has been silent for `SENDER_SILENCE`."""
        if now >= self.deadline():
            self.asking = True

    def _ask(self, now: float) -> None:
        if now - self._asked >= HELLO_INTERVAL:
            self.asking = True
