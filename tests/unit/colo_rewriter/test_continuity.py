"""Through a failover a client sees one connection: a property over random connections, losses and moments of death.

The primary and the secondary guest serve the same stream with initial sequence numbers and timestamp clocks of
their own (equal ones among them, as after a checkpoint that copied state). Until a random moment the client hears
the primary; what it sends also goes to the secondary, through the rewriter. Then the primary is gone, and the client
hears the secondary, through the rewriter, alone. Segments may be lost; nobody may ever be able to tell.
"""

from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checksums import l4_checksum_ok
from colo_proto.core import Send
from colo_proto.messages import Promote
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import segment
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter
from colo_rewriter.shift import timestamps
from packets import Packet

M32 = 0xFFFFFFFF
U32 = st.integers(0, M32)
FORMS = ("v4", "v4-vlan", "v4-gso", "v6")
MSS = 100


@dataclass
class Guest:
    """What a guest says at a position of the stream (0 is its SYN), in its own numbers."""

    isn: int
    clock: int
    client_isn: int

    def says(self, position, length, acked, tick, flags=16, echo=1):
        stamps = ((self.clock + tick) & M32, echo)
        return Packet(
            "g", flags, (self.isn + position) & M32, (self.client_isn + acked) & M32, length=length, ts=stamps
        )


def through(core, port, packet, form, now):
    """What comes out for the other side."""
    out = core.receive(port, [packet.frame(form)], now)
    to = "netdev" if port == "indev" else "outdev"
    return [bytes(frame) for one in out if isinstance(one, Send) and one.port == to for frame in one.frames]


def read(frame):
    packet = dissect(frame)
    seg = segment(frame, packet.l4, packet.end)
    return seg, timestamps(frame, packet.l4, seg.data)


@pytest.mark.slow
@given(
    isns=st.tuples(U32, U32, U32),
    clocks=st.tuples(st.integers(1, M32), st.integers(1, M32)),
    form=st.sampled_from(FORMS),
    steps=st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.integers(0, 40)), min_size=1, max_size=25),
    death=st.integers(0, 25),
    drift=st.integers(-30, 30),
)
@example(isns=(0, 0, 0), clocks=(1, 1), form="v4", steps=[(1, False, 0)], death=0, drift=-2)
@settings(max_examples=300, deadline=None)
def test_the_client_sees_one_connection(isns, clocks, form, steps, death, drift):
    client_isn, isn_p, isn_s = isns
    primary, secondary = Guest(isn_p, clocks[0], client_isn), Guest(isn_s, clocks[1], client_isn)
    core = Rewriter(RewriterConfig(revive=False))
    now, tick = 1.0, 1

    def client(flags, acked, **more):
        return Packet("c", flags, (client_isn + more.pop("at", 1)) & M32, (isn_p + acked) & M32, **more)

    # The handshake: the client talks to the primary, the secondary hears it through the rewriter.
    through(core, "indev", replace(client(2, 0, at=0, ts=(7, 0)), ack=0), form, now)
    through(core, "netdev", secondary.says(0, 0, 1, 0, flags=18, echo=7), form, now)
    echoed = primary.clock
    (frame,) = through(core, "indev", client(16, 1, ts=(8, echoed or 1)), form, now)
    seg, stamps = read(frame)
    assert (seg.ack - isn_s) & M32 == 1, "the guest sees its own SYN acknowledged"
    assert stamps[1] in (secondary.clock, (secondary.clock + 1) & M32)

    got, highest = 1, echoed  # what the client has of the stream, and the highest timestamp it has seen
    promoted = False
    for index, (segments, lost, wait) in enumerate(steps):
        if index == death:
            core.tell(Promote(1), now)
            promoted = True
            tick += drift  # the survivor's clock ran a little differently all the while
        tick += wait
        now += 0.05
        for n in range(segments):
            position = got + (n * MSS if not lost else (n + 1) * MSS)
            if not promoted:
                sent = primary.says(position, MSS, 1, tick)
                seg, value = Packet_view(sent), sent.ts[0]
                through(core, "netdev", secondary.says(position, MSS, 1, tick), form, now)
            else:
                (frame,) = through(core, "netdev", secondary.says(position, MSS, 1, tick), form, now)
                found, stamps = read(frame)
                assert l4_checksum_ok(frame) or form.endswith("gso")
                seg, value = (found.seq, found.ack), stamps[0]
            assert (seg[0] - isn_p) & M32 == position, "the byte that the client expects here"
            assert seg[1] == (client_isn + 1) & M32, "what it sent stays acknowledged"
            assert (value - highest) & M32 < 1 << 31, "PAWS: its clock does not run back"
            highest = value
            if position == got:
                got += MSS
        ack = client(16, got, ts=(9 + index, highest or 1))
        (frame,) = through(core, "indev", ack, form, now)
        seg, _ = read(frame)
        assert (seg.ack - isn_s) & M32 == got, "the survivor is acknowledged what the client has"
        assert l4_checksum_ok(frame) or form.endswith("gso")


def Packet_view(packet):
    return packet.seq, packet.ack
