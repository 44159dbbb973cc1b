"""Shadow mode with a primary that is farther ahead than there is memory: behind is not different."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colo_compare.config import CompareConfig
from colo_proto.messages import CheckpointDone, Mode, SetMode, SetRules
from colo_proto.net.tcp import ACK, FIN, RST
from playbook import PA, P, Play, S, open_connection, syn

SIZE = 60_000
ROOM = (1 << 20) // SIZE + 1
"""Segments that are kept."""
COUNT = 40
NOTE = FIN | RST | PA
"""What the rewriter says of a guest that cannot follow its client."""


def pattern(number):
    return bytes((number + i) & 0xFF for i in range(256)) * (SIZE // 256) + bytes(SIZE % 256)


def place(number):
    return 1000 + number * SIZE


def shadowed(**options):
    return open_connection(Play(CompareConfig(**options))).tell(SetMode(Mode.SHADOW))


@pytest.fixture
def play():
    return shadowed(max_held_mib=1)


def ahead(play, count=COUNT, fin=False):
    """The primary sends all that it has, and the secondary nothing yet."""
    for number in range(count):
        last = fin and number == count - 1
        play >> P(place(number), pattern(number), flags=PA | (FIN if last else 0))
    assert len(play.sent) == count
    return play


def catch_up(play, count=COUNT, change=None, fin=False):
    """The secondary sends it in other pieces."""
    stream = bytearray(b"".join(pattern(number) for number in range(count)))
    if change is not None:
        stream[change] ^= 1
    step = 50_000
    for at in range(0, len(stream), step):
        last = fin and at + step >= len(stream)
        play >> S(1000 + at, bytes(stream[at : at + step]), flags=PA | (FIN if last else 0))
    return play


def verdict(play):
    counters = play.core.counters
    wanted = sum(n for name, n in counters.items() if name.startswith("checkpoints_wanted."))
    return counters["miscompares"], wanted


def test_a_primary_that_is_far_ahead_is_not_different(play):
    ahead(play)
    assert play.core.gauges()["held_bytes"] < (1 << 20) + SIZE + 100
    catch_up(play).at(10)
    assert verdict(play) == (0, 0)
    counters, gauges = play.core.counters, play.core.gauges()
    assert counters["frames_unkept"] == COUNT - ROOM
    assert counters["bytes_compared"] == ROOM * SIZE
    assert counters["bytes_unjudged"] == (COUNT - ROOM) * SIZE
    assert gauges["held_bytes"] == gauges["flows_unprotected"] == gauges["flows_unjudged"] == 0


def test_and_what_it_sends_afterwards_is_compared(play):
    catch_up(ahead(play))
    play >> P(place(COUNT), b"ABCDEFGHIJ") >> S(place(COUNT), b"ABCDEFGHIX")
    assert verdict(play) == (1, 1)
    assert play.core.status()["last"][-1]["offset"] == COUNT * SIZE + 9


@pytest.mark.parametrize("number", [0, ROOM - 1])
def test_a_difference_in_what_was_kept_is_found(play, number):
    catch_up(ahead(play), change=number * SIZE + 5).at(10)
    assert verdict(play) == (1, 1)
    assert play.core.status()["last"][-1]["offset"] == number * SIZE + 5


def test_a_repetition_of_what_was_not_kept_is_compared(play):
    """As long as it is history: the primary sends again what got lost on the way to its client."""
    catch_up(ahead(play))
    play >> P(place(COUNT - 1), b"x" + pattern(COUNT - 1)[1:])
    assert verdict(play) == (1, 1)


def test_repetitions_of_what_was_not_kept_take_no_memory(play):
    ahead(play)
    for _ in range(3):
        ahead_again = [*range(COUNT), *reversed(range(COUNT))]
        for number in ahead_again:
            play >> P(place(number), pattern(number))
    (flow,) = play.core.table.flows.values()
    assert len(flow.data) < 2 * COUNT
    catch_up(play).at(10)
    assert verdict(play) == (0, 0)


def test_a_hole_in_what_the_primary_sent_is_no_hole_in_what_it_has(play):
    for number in (*range(20), *range(25, COUNT), *range(24, 19, -1)):
        play >> P(place(number), pattern(number))
    catch_up(play).at(10)
    assert verdict(play) == (0, 0)


def test_a_secondary_that_says_nothing_more_is_another_one(play):
    ahead(play)
    catch_up(play, ROOM + 5).at(10)
    assert verdict(play) == (1, 1)
    assert play.core.status()["last"][-1]["reason"] == "timeout"


@pytest.mark.parametrize("shorter", [0, 1])
def test_a_stream_that_ends_elsewhere_is_another_one(play, shorter):
    ahead(play, fin=True)
    catch_up(play, COUNT - shorter, fin=True).at(10)
    assert verdict(play) == (shorter, shorter)


def test_an_evidence_file_shows_frames_alone(play):
    ahead(play)
    catch_up(play, ROOM + 5)
    (flow,) = play.core.table.flows.values()
    assert flow.data
    assert all(one.frame for one in flow.evidence("verdict"))


def test_after_a_switch_to_enforce_mode_nothing_of_it_is_held(play):
    ahead(play).tell(SetMode(Mode.ENFORCE))
    assert play.core.gauges()["held"] == 0
    catch_up(play)
    behind = P(place(COUNT), b"held")
    play >> behind
    assert play.core.gauges()["held"] == 1
    play >> S(place(COUNT), b"held")
    assert play.released[-1] == behind
    assert verdict(play) == (0, 0)


def test_a_mask_that_would_have_to_see_what_was_not_kept_excuses(play):
    play.tell(SetRules("compare tcp mask /x[^y]*y/4096"))
    ahead(play)
    # The place differs, and the expression would have to see what follows.
    catch_up(play, change=ROOM * SIZE - 1).at(10)
    assert verdict(play) == (0, 0)
    assert play.core.counters["bytes_masked"] == 1


def test_many_acks_that_wait_are_few_in_memory():
    """An upload: the primary has taken what the secondary has not."""
    play = shadowed(max_queue_size=8)
    for number in range(1, 1000):
        play >> P(1000, flags=ACK, ack=500 + 100 * number)
    (flow,) = play.core.table.flows.values()
    assert len(flow.waiting) <= 8
    play >> S(1000, flags=ACK, ack=500 + 100 * 998)
    play.at(2)
    play >> S(1000, flags=ACK, ack=500 + 100 * 999)
    play.at(10)
    assert verdict(play) == (0, 0)
    for number in range(1000, 2000):
        play >> P(1000, flags=ACK, ack=500 + 100 * number)
    play >> S(1000, flags=ACK, ack=500 + 100 * 1998)
    play.at(10)
    assert verdict(play) == (1, 1), "the last one was never acknowledged"


# -- a secondary that could not follow -------------------------------------------------------------------------


def test_a_secondary_that_did_not_get_all_of_its_client_is_judged_no_more(play):
    play >> P(1000, b"ABC", ack=900) >> S(1000, flags=NOTE, ack=700)
    assert play.core.gauges()["flows_unjudged"] == 1
    play >> P(1003, b"DEF", ack=900) >> S(1000, b"XYZ", ack=700)
    play.at(10)
    assert verdict(play) == (0, 0)
    assert play.core.counters["flows_given_up"] == 1
    assert any(log.event == "flow.unjudged" for log in play.logs)
    assert play.core.gauges()["flows_unprotected"] == play.core.gauges()["held_bytes"] == 0


def test_until_the_next_connection_on_its_ports(play):
    play >> S(1000, flags=NOTE, ack=700)
    play >> syn("P", 70_000) >> syn("S", 80_000)
    assert play.core.gauges()["flows_unjudged"] == 0
    play >> P(70_001, b"ABC") >> S(70_001, b"ABX")
    assert verdict(play) == (1, 1)


def test_or_until_the_secondary_is_a_copy(play):
    play >> S(1000, flags=NOTE, ack=700)
    play.tell(CheckpointDone(1, state_copied=True))
    assert play.core.gauges()["flows_unjudged"] == 0
    play >> P(1000, b"ABC") >> S(1000, b"ABX")
    assert verdict(play) == (1, 1)


# -- any two guests that are equal ----------------------------------------------------------------------------


def cut(dice, size, most):
    """A stream of `size` bytes in segments, some of them again, some of them late."""
    pieces, at = [], 0
    while at < size:
        stop = min(size, at + dice.randint(1, most))
        pieces.append((at, stop))
        at = stop
    sent = [(n + dice.choice((0, 0, 0, 3, 9)), piece) for n, piece in enumerate(pieces)]
    for _ in range(len(pieces) // 4):
        n = dice.randrange(len(pieces))
        sent.append((n + dice.randint(1, 20), pieces[n]))
    return [piece for _, piece in sorted(sent)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 6000), st.sampled_from([300, 1000, 4000]), st.booleans())
def test_equal_guests_never_differ_however_little_is_kept(seed, size, room, alone):
    dice = random.Random(seed)
    play = shadowed(max_queue_size=dice.choice((4, 1024)))
    play.core.ledger.max_held_bytes = room
    if alone:
        play.core.ledger.max_ahead = 3
    stream = dice.randbytes(size)
    mine, its = cut(dice, size, 700), cut(dice, size, 500)
    steps = [(n / len(mine) * 0.6, "P", one) for n, one in enumerate(mine)]
    steps += [(0.2 + n / len(its) * 0.8, "S", one) for n, one in enumerate(its)]
    for _, side, (start, stop) in sorted(steps, key=lambda step: step[0]):
        flags = PA | (FIN if stop == size else 0)
        ack = 500 + (start if side == "P" else min(start, size // 2))
        play >> (P if side == "P" else S)(1000 + start, stream[start:stop], flags=flags, ack=ack)
    play >> S(1000 + size + 1, flags=ACK, ack=500 + size)
    play.at(20)
    assert verdict(play) == (0, 0), play.core.status()["last"]
    (flow,) = play.core.table.flows.values()
    assert flow.committed == 1000 + size + 1 + flow.isn - 999
    assert play.core.gauges()["held_bytes"] == 0
    assert flow.data == flow.waiting == []
