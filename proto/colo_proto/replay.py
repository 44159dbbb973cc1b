"""The two ends of a link that may not lose a frame silently (`?reliable=on`; `docs/design.md`, "Links").

::

    core -> push -> [ ring: sent, not acknowledged | not sent ] -> batches -> [ in order? ] -> core
                      ^ base                        ^ cursor   ^ end            next
                      |                                                          |
                      +-- ack(next): free -------------------------- LinkAck ----+
                      +-- hello(next): cursor := next -------------- LinkHello --+  attached, gap, silence
                          answer: LinkStart (nothing missing) or LinkReset (a gap) ->

Sequence numbers count frames since the sender's start (its *incarnation*). The ring keeps what was
not acknowledged, up to a bound in bytes; what the bound pushes out is lost. The receiver passes
frames on in order, drops duplicates, and asks again (`hello`) when a batch is missing; it believes
nothing from a sender that has not answered its hello, because what arrives before that answer may
begin anywhere. A frame can reach the core twice when a receiver is killed before it acknowledged
it, and is never skipped without a gap being reported.

Who is killed, and what then:

* the receiver: the new one says `hello(-1)` and gets everything unacknowledged;
* the sender: the receiver's hello names the dead incarnation. A *source* (it read a tap) cannot know
  what its predecessor still had, so it answers `LinkReset`: a gap. A *relay* acknowledges its own
  input only when its output is acknowledged (what its own ring pushed out never is), so its upstream
  replays and nothing is missing;
* the connection: the receiver says hello with its `next` when it is back, and goes on from there;
* both at once: the new ones cannot know what was before them. Their frame does: it sees a mirror say
  Hello with another incarnation, and asks for a checkpoint;
* a stale second connection delivers old batches: duplicates, or of another incarnation; both ignored.

No sockets and no clocks here: `now` is handed in, the runtime carries the messages.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from colo_proto.codec import MAX_BATCH_BYTES, MAX_BATCH_FRAMES, Batch, LinkReset, LinkStart
from colo_proto.errors import WireError
from colo_proto.frame import Buffer

SomeBuffer = TypeVar("SomeBuffer", bytes, Buffer)
"""Frames come out as what they went in as."""

RING_BYTES: Final = 64 * 1024 * 1024
FRAME_OVERHEAD: Final = 64
"""Bytes of bookkeeping that a frame is charged for in the ring, so that tiny frames are bounded too."""

ASK_AGAIN: Final = 0.2
"""Seconds before a receiver repeats an unanswered hello: longer than a round trip between hosts."""
SILENCE: Final = 0.5
"""Seconds without a word from the sender after which a receiver says hello to find out."""


class _Entry(NamedTuple):
    sequence: int
    frames: Sequence[Buffer]
    cost: int


def cut(frames: Sequence[SomeBuffer]) -> list[Sequence[SomeBuffer]]:
    """`frames` in pieces of at most 64 frames or 256 KiB (the frame that passes the limit is the last)."""
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
    """The sending end. `source` is false for a relay whose input is acknowledged end to end."""

    def __init__(self, link: str, incarnation: int, limit: int = RING_BYTES, *, source: bool = True) -> None:
        self.link = link
        self.incarnation = incarnation
        self.limit = limit
        self.source = source
        self.counters: Counter[str] = Counter()
        self.ring_bytes = 0
        self.end = 0
        """Sequence of the next frame to be pushed."""
        self.acked = 0
        """Everything before this is done, says the receiver."""
        self.attached = False
        """A receiver has said hello on the present connection."""
        self._ring: deque[_Entry] = deque()
        self._cursor = 0
        """Index into the ring of the next batch to send."""
        self._sent = 0
        """Highest sequence ever sent, to tell replays."""

    @property
    def base(self) -> int:
        """Sequence of the oldest frame that can still be sent."""
        return self._ring[0].sequence if self._ring else self.end

    def push(self, frames: Sequence[Buffer]) -> None:
        """Append frames. Never refuses: at the bound the oldest leave the ring, which is a gap if unacknowledged."""
        for piece in cut(frames):
            cost = sum(map(len, piece)) + len(piece) * FRAME_OVERHEAD
            self._ring.append(_Entry(self.end, piece, cost))
            self.end += len(piece)
            self.ring_bytes += cost
        while self.ring_bytes > self.limit and len(self._ring) > 1:
            gone = self._drop_oldest()
            self.counters["evicted"] += len(gone.frames)

    def due(self) -> Batch | None:
        """The next batch to send, when a receiver is attached; `sent` says that it went out. Epoch and time are 0."""
        if not self.attached or self._cursor >= len(self._ring):
            return None
        entry = self._ring[self._cursor]
        # Frames of the core's making may be bytearrays; they go to the packer as they are.
        return Batch(self.link, self.incarnation, entry.sequence, 0, 0.0, entry.frames)  # type: ignore[arg-type]

    def sent(self) -> None:
        """The batch given by `due` went out."""
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
        """A receiver attaches or asks again. `WireError` when it asks for what never was."""
        mine = incarnation == self.incarnation
        if mine and next_wanted > self.end:
            raise WireError("hello_range", f"{next_wanted} was never sent")
        base = self.base
        if mine and next_wanted >= 0:
            start, missing = max(next_wanted, base), next_wanted < base
        else:
            # A new receiver, or one that followed a predecessor of ours.
            start, missing = base, base > self.acked or (next_wanted >= 0 and self.source)
        self.attached = True
        self._cursor = self._index(start)
        if missing:
            self.counters["gaps"] += 1
            return LinkReset(self.link, self.incarnation, start)
        return LinkStart(self.link, self.incarnation, start)

    def ack(self, incarnation: int, next_wanted: int) -> None:
        """Everything before `next_wanted` is done: free it. Acknowledgements of a predecessor mean nothing."""
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
        """Frames in the ring that the receiver has not confirmed."""
        return self.end - max(self.acked, self.base)

    def _drop_oldest(self) -> _Entry:
        entry = self._ring.popleft()
        self.ring_bytes -= entry.cost
        if self._cursor:
            self._cursor -= 1
        return entry

    def _index(self, sequence: int) -> int:
        """Index of the batch that holds `sequence` (it may begin earlier: the receiver drops duplicates)."""
        at = bisect_right(self._ring, sequence, key=lambda entry: entry.sequence) - 1
        if at >= 0 and self._ring[at].sequence + len(self._ring[at].frames) > sequence:
            return at
        return at + 1


class ReplayReceiver:
    """The receiving end for one sender."""

    def __init__(self, link: str = "") -> None:
        self.link = link
        self.incarnation = 0
        self.next = -1
        """Sequence of the next frame to pass on; -1 until a sender has answered."""
        self.counters: Counter[str] = Counter()
        self.asking = True
        """A hello is due as soon as the link takes it."""
        self._asked = float("-inf")
        self._heard = float("-inf")

    def batch(self, batch: Batch, now: float) -> list[bytes]:
        """The frames of `batch` that are next in order; empty when they are old, or too early."""
        self._heard = now
        if batch.incarnation != self.incarnation or self.next < 0:
            # A sender that has not answered our hello: what it sends may begin anywhere.
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
        """The sender's answer to a hello. True when frames are missing for good."""
        self._heard = now
        if answer.incarnation == self.incarnation and self.next >= 0:
            if answer.sequence <= self.next:
                # What comes overlaps what we have (or an answer came twice).
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
        """Incarnation and sequence of the hello that is sent now."""
        self.asking = False
        self._asked = now
        return self.incarnation, self.next

    def connected(self) -> None:
        """A connection came up: the sender may be new, or may have sent into the void."""
        self.asking = True

    @property
    def heard(self) -> float:
        """When the sender last said something."""
        return self._heard

    def deadline(self) -> float:
        """When `on_timer` is due."""
        return max(self._asked, self._heard) + SILENCE

    def on_timer(self, now: float) -> None:
        """Nothing was heard for a while: ask."""
        if now >= self.deadline():
            self.asking = True

    def _ask(self, now: float) -> None:
        if now - self._asked >= ASK_AGAIN:
            self.asking = True
