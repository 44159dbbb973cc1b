"""Feed frames to a rewriter by hand or from a script: one line for each segment, the same for every kind of frame.

::

    client S 100                     the client's SYN passes unchanged
    guest SA 1500 101                the guest's SYN/ACK (sequence number, acknowledgement) too
    client A 101 1001 -> ack 1501    after the arrow: what changes; everything else must stay
    client PA 101 1001 +4            four bytes of payload
    client A 101 1001 ts 6:7000 sack 2000-3000 -> ack 1501 ts 6:9000 sack 2500-3500
    client A 101 1001 -> held        nothing comes out (also `dropped`)
    out client A 101 1501            a frame that was held before and is now released to the guest
    at 1.5s                          the clock advances; timers fire
    checkpoint copied                a checkpoint that copied state (`flushed`: one that did not); `drain`
    promote                          this side takes over (`promote stranger`: though its guest is no replica)
    unprotected lost                 compare says so of the connection; or `doubtful`, `kept`, `everything`
    mode shadow                      from here on the client does not wait for this guest

The grammar is that of `scenario` and `packets`. Every frame has a right checksum (with offloads, a right partial one),
and so must every frame that comes out.
"""

from dataclasses import dataclass, field

from colo_proto.core import Send
from colo_proto.messages import CheckpointDone, Promote, SetMode, Unprotected
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter
from packets import CLIENT_MAC, FORMS, GUEST_MAC, show
from packets import Packet as Seg
from packets import change as changed
from scenario import Player, seconds

MADE = (
    "neighbour_answers", "announcements", "revivals", "refusals", "acks_made", "resets_told", "overruns_told",
    "pieces_made", "resets_made",
)  # fmt: skip
"""Frames that the rewriter itself has made."""

__all__ = ["CLIENT_MAC", "FORMS", "GUEST_MAC", "Play", "Seg"]


@dataclass
class Play(Player):
    """A rewriter under a script."""

    config: RewriterConfig = field(default_factory=RewriterConfig)
    now: float = 1000.0

    def __post_init__(self):
        self.core = Rewriter(self.config)
        self.to_guest, self.to_client, self.logs = [], [], []
        self.start = self.now
        self.version = 0

    def take(self, outputs):
        for output in outputs:
            if isinstance(output, Send):
                ours = self.to_guest if output.port == "netdev" else self.to_client
                ours.extend(bytes(frame) for frame in output.frames)
            else:
                self.logs.append(output)
        self.balance()
        return self

    def balance(self):
        """S6: what came in went out, was dropped with a reason, or is held."""
        counters = self.core.counters
        dropped = sum(n for name, n in counters.items() if name.startswith("dropped."))
        made = sum(counters[name] for name in MADE)
        assert counters["frames_in"] + made == counters["frames_out"] + dropped + self.core.gauges()["held"]

    def send(self, frame, port):
        return self.take(self.core.receive(port, [frame], self.now))

    def at(self, seconds):
        """Advance the clock to `seconds` after the start, and fire timers when they are due."""
        until = self.start + seconds
        while (due := self.core.deadline()) is not None and due <= until:
            assert due >= self.now
            self.now = due
            self.take(self.core.on_timer(due))
            assert self.core.deadline() is None or self.core.deadline() > due
        self.now = until
        return self

    # -- scripts -------------------------------------------------------------------------------------

    def pending(self):
        return ("out client", [*map(show, self.to_guest)]), ("out guest", [*map(show, self.to_client)])

    def on_client(self, words):
        self._segment(words, "c", "indev", self.to_guest)

    def on_guest(self, words):
        self._segment(words, "g", "netdev", self.to_client)

    def _segment(self, words, side, port, queue):
        at = words.index("->") if "->" in words else len(words)
        packet, effect = self.packet(words[:at], side), words[at + 1 :]
        for frame in packet.frames(self.form):
            self.send(frame, port)
        if effect not in (["held"], ["dropped"]):
            self.expect(queue, changed(packet, effect))

    def on_out(self, words):
        side = words[0]
        queue = {"client": self.to_guest, "guest": self.to_client}[side]
        self.expect(queue, self.packet(words[1:], side[0]))

    def on_at(self, words):
        self.at(seconds(words[0]))

    def on_wait(self, words):
        self.at(self.now - self.start + seconds(words[0]))

    def on_checkpoint(self, words):
        self.take(
            self.core.tell(CheckpointDone(1, state_copied={"copied": True, "flushed": False}[words[0]]), self.now)
        )

    def on_mode(self, words):
        self.take(self.core.tell(SetMode(words[0]), self.now))

    def on_promote(self, words=()):
        self.take(self.core.tell(Promote(1, replica=list(words) != ["stranger"]), self.now))

    def on_unprotected(self, words):
        (what,) = words
        self.version += 1
        about = True if what == "everything" else [b"\x06" + flow.key_guest for flow in self.core._table]
        self.take(self.core.tell(Unprotected("comp0", self.version, **{what: about}), self.now))

    def on_drain(self, words=()):
        self.take(self.core.drain(self.now))

    def control(self, text):
        """A control line by itself, whatever has come out so far."""
        verb, *words = text.split()
        getattr(self, f"on_{verb}")(words)

    def on_count(self, words):
        self.count(self.core, words)

    @property
    def flow(self):
        """The only flow."""
        (flow,) = self.core._table
        return flow
