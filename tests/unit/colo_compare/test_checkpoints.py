"""What waits while a checkpoint is put off."""

import pytest

from colo_compare.config import CompareConfig
from playbook import P, Play, S, syn, udp


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_flows_that_wait_for_a_checkpoint_leave_room_for_the_others(kind):
    """The frame may put a checkpoint off for seconds. Whoever waits for it may not fill the memory meanwhile."""
    play = Play(CompareConfig(max_held_mib=1))
    big = bytes(20000)
    if kind == "tcp":
        for sport in range(100, 110):
            play >> syn("P", 999, sport=sport) >> syn("S", 7777, sport=sport)
            play >> P(1000, b"a", sport=sport) >> S(1000, b"b", sport=sport)
    else:
        for sport in range(100, 110):
            play >> udp("P", b"a", sport=sport) >> udp("S", b"b", sport=sport)
    play.at(0.2)
    assert len(play.wanted) == 10
    for number in range(200):
        sport = 100 + number % 10
        play >> (P(1001 + number * 20000, big, sport=sport) if kind == "tcp" else udp("P", big, sport=sport))
    assert play.core.gauges()["held_bytes"] < (1 << 19) + 30000
    assert play.core.counters["dropped.queue_full"] > 100
    before = len(play.sent)
    play >> udp("P", big, sport=9) >> udp("S", big, sport=9)
    assert len(play.sent) == before + 1
    play.at(30)
    assert play.held > 0, "they still wait"
    play.done(copied=False)
    assert play.held == 0


def test_few_requests_are_repeated_at_a_time_and_each_has_its_turn():
    play = Play()
    for sport in range(100):
        play >> udp("P", b"a", sport=1000 + sport)
    play.at(4.5)
    assert len(play.wanted) == 100
    asked = [len(play.at(1).wanted) for _ in range(12)]
    assert max(b - a for a, b in zip([100, *asked], asked, strict=False)) <= 16
    assert {w.flow for w in play.wanted[100:]} == {w.flow for w in play.wanted[:100]}
