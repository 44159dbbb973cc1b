"""A client who is ahead of the secondary guest, as that guest sees it: against a model of a strict TCP."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colo_proto.messages import SetMode
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import ACK, FIN, SYN, segment
from colo_rewriter import pace, waiting
from colo_rewriter.config import RewriterConfig
from colo_rewriter.flow import Pace
from rewriting import Play, Seg

CLIENT, PRIMARY, SECONDARY = 4_294_960_000, 1000, 4_294_950_000  # both wrap soon
M32 = 0xFFFFFFFF


def pattern(size, at=0):
    return bytes((at + i) * 7 & 0xFF for i in range(size))


class Guest:
    """The secondary: drops what acknowledges bytes that it has not sent (RFC 9293 §3.10.7.4) or finds no room, sends no
    more than its congestion window allows, and repeats what it must.
    """

    def __init__(self, play, total, cwnd, room, dice):
        self.play, self.total, self.cwnd, self.room, self.dice = play, total, cwnd, room, dice
        self.sent = self.acked = 0
        self.got = bytearray()
        self.unread = 0
        self.fin = False

    def hear(self, frame):
        packet = dissect(frame)
        seg = segment(frame, packet.l4, packet.end)
        if seg.flags & SYN:
            return
        number = (seg.ack - SECONDARY - 1) & M32
        assert seg.flags & ACK, "only pure RSTs have none here"
        assert number <= self.sent, "an acknowledgement of the future"
        self.acked = max(self.acked, number)
        place = (seg.seq - CLIENT - 1) & M32
        data = bytes(frame[seg.data : seg.end])
        if data:
            assert place + len(data) <= len(self.got) + self.room - self.unread, "more than there is room for"
            assert place <= len(self.got), "a hole, though the network lost nothing"
            fresh = data[len(self.got) - place :]
            self.got += fresh
            self.unread += len(fresh)
        if seg.flags & FIN and place + len(data) == len(self.got):
            self.fin = True

    def read(self):
        self.unread = 0
        self.send(b"")

    def advance(self):
        """Send the next piece, if the congestion window has room for it."""
        size = min(self.dice.randint(1, 1400), self.total - self.sent, self.acked + self.cwnd - self.sent)
        if size > 0:
            self.send(pattern(size, self.sent))
            self.sent += size
        return size > 0

    def repeat(self):
        """A retransmission timeout."""
        if self.acked < self.sent:
            self.send(pattern(min(1400, self.sent - self.acked), self.acked), self.acked)

    def send(self, data, at=None):
        seq = (SECONDARY + 1 + (self.sent if at is None else at)) & M32
        ack = (CLIENT + 1 + len(self.got) + self.fin) & M32
        sent = Seg("g", 16, seq, ack, payload=data, win=self.room - self.unread)
        self.play.send(sent.frame(self.play.form), "netdev")


class World:
    """A client who hears the primary at once, and the secondary behind the rewriter."""

    def __init__(self, seed, total, cwnd, room):
        self.dice = random.Random(seed)
        self.play = Play(config=RewriterConfig())
        self.play.take(self.play.core.tell(SetMode("shadow"), self.play.now))
        self.guest = Guest(self.play, total, cwnd, room, self.dice)
        self.heard = 0  # bytes of the primary that the client has
        self.said = bytearray()
        self.total = total
        self.play.send(Seg("c", 2, CLIENT).frame(), "indev")
        self.play.send(Seg("g", 18, SECONDARY, CLIENT + 1 & M32, win=room).frame(), "netdev")
        self.client(b"")

    def deliver(self):
        while self.play.to_guest:
            self.guest.hear(self.play.to_guest.pop(0))

    def client(self, data, flags=16):
        seq, ack = (CLIENT + 1 + len(self.said)) & M32, (PRIMARY + 1 + self.heard) & M32
        self.play.send(Seg("c", flags, seq, ack, payload=data, win=60_000).frame(), "indev")
        self.said += data
        self.deliver()

    def step(self):
        what = self.dice.choice(("hear", "hear", "say", "ack", "send", "send", "read", "repeat", "wait"))
        if what == "hear":
            self.heard = min(self.total, self.heard + self.dice.randint(1, 3000))
            self.client(b"")
        elif what == "say":
            self.client(pattern(self.dice.randint(1, 600), len(self.said)))
        elif what == "ack":
            self.client(b"")
        elif what == "send":
            self.guest.advance()
        elif what in {"read", "repeat"}:
            getattr(self.guest, what)()
        else:
            self.play.at(self.play.now - self.play.start + self.dice.random() / 20)
        self.deliver()

    def finish(self):
        """The client has everything and closes; the secondary is left to itself."""
        self.heard = self.total
        self.client(b"", 17)
        for _ in range(20_000):
            if not self.guest.advance():
                self.guest.read()
            self.deliver()
            if self.guest.fin and self.guest.acked == self.total:
                return
        pytest.fail(f"stuck: {vars(self.guest)} {self.play.core.counters}")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.integers(0, 40_000),
    st.sampled_from([1400, 2800, 14_000]),
    st.sampled_from([600, 4000, 60_000]),
    st.integers(0, 80),
)
def test_a_strict_guest_believes_its_client_and_gets_everything(seed, total, cwnd, room, steps):
    world = World(seed, total, cwnd, room)
    for _ in range(steps):
        world.step()
    world.finish()
    assert bytes(world.guest.got) == bytes(world.said)
    assert world.guest.sent == total
    core = world.play.core
    assert core.gauges()["held"] == core.gauges()["held_bytes"] == 0
    assert core.counters["held_passed"] == 0, "nobody's patience ran out"


def ahead(play, count, size=100):
    for number in range(count):
        play.send(Seg("c", 24, 101 + number * size, 2001, size).frame(), "indev")


def opened(**config):
    play = Play(config=RewriterConfig(**config)).run("mode shadow\n client S 100\n guest SA 1500 101 win 60000")
    play.run("client A 101 1001 -> ack 1501")
    return play


@pytest.mark.parametrize(("bound", "at"), [("FLOW_FRAMES", 8), ("FLOW_BYTES", 1000), ("MAX_BYTES", 1000)])
def test_what_waits_is_bounded_and_goes_with_a_lowered_ack(monkeypatch, bound, at):
    monkeypatch.setattr(pace, bound, at)
    play = opened()
    ahead(play, 20)
    assert play.core.gauges()["held"] == 0
    assert play.core.counters["hold_overflows"] == 1
    assert play.to_guest == [Seg("c", 24, 101 + number * 100, 1501, 100, win=1500).frame() for number in range(20)]
    play.to_guest.clear()
    play.run("guest PA 1501 2101 +500 -> seq 1001\n out client A 2101 2001 win 1000")


def filled(monkeypatch, room=50):
    """A guest with a small window, for which ten segments have come of which four may wait."""
    monkeypatch.setattr(pace, "FLOW_FRAMES", 4)
    play = Play().run(f"mode shadow\n client S 100\n guest SA 1500 101 win {room}\n client A 101 1001 -> ack 1501")
    for number in range(10):
        play.send(Seg("c", 24, 101 + number * room, 1001, room).frame(), "indev")
    play.run(f"out client PA 101 1501 +{room}")
    return play


def test_of_what_is_too_much_the_newest_is_dropped_and_compare_hears_when_the_guest_has_come_there(monkeypatch):
    play = filled(monkeypatch)
    assert play.core.gauges()["held"] == 4
    assert play.core.counters["dropped.overrun"] == 5
    for number in range(1, 5):
        at = 101 + number * 50
        play.run(f"guest A 1501 {at} win 50 -> seq 1001\n out client PA {at} 1501 +50")
        assert play.core.counters["overruns_told"] == 0, "it may still be another guest, which hangs"
    play.run("guest A 1501 351 win 50 -> seq 1001\n out guest FRPA 1001 351 win 0")
    assert play.core.counters["overruns_told"] == 1
    assert play.core.gauges()["held"] == play.core.gauges()["held_bytes"] == 0
    play.run("client PA 901 1001 +500 -> ack 1501")


def test_a_client_may_be_ahead_of_the_handshake_by_more_than_is_kept(monkeypatch):
    monkeypatch.setattr(waiting, "MAX_FRAMES", 4)
    play = Play(config=RewriterConfig(hold_frames=2)).run("mode shadow\n client S 100\n client A 101 1001 -> held")
    for number in range(10):
        play.send(Seg("c", 24, 101 + number * 50, 1001, 50).frame(), "indev")
    play.run("client RA 601 1001 -> held")
    assert play.core.gauges()["held"] == 4
    assert play.core.counters["dropped.overrun"] == 8
    script = """
        guest SA 1500 101 -> seq 1000
        out client A 101 1501
        out client PA 101 1501 +50
        out client PA 151 1501 +50
        out client RA 601 1501
        out guest FRA 1001 101 win 0
    """
    play.run(script)
    play.run("guest A 1501 201 -> seq 1001\n out guest FRPA 1001 201 win 0")
    assert play.core.counters["overruns_told"] == 1


def test_a_guest_that_hangs_is_not_excused(monkeypatch):
    play = filled(monkeypatch)
    play.at(60)
    assert play.core.counters["overruns_told"] == 0
    assert play.core.gauges()["held"] == 4


def test_nor_one_whose_client_sends_again_what_was_dropped(monkeypatch):
    """The primary had not taken it either."""
    play = filled(monkeypatch)
    for number in range(1, 4):
        at = 101 + number * 50
        play.run(f"guest A 1501 {at} win 50 -> seq 1001\n out client PA {at} 1501 +50")
    script = """
        client PA 351 1001 +50 -> held
        guest A 1501 301 win 100 -> seq 1001
        out client PA 301 1501 +50
        out client PA 351 1501 +50
        guest A 1501 401 win 100 -> seq 1001
        client PA 401 1001 +50 -> ack 1501
        guest A 1501 451 win 100 -> seq 1001
    """
    play.run(script)
    assert play.core.counters["overruns_told"] == 0


def test_a_reset_is_not_dropped_with_the_rest(monkeypatch):
    play = filled(monkeypatch)
    script = """
        client RA 601 1001 -> held
        guest A 1501 151 win 50 -> seq 1001
        out client PA 151 1501 +50
        guest A 1501 201 win 50 -> seq 1001
        out client PA 201 1501 +50
        guest A 1501 251 win 50 -> seq 1001
        out client PA 251 1501 +50
        out client RA 601 1501
        out guest FRA 1001 251 win 0
    """
    play.run(script)


def test_a_flow_that_is_evicted_or_drained_keeps_nothing():
    play = opened(max_flows=2)
    ahead(play, 3)
    assert play.core.gauges()["held"] == 3
    play.control("drain")
    assert len(play.to_guest) == 3
    assert play.core.gauges()["held"] == 0


def test_a_long_bulk_transfer_takes_the_fast_path():
    play = opened()
    for number in range(50):
        play.run(f"client PA {101 + number * 10} 1001 +10 -> ack 1501\n guest A 1501 {111 + number * 10} -> seq 1001")
    assert play.core.counters["held_ahead"] == play.core.counters["acks_made"] == 0
    assert play.core.status()["paced"]


@given(st.permutations(range(8)), st.integers(0, M32))
def test_what_the_guest_sent_is_contiguous_in_whichever_order_it_comes(order, start):
    one = Pace(start, 0, 0)
    for count, piece in enumerate(order, 1):
        one.heard((start + piece * 10) & M32, (start + piece * 10 + 10) & M32, 0, 0, False)
        reached = next((n for n in range(9) if n not in order[:count]), 8)
        assert one.snd_nxt == (start + reached * 10) & M32
    assert one.gaps == []


def test_a_reset_is_told_once_the_guest_has_heard_it():
    play = opened().run("client A 101 1101 -> held\n client RA 101 1101 -> held")
    assert play.core.counters["resets_told"] == 0
    script = """
        guest PA 1501 101 +100 -> seq 1001
        out client A 101 1601
        out client RA 101 1601
        out guest FRA 1101 101 win 0
    """
    play.run(script)
    assert play.core.counters["resets_told"] == 1
