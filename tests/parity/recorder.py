"""Records what comes out of a filter under a scenario, as one line: `2:a 4:asked 5:b`.

Each token is a step (counted from 1, steps that only expect left out) and what happened then: the name of the packet
that came out (`a`; `#2` for one without a name, of step 2; `a.1` for its first fragment; `a~` with another window;
`new` for one that no guest sent), or `asked` for a request for a checkpoint. Two filters that print the same line did
the same.
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from colo_compare.config import CompareConfig
from colo_proto.core import Send
from colo_proto.frame import ETH
from colo_proto.messages import CheckpointDone
from colo_proto.net import packet as p
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter
from packets import CLIENT, show, tokens
from playbook import Play
from scenario import Player, seconds

TIMED = {"compare_timeout": 2500, "expired_scan_cycle": 300}
"""Milliseconds, for scenarios that wait for the timeout (both filters get them)."""
UNTIMED = {"compare_timeout": 600_000, "expired_scan_cycle": 1000}
QUIET = 3.6
"""Seconds within which a timeout must have happened: the timeout, two scans, and a margin."""
PATIENCE = 60.0


def is_timed(scenario):
    """True if it waits for longer than the timeout."""
    waits = [seconds(step.words[1]) for step in scenario.steps if step.words[0] == "wait"]
    return any(wait > 3 for wait in waits) or any(name == "compare_timeout" for name, _ in scenario.options)


def rig_options(scenario):
    """Options of the filters that a scenario needs."""
    given = {name: value for name, value in scenario.options if name not in TIMED}
    return {**(TIMED if is_timed(scenario) else UNTIMED), **given}


class CoreCompare:
    """Our core with the clock of the script. It says what our process is expected to do."""

    stepped = True

    def __init__(self, scenario):
        self.play = Play(scenario.config(CompareConfig))
        self.seen = self.wants = 0
        self.waiting = False
        self.asked = 0

    def _new(self):
        new = [bytes(one) for one in self.play.sent[self.seen :]]
        self.seen = len(self.play.sent)
        if len(self.play.wanted) > self.wants and not self.waiting:
            # Our notify_dev says it once until it is answered.
            self.asked += 1
            self.waiting = True
        self.wants = len(self.play.wanted)
        return new

    def feed(self, side, frames):
        for frame in frames:
            self.play.give({"pri": "primary_in", "sec": "secondary_in"}[side], frame)
        return self._new()

    def checkpoint(self):
        self.play.done(copied=True)
        self.waiting = False
        return self._new()

    def wait(self, span):
        self.play.at(span)
        return self._new()


@dataclass
class Recorder(Player):
    """Runs a scenario on a rig (or a core) and writes down what happens. `number` makes its addresses its own."""

    rig: Any = None
    number: int = 1
    expected: str = ""
    """What is expected to come out, so that the recorder knows what to wait for."""
    at: int = 0
    said: list = field(default_factory=list)
    labels: dict = field(default_factory=dict)

    def pending(self):
        """Do nothing: everything is recorded, whether it is expected or not."""
        return ()

    @property
    def line(self):
        return " ".join(self.said)

    def packet(self, words, side="g"):
        one = super().packet(words, side)
        if one.client == CLIENT:
            one = replace(one, client=f"10.0.{self.number}.9")
        return one

    def say(self, what):
        self.said.append(f"{self.at}:{what}")


@dataclass
class CompareRecorder(Recorder):
    def on_pri(self, words):
        self._send("pri", words)

    def on_sec(self, words):
        self._send("sec", words)

    def _send(self, side, words):
        self.at += 1
        packet = self.packet(words)
        frames = packet.frames(self.form)
        if side == "pri":
            label = next((name for name, one in self.names.items() if self._mine(one) == packet), f"#{self.at}")
            for index, frame in enumerate(frames, 1):
                self.labels[frame[ETH:]] = label if len(frames) == 1 else f"{label}.{index}"
        asked = self.rig.asked
        self._write(self.rig.feed(side, frames), asked)

    def _mine(self, one):
        return replace(one, client=f"10.0.{self.number}.9") if one.client == CLIENT else one

    def _write(self, frames, asked):
        for frame in frames:
            self.say(self._label(frame))
        if self.rig.asked > asked:
            self.say("asked")

    def _label(self, frame):
        body = bytes(frame[ETH:])
        if body in self.labels:
            return self.labels[body]
        for known, label in self.labels.items():
            if _without_window(known) == _without_window(body):
                return label + "~"
        return "new"

    def on_wait(self, words):
        self.at += 1
        span, asked = seconds(words[0]), self.rig.asked
        if isinstance(self.rig, CoreCompare):
            frames = self.rig.wait(span)
        else:
            frames = []
            wanted = f"{self.at}:asked" in self.expected.split()
            begin = time.monotonic()
            # Either it is known what will come out, or enough time must pass in which it would have.
            while self.rig.asked == asked if wanted else span > 3 and time.monotonic() - begin < QUIET:
                assert time.monotonic() - begin < PATIENCE, f"never came: {self.expected}; so far {self.line}"
                frames += self.rig.settled()
                time.sleep(0.02)
        self._write(frames, asked)

    def on_checkpoint(self, words):
        self.at += 1
        asked = self.rig.asked
        self._write(self.rig.checkpoint(), asked)

    def on_out(self, words):
        """Not looked at here: what came out was written down with the step before."""

    on_want = on_count = on_out


def _without_window(ethernet):
    frame = bytearray(bytes(10) + ethernet)
    packet = p.dissect(bytes(frame))
    if packet.kind == p.Kind.IP and packet.proto == p.PROTO_TCP and packet.end - packet.l4 >= 20:
        frame[packet.l4 + 14 : packet.l4 + 18] = bytes(4)
    return bytes(frame)


class CoreRewriter:
    """Our core: what our process is expected to do."""

    def __init__(self):
        self.core = Rewriter(RewriterConfig(hold_ms=600_000))
        self.epoch = 0

    def _split(self, outputs):
        sends = [output for output in outputs if isinstance(output, Send)]
        return tuple(
            [bytes(frame) for send in sends if send.port == port for frame in send.frames]
            for port in ("netdev", "outdev")
        )

    def feed(self, side, frames):
        return self._split(self.core.receive({"client": "indev", "guest": "netdev"}[side], frames, 1.0))

    def checkpoint(self):
        self.epoch += 1
        return self._split(self.core.tell(CheckpointDone(self.epoch, state_copied=True), 1.0))


@dataclass
class RewriterRecorder(Recorder):
    """Tokens: `3:ack=1501` for what changed, `3:=` when nothing did, `3:held`, `4:+PACKET` for what came besides."""

    def on_client(self, words):
        self._segment("client", words)

    def on_guest(self, words):
        self._segment("guest", words)

    def _segment(self, side, words):
        self.at += 1
        packet = self.packet(words[: words.index("->")] if "->" in words else words, side[0])
        for frame in packet.frames(self.form):
            to_guest, to_client = self.rig.feed(side, [frame])
            mine, other = (to_guest, to_client) if side == "client" else (to_client, to_guest)
            # What is sent last is the latest; what was held before it comes first.
            same = [one for one in mine if _alike(one, frame)]
            self.say(_change(frame, same[-1]) if same else "held")
            for one in [*mine, *other]:
                if not same or one is not same[-1]:
                    self.say("+" + _brief(one))

    def on_checkpoint(self, words):
        self.at += 1
        for frames in self.rig.checkpoint():
            for one in frames:
                self.say("+" + _brief(one))

    def on_out(self, words):
        """Not checked here."""

    on_count = on_out


def _fields(frame):
    words = tokens(show(frame))
    found = {"proto": words[0], "flow": words[1]}
    at = 2
    while at < len(words):
        if words[at] in {"seq", "ack", "win", "ts", "sack", "mss", "ws", "opt", "vlan", "gso"} and at + 1 < len(words):
            found[words[at]] = words[at + 1]
            at += 2
        else:
            found[words[at]] = ""
            at += 1
    return found


def _alike(a, b):
    return len(a) == len(b) and a[ETH : ETH + 34] == b[ETH : ETH + 34]


def _brief(frame):
    words = tokens(show(frame))
    return ",".join(word for word in words[2:] if word not in {"win", "500"})


def _change(before, after):
    """The differences between a frame and what the filter made of it."""
    if before == after:
        return "="
    old, new = _fields(before), _fields(after)
    if old["proto"] != new["proto"]:
        return "damaged"
    changes = [
        f"{name}={value}" if value else name.strip("()").replace(" ", "-")
        for name, value in new.items()
        if name not in {"(wrong", "checksum)"} and old.get(name) != value
    ]
    if "(wrong" in new and "(wrong" not in old:
        changes.append("wrong-checksum")
    return ",".join(changes) or "other-bytes"
