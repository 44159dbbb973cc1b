"""Nothing that a client may send, or anybody with its address, costs an open connection its numbers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colo_rewriter.acceptance import accepts_fin, accepts_reset, belongs_to, guest_window, rcv_nxt
from colo_rewriter.config import RewriterConfig
from colo_rewriter.flow import Flow, State
from rewriting import Play, Seg

BASE, PRIMARY, SECONDARY = 4_294_960_000, 1000, 4_294_901_000  # the client's numbers and the secondary's soon wrap
M32 = 0xFFFFFFFF
NEAR = st.integers(-70_000, 70_000).map(lambda n: (BASE + n) & M32)
ANY = st.integers(0, M32)


@st.composite
def strays(draw):
    """A segment with the client's addresses that is not the client's, and that no guest would believe."""
    flags = draw(st.sampled_from([2, 2, 2, 4, 4, 18, 1, 17, 16, 24, 20, 6, 3, 41, 0]))
    seq = draw(NEAR | ANY)
    return Seg("c", flags, seq, draw(ANY), draw(st.integers(0, 60)))


class Session:
    """A client that goes on, and a guest that follows, while strays come."""

    def __init__(self, form="v4"):
        self.play = Play(form, RewriterConfig())
        self.seq, self.down = (BASE + 1) & M32, 1
        self.both(Seg("c", 2, BASE), "indev", self.play.to_guest)
        self.both(Seg("g", 18, SECONDARY, self.seq), "netdev", self.play.to_client)
        self.client(0)

    def both(self, sent, port, queue, wanted=None):
        self.play.send(sent.frame(self.play.form), port)
        got = [bytes(frame) for frame in queue]
        assert (wanted or sent).frame(self.play.form) in got
        queue.clear()

    def client(self, length, flags=16):
        ack = (PRIMARY + self.down) & M32
        shifted = (SECONDARY + self.down) & M32
        self.both(
            Seg("c", flags, self.seq, ack, length),
            "indev",
            self.play.to_guest,
            Seg("c", flags, self.seq, shifted, length),
        )
        self.seq = (self.seq + length + (flags & 1)) & M32

    def guest(self, length, flags=16):
        sent = Seg("g", flags, (SECONDARY + self.down) & M32, self.seq, length)
        wanted = Seg("g", flags, (PRIMARY + self.down) & M32, self.seq, length)
        self.both(sent, "netdev", self.play.to_client, wanted)
        self.down += length + (flags & 1)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.just("stray"), strays())
        | st.tuples(st.sampled_from(["client", "guest"]), st.integers(0, 1400))
        | st.tuples(st.just("wait"), st.floats(0, 3)),
        max_size=30,
    )
)
def test_an_open_connection_keeps_its_numbers_whatever_comes(steps):
    session = Session()
    for what, how in steps:
        if what == "stray":
            # One that is exactly right is no stray: the guest believes a RST or a FIN with the number it expects.
            if how.flags & 4 and how.seq == rcv_nxt(session.play.flow):
                continue
            session.play.send(how.frame(), "indev")
            session.play.to_guest.clear()
            session.guest(0)  # a challenge ACK
        elif what == "wait":
            session.play.at(session.play.now - session.play.start + how)
            assert session.play.to_guest == []
        else:
            getattr(session, what)(how)
        assert session.play.core.gauges()["held"] == 0
    session.client(5, 25)
    session.guest(7, 25)
    session.client(0)
    session.guest(0)
    assert session.play.core.counters["held_passed"] == 0


@given(st.integers(0, M32), st.integers(1, 65_000))
def test_a_stray_syn_at_any_distance_holds_up_nothing(isn, sent):
    session = Session()
    session.client(sent)
    session.play.send(Seg("c", 2, isn).frame(), "indev")
    session.play.to_guest.clear()
    session.client(1000)
    session.guest(3000)
    session.client(0)


@pytest.mark.parametrize("flood", ["half", "closed"])
def test_a_flood_does_not_push_out_what_is_established(flood):
    play = Play(config=RewriterConfig(max_flows=64))
    for port in range(5000, 5060):
        for side, flags, seq, ack in (("c", 2, 100, 0), ("g", 18, 1500, 101), ("c", 16, 101, 1001)):
            play.send(Seg(side, flags, seq, ack, ports=(port, 80)).frame(), "indev" if side == "c" else "netdev")
    for port in range(10_000, 12_000):
        play.send(Seg("c", 2, 100, ports=(port, 80)).frame(), "indev")
        if flood == "closed":
            play.send(Seg("g", 18, 1500, 101, ports=(port, 80)).frame(), "netdev")
            play.send(Seg("g", 4, 1501, 0, ports=(port, 80)).frame(), "netdev")
    assert play.core.gauges()["flows"] == 64
    assert play.core.gauges()["flows_established"] == 60
    play.to_guest.clear()
    for port in range(5000, 5060):
        play.send(Seg("c", 16, 101, 1001, ports=(port, 80)).frame(), "indev")
    assert play.to_guest == [Seg("c", 16, 101, 1501, ports=(port, 80)).frame() for port in range(5000, 5060)]


def test_handshakes_keep_their_share_of_a_table_that_is_full():
    play = Play(config=RewriterConfig(max_flows=64))
    for port in range(5000, 5200):
        for side, flags, seq, ack in (("c", 2, 100, 0), ("g", 18, 1500, 101), ("c", 16, 101, 1001)):
            play.send(Seg(side, flags, seq, ack, ports=(port, 80)).frame(), "indev" if side == "c" else "netdev")
    assert play.core.gauges()["flows_established"] == 60
    assert play.core.counters["flows_evicted"] == 140


def known(last=None, scales=(-1, -1)):
    flow = Flow(b"c", b"g", 0.0)
    flow.client_isn, flow.isn_primary, flow.isn_secondary = 100, 1000, 1500
    flow.client_scale, flow.guest_scale = scales
    flow.compute_offsets()
    flow.state = State.OPEN
    if last is not None:
        frame = last.frame()
        flow.last_guest = (frame[:64], 44, 0)
    return flow


def test_what_the_guest_expects_is_what_its_last_segment_says():
    assert rcv_nxt(known()) == 101
    assert rcv_nxt(known(Seg("g", 2, 1500))) == 101, "an opening SYN acknowledges nothing"
    assert rcv_nxt(known(Seg("g", 16, 1501, 777))) == 777


def test_the_window_is_scaled_where_both_offered_it():
    last = Seg("g", 16, 1501, 101, win=2000)
    assert guest_window(known()) == guest_window(known(last)) == guest_window(known(last, (-1, 7))) == 65535
    assert guest_window(known(last, (2, 7))) == 256_000
    assert guest_window(known(Seg("g", 18, 1500, 101, win=2000), (2, 7))) == 65535, "a SYN's window is never scaled"


def test_a_reset_has_exactly_the_number_expected_and_a_fin_is_in_the_window():
    flow = known(Seg("g", 16, 1501, 500, win=1000))
    assert accepts_reset(flow, 500)
    assert not accepts_reset(flow, 501)
    assert accepts_fin(flow, 501)
    assert accepts_fin(flow, 500 + 65536)
    assert not accepts_fin(flow, 500)
    assert not accepts_fin(flow, 500 + 65537)


def test_what_fits_has_a_sequence_number_and_an_acknowledgement_in_range():
    flow = known(Seg("g", 16, 1501, 500))
    last = Seg("c", 16, 500, 1001)
    for change, right in (({}, True), ({"seq": 70_000}, False), ({"ack": 2_000_000_000}, False), ({"ack": 3}, True)):
        seg = Seg(**{**vars(last), **change})
        arrived = type("Arrived", (), {"seq": seg.seq, "ack": seg.ack, "flags": 16})
        assert belongs_to(flow, arrived) is right, change
