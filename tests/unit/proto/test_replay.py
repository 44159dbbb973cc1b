"""The two ends of a reliable link: every frame arrives in order, or a gap is reported."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_proto.codec import MAX_BATCH_BYTES, MAX_BATCH_FRAMES, Batch, LinkReset, LinkStart
from colo_proto.errors import WireError
from colo_proto.replay import FRAME_OVERHEAD, HELLO_INTERVAL, SENDER_SILENCE, ReplayReceiver, ReplaySender, cut
from colo_proto.topology import REPLAY_BYTES


def frames(first: int, count: int) -> list[bytes]:
    return [b"%08d" % n for n in range(first, first + count)]


def attach(sender: ReplaySender, receiver: ReplayReceiver, now: float = 0.0) -> bool:
    return receiver.answer(sender.hello(*receiver.hello(now)), now)


def pump(sender: ReplaySender, receiver: ReplayReceiver, now: float = 0.0) -> list[bytes]:
    out = []
    while (batch := sender.due()) is not None:
        sender.sent()
        out += receiver.batch(batch, now)
    return out


def a_sender(incarnation=7, limit=REPLAY_BYTES, *, source=True):
    return ReplaySender("m0.outdev", incarnation, limit, Counter(), source=source)


def pair(**options) -> tuple[ReplaySender, ReplayReceiver]:
    sender, receiver = a_sender(**options), ReplayReceiver(Counter())
    attach(sender, receiver)
    return sender, receiver


class TestCut:
    def test_one_frame_of_any_size_is_one_piece(self):
        assert cut([bytes(70000)]) == [[bytes(70000)]]

    def test_nothing_is_nothing(self):
        assert [list(p) for p in cut([])] in ([], [[]])

    @given(st.lists(st.sampled_from([1, 60, 1500, 65000, MAX_BATCH_BYTES]), max_size=200))
    def test_pieces_keep_order_and_bounds(self, sizes):
        given_frames = [bytes(size) for size in sizes]
        pieces = cut(given_frames)
        assert [f for piece in pieces for f in piece] == given_frames
        for piece in pieces:
            assert len(piece) <= MAX_BATCH_FRAMES
            assert sum(map(len, piece[:-1])) < MAX_BATCH_BYTES


class TestInOrder:
    def test_frames_pushed_before_a_receiver_came_are_waiting_for_it(self):
        sender, receiver = a_sender(), ReplayReceiver(Counter())
        sender.push(frames(0, 3))
        assert sender.due() is None
        assert attach(sender, receiver) is False
        assert pump(sender, receiver) == frames(0, 3)

    def test_acknowledged_frames_leave_the_ring(self):
        sender, receiver = pair()
        sender.push(frames(0, 3))
        sender.push(frames(3, 3))
        pump(sender, receiver)
        assert sender.ring_bytes == 6 * (8 + FRAME_OVERHEAD)
        sender.ack(7, 3)
        assert (sender.base, sender.ring_bytes, sender.unacknowledged) == (3, 3 * (8 + FRAME_OVERHEAD), 3)
        sender.ack(7, 6)
        assert (sender.base, sender.ring_bytes, sender.unacknowledged) == (6, 0, 0)

    def test_an_old_or_foreign_acknowledgement_means_nothing(self):
        sender, receiver = pair()
        sender.push(frames(0, 6))
        pump(sender, receiver)
        sender.ack(7, 6)
        sender.ack(7, 2)
        sender.ack(99, 3)
        assert sender.acked == 6

    @pytest.mark.parametrize("claim", [1, 7, 1 << 40])
    def test_what_was_never_sent_cannot_be_acknowledged_or_asked_for(self, claim):
        sender, _ = pair()
        with pytest.raises(WireError):
            sender.ack(7, claim)
        with pytest.raises(WireError):
            sender.hello(7, claim)


class TestReceiverKilled:
    def test_the_new_one_gets_everything_unacknowledged(self):
        sender, receiver = pair()
        sender.push(frames(0, 4))
        sender.push(frames(4, 4))
        pump(sender, receiver)
        sender.ack(7, 4)
        fresh = ReplayReceiver(Counter())
        assert attach(sender, fresh) is False
        assert pump(sender, fresh) == frames(4, 4)
        assert sender.counters["replayed"] == 4
        assert sender.counters["resets"] == 0

    def test_it_believes_nothing_before_its_hello_is_answered(self):
        # The old connection's frames reach the new process first; taking them for the beginning would lose 0..3.
        sender, _ = pair()
        sender.push(frames(0, 4))
        sender.due()
        sender.sent()
        sender.push(frames(4, 4))
        late = sender.due()
        assert late is not None
        fresh = ReplayReceiver(Counter())
        assert fresh.batch(late, 0.0) == []
        attach(sender, fresh)
        assert pump(sender, fresh) == frames(0, 8)

    def test_frames_that_were_pushed_out_are_a_gap(self):
        sender, receiver = pair(limit=10 * (8 + FRAME_OVERHEAD))
        sender.push(frames(0, 5))
        pump(sender, receiver)
        sender.detached()
        for n in range(5, 30):
            sender.push(frames(n, 1))
        fresh = ReplayReceiver(Counter())
        assert attach(sender, fresh) is True
        assert pump(sender, fresh) == frames(20, 10)
        assert (sender.counters["evicted"], sender.counters["resets"], fresh.counters["gaps"]) == (20, 1, 1)

    def test_a_ring_that_was_acknowledged_before_it_overflowed_has_no_gap(self):
        sender, receiver = pair(limit=10 * (8 + FRAME_OVERHEAD))
        for n in range(50):
            sender.push(frames(n, 1))
            pump(sender, receiver)
            sender.ack(7, n + 1)
        assert sender.counters["evicted"] == 0
        fresh = ReplayReceiver(Counter())
        assert attach(sender, fresh) is False


class TestConnectionCut:
    def test_it_goes_on_where_it_stopped(self):
        sender, receiver = pair()
        sender.push(frames(0, 3))
        got = pump(sender, receiver)
        sender.push(frames(3, 3))
        sender.due()
        sender.sent()  # into the void
        sender.detached()
        sender.push(frames(6, 3))
        assert sender.due() is None
        assert attach(sender, receiver) is False
        assert got + pump(sender, receiver) == frames(0, 9)

    def test_a_hole_is_asked_for_once_in_a_while(self):
        sender, receiver = pair()
        sender.push(frames(0, 3))
        sender.due()
        sender.sent()
        for n in range(3, 6):
            sender.push(frames(n, 1))
            batch = sender.due()
            sender.sent()
            assert receiver.batch(batch, 10.0 + n / 1000) == []
        assert receiver.asking
        receiver.hello(10.01)
        receiver.batch(Batch("l", 7, 5, 0, 0.0, frames(5, 1)), 10.02)
        assert not receiver.asking
        receiver.batch(Batch("l", 7, 5, 0, 0.0, frames(5, 1)), 10.02 + HELLO_INTERVAL)
        assert receiver.asking
        attach(sender, receiver, 11.0)
        assert pump(sender, receiver) == frames(0, 6)

    def test_the_last_frames_are_missed_by_silence(self):
        sender, receiver = pair()
        sender.push(frames(0, 3))
        sender.due()
        sender.sent()  # lost, and nothing comes after it
        receiver.on_timer(SENDER_SILENCE - 0.01)
        assert not receiver.asking
        receiver.on_timer(receiver.deadline())
        assert receiver.asking
        attach(sender, receiver, 1.0)
        assert pump(sender, receiver) == frames(0, 3)

    def test_a_batch_that_begins_too_early_is_trimmed(self):
        _, receiver = pair()
        assert receiver.batch(Batch("l", 7, 0, 0, 0.0, frames(0, 4)), 0.0) == frames(0, 4)
        assert receiver.batch(Batch("l", 7, 2, 0, 0.0, frames(2, 4)), 0.0) == frames(4, 2)
        assert receiver.batch(Batch("l", 7, 0, 0, 0.0, frames(0, 4)), 0.0) == []
        assert receiver.counters["duplicates"] == 6

    def test_asked_for_what_has_left_the_ring(self):
        sender, receiver = pair(limit=4 * (8 + FRAME_OVERHEAD))
        sender.push(frames(0, 2))
        pump(sender, receiver)
        sender.detached()
        for n in range(2, 12):
            sender.push(frames(n, 1))
        assert attach(sender, receiver) is True
        assert pump(sender, receiver) == frames(8, 4)
        assert receiver.counters["gap_frames"] == 6


class TestSenderKilled:
    def test_a_source_admits_a_gap(self):
        sender, receiver = pair()
        sender.push(frames(0, 5))
        pump(sender, receiver)
        again = a_sender(8)
        again.push(frames(0, 2))
        assert isinstance(again.hello(*receiver.hello(1.0)), LinkReset)
        assert attach(again, receiver, 2.0) is True
        assert pump(again, receiver) == frames(0, 2)

    def test_a_relay_does_not_its_upstream_sends_again(self):
        _, receiver = pair()
        again = a_sender(8, source=False)
        again.push(frames(0, 2))
        assert isinstance(again.hello(*receiver.hello(1.0)), LinkStart)
        assert attach(again, receiver, 2.0) is False
        assert pump(again, receiver) == frames(0, 2)

    def test_a_batch_of_another_incarnation_makes_the_receiver_ask(self):
        _, receiver = pair()
        receiver.hello(0.0)
        assert receiver.batch(Batch("l", 8, 0, 0, 0.0, frames(0, 1)), 1.0) == []
        assert receiver.asking

    def test_stale_answers_do_no_harm(self):
        sender, receiver = pair()
        sender.push(frames(0, 5))
        pump(sender, receiver)
        assert receiver.answer(LinkStart("l", 7, 0), 0.0) is False
        assert receiver.answer(LinkReset("l", 7, 3), 0.0) is False
        assert receiver.next == 5
