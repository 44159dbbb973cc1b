"""A secondary that is late is not called different: its frames got lost on the way, or its host is slower."""

import pytest

from colo_compare.config import CompareConfig
from playbook import P, Play, S, fields, open_connection, syn

TIMEOUT = 3.0


def play(**options):
    return open_connection(Play(CompareConfig(compare_timeout=3000, expired_scan_cycle=500, **options)))


D = b"0123456789"


def stream(one, sides, *, without=(), count=10):
    """Both guests, or one of them, send `count` segments of ten bytes; those in `without` get lost on the way."""
    for at in range(1000, 1000 + 10 * count, 10):
        for kind in sides:
            if (kind, at) not in without:
                one >> kind(at, D)


@pytest.mark.parametrize("lost", [[P], [S], [P, S]])
def test_a_queue_that_is_full_has_room_for_what_all_others_wait_for(lost):
    """Were what was lost refused when it comes again, nothing would ever leave."""
    one = play(max_queue_size=8)
    stream(one, [P, S], without=[(kind, 1000) for kind in lost])
    assert one.sent == []
    for kind in lost:
        one >> kind(1000, D)
    assert len(one.sent) >= 8
    stream(one, [P, S])
    assert fields(one.sent[-1])[0].seq == 1090
    assert one.wanted == []


@pytest.mark.parametrize("lost", [P, S])
def test_memory_that_is_used_up_has_room_for_what_leaves_at_once(lost):
    one = play()
    ledger = one.core.ledger
    stream(one, [P, S], without=[(lost, 1000)], count=3)
    ledger.held_bytes, before = ledger.held_bytes + ledger.max_held_bytes, ledger.held_bytes
    ledger.secondary_quota = 0
    one >> lost(1000, D)
    assert [fields(frame)[0].seq for frame in one.sent] == [1000, 1010, 1020]
    assert ledger.held_bytes < ledger.max_held_bytes + before


@pytest.mark.parametrize("side", [P, S])
def test_memory_that_is_used_up_has_no_room_for_what_has_to_wait(side):
    one = play()
    ledger = one.core.ledger
    ledger.held_bytes = ledger.max_held_bytes
    ledger.secondary_quota = 0
    one >> side(1000, D)
    assert one.core.counters["dropped.queue_full" if side is P else "secondary_dropped.queue_full"] == 1


def test_a_queue_that_is_full_behind_lost_bytes_asks_for_nothing():
    """The secondary will send again what is missing, and the primary what there was no room for."""
    one = play(max_queue_size=8)
    stream(one, [P, S], without=[(S, 1000)])
    assert one.core.counters["dropped.queue_full"] == 2
    assert one.wanted == []


def test_a_queue_that_is_full_while_nothing_comes_asks():
    one = play(max_queue_size=8)
    stream(one, [P])
    assert [message.reason for message in one.wanted] == ["queue_full"]


class Crowd:
    """Every 0.1 s the primary opens a connection. The secondary does it ever later, in the end by `behind` seconds."""

    def __init__(self, one, behind):
        self.one, self.behind, self.began = one, behind, one.now
        self.opened = self.answered = 0

    def goes_on(self, seconds):
        for _ in range(round(seconds * 10)):
            self.one >> syn("P", 999, dport=5000 + self.opened)
            self.opened += 1
            late = self.one.now - self.began + 1e-6
            while self.answered < self.opened and late >= self.answered * 0.1 + min(self.behind, self.answered * 0.03):
                self.one >> syn("S", 999, dport=5000 + self.answered)
                self.answered += 1
            self.one.at(0.1)


@pytest.mark.parametrize("behind", [1.0, 2.5])
def test_a_secondary_host_that_is_behind_as_a_whole_is_not_different(behind):
    """A connection of which something is lost then needs longer than `compare_timeout`: so do round trips."""
    one = play()
    others = Crowd(one, behind)
    others.goes_on(15)
    one >> P(1000, b"abc") >> S(1000, b"abc") >> P(1003, b"late")
    others.goes_on(5)
    assert one.core.counters["dropped.stale"] == 1
    one >> S(1003, b"late") >> P(1003, b"late")
    assert one.wanted == []
    assert fields(one.sent[-1])[1] == b"late"
    assert one.core.gauges()["behind_ms"] == pytest.approx(1000 * behind, abs=200)


def test_one_connection_that_gets_no_equal_while_others_do_at_once():
    one = play()
    one >> P(1000, b"never")
    Crowd(one, 0.0).goes_on(TIMEOUT + 1.0)
    assert [message.reason for message in one.wanted] == ["timeout"]


def test_one_connection_that_gets_no_equal_while_others_are_late():
    """It asks later, for its equal may be late as well, but it does ask."""
    one = play()
    others = Crowd(one, 1.0)
    others.goes_on(8)
    one >> P(1000, b"abc") >> S(1000, b"abc")
    began = one.now
    while not one.wanted and one.now < began + 30:
        one >> P(1003, b"never")
        others.goes_on(2)
    assert [message.reason for message in one.wanted] == ["timeout"]
    assert 4 * TIMEOUT <= one.now - began <= 5 * TIMEOUT + 3


def test_a_secondary_that_says_nothing_at_all_any_more_is_not_called_late():
    one = play()
    others = Crowd(one, 1.0)
    others.goes_on(8)
    for _ in range(14):
        one >> P(1000, b"never")
        one.at(0.5)
    assert one.wanted[0].reason == "timeout"
