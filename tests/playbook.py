"""Feed frames to a compare by hand: `Play() >> P(...) >> S(...)`, then look at what it has released.

    play = Play()
    play >> P(1000, b"abc") >> S(1000, b"abc")
    assert play.released == [P(1000, b"abc")]

Only `play.at(seconds)` advances the time; it also fires the timers that are due.
"""

from dataclasses import dataclass, field

import craft
from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_proto.core import Log, Send, Tell
from colo_proto.messages import CheckpointDone, CheckpointWanted, Flushed
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import ACK, PSH, SYN, options, segment

GUEST, CLIENT = "10.0.0.2", "10.0.0.9"
PA = PSH | ACK
SYN_OPTIONS = craft.mss(1460) + craft.sack_permitted() + craft.wscale(7)


@dataclass(frozen=True)
class Frame:
    """A frame of one side; equal when the bytes are."""

    side: str
    data: bytes


def tcp(side, seq, payload=b"", flags=PA, ack=500, **more):
    more.setdefault("window", 500)
    more.setdefault("sport", 80)
    more.setdefault("dport", 5000)
    src, dst = more.pop("src", GUEST), more.pop("dst", CLIENT)
    sport, dport = more.pop("sport"), more.pop("dport")
    return Frame(side, craft.tcp(src, dst, sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, flags, payload, **more))


def P(seq, payload=b"", flags=PA, ack=500, **more):
    return tcp("P", seq, payload, flags, ack, **more)


def S(seq, payload=b"", flags=PA, ack=500, **more):
    return tcp("S", seq, payload, flags, ack, **more)


def syn(side, seq, flags=SYN | ACK, ack=500, opts=SYN_OPTIONS, **more):
    return tcp(side, seq, b"", flags, ack, options=opts, **more)


def udp(side, payload, sport=53, dport=5000, **more):
    return Frame(side, craft.udp(GUEST, CLIENT, sport, dport, payload, **more))


@dataclass
class Play:
    config: CompareConfig = field(default_factory=CompareConfig)
    now: float = 100.0

    def __post_init__(self):
        self.core = Compare(self.config)
        self.sent: list[bytes] = []
        self.messages = []
        self.logs = []

    def __rshift__(self, frame):
        return self.give("primary_in" if frame.side == "P" else "secondary_in", frame.data)

    def give(self, port, *frames):
        """Feed a batch of frames."""
        self.take(self.core.receive(port, list(frames), self.now))
        self.balance()
        return self

    def take(self, outputs):
        for output in outputs:
            if isinstance(output, Send):
                assert output.port == "outdev"
                self.sent.extend(bytes(f) for f in output.frames)
            elif isinstance(output, Tell):
                self.messages.append(output.message)
            elif isinstance(output, Log):
                self.logs.append(output)

    def at(self, seconds):
        """Let time pass, timers included."""
        end = self.now + seconds
        while (due := self.core.deadline()) is not None and due <= end:
            self.now = max(due, self.now)
            self.take(self.core.on_timer(self.now))
            self.balance()
        self.now = end
        return self

    def done(self, copied=False, epoch=1):
        self.take(self.core.tell(CheckpointDone(epoch, copied), self.now))
        self.balance()
        return self

    def tell(self, message):
        self.take(self.core.tell(message, self.now))
        self.balance()
        return self

    def balance(self):
        """S6: counters add up after every step."""
        c, g = self.core.counters, self.core.gauges()
        dropped = sum(n for k, n in c.items() if k.startswith("dropped."))
        gone = sum(n for k, n in c.items() if k.startswith("secondary_dropped."))
        assert c["frames_primary"] == c["released"] - c["synthesized"] + dropped + g["held"], (c, g)
        assert c["frames_secondary"] == gone + g["held_secondary"] - c["secondary_split"], (c, g)
        assert len(self.sent) == c["released"]
        assert min(c.values(), default=0) >= 0, c
        assert min(g.values()) >= 0, g

    @property
    def released(self):
        return [Frame("P", data) for data in self.sent]

    @property
    def wanted(self):
        return [m for m in self.messages if isinstance(m, CheckpointWanted)]

    @property
    def flushed(self):
        return [m for m in self.messages if isinstance(m, Flushed)]

    @property
    def held(self):
        return self.core.gauges()["held"]


def fields(data):
    """Segment of a released TCP frame, and its payload."""
    packet = dissect(data)
    seg = segment(data, packet.l4, packet.end)
    return seg, bytes(data[seg.data : seg.end])


def option_kinds(data):
    packet = dissect(data)
    return [kind for kind, _, _ in options(data, packet.l4, segment(data, packet.l4, packet.end).data)]


def open_connection(play, isn=999, s_isn=7777, ack=500):
    """SYN/ACK of both guests: the stream begins at `isn + 1`."""
    first = syn("P", isn, ack=ack)
    play >> first >> syn("S", s_isn, ack=ack)
    assert play.sent[-1] == first.data
    play.sent.clear()
    play.core.ledger.released -= 1
    play.core.ledger.frames_primary -= 1
    return play
