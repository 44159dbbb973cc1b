"""The LAN heartbeat: what a filter tells its COLO frame, while anybody may send to the LAN what he likes."""

import time
from collections import Counter
from random import Random

import pytest

from colo_proto.claim import CLAIM, ETHERTYPE, Stand, State, derive, write_claim
from colo_proto.core import Send, Tell
from colo_proto.lan import PER_SPEAKER, SPEAKERS, STRANGERS, Lan
from colo_proto.messages import LanHeard, LanSaid, LanSay

KEYS = derive(bytes(range(32)), "colo")
US, PEER = 5, 9


def claim(incarnation=PEER, count=1, keys=KEYS, **more):
    return write_claim(Stand("primary", incarnation, count, 0, State.HOLDING, **more), "colo", keys)


def heartbeat(*, believed=PEER, gates=(KEYS.gate,)):
    """Its COLO frame has made one claim, which shows which speaker it believes."""
    lan = Lan(Counter())
    said = write_claim(Stand("secondary", US, 1, 0, State.STANDBY, echo_of=believed), "colo", KEYS)
    assert lan.say(LanSay(said, 1, list(gates))) == [Send("claims", [said]), Tell(LanSaid(1))]
    return lan


def hear(lan, *frames, now=0.0):
    """What the COLO frame is told."""
    rest, heard = lan.sift(list(frames), now)
    assert not any(frame[22:24] == ETHERTYPE for frame in rest)
    return [output.message.frame for output in heard if isinstance(output.message, LanHeard)]


def junk(count, seed=1):
    """The EtherType and length of a claim, and the rest as good as it can be made without the secret."""
    random = Random(seed)
    frames = [bytes(22) + ETHERTYPE + random.randbytes(CLAIM - 24) for _ in range(100)]
    frames += [claim(PEER, count, derive(random.randbytes(32), "colo")) for count in range(100)]
    frames += [bytes(22) + ETHERTYPE + bytes(random.randrange(1400)) for _ in range(100)]
    return [random.choice(frames) for _ in range(count)]


def test_claims_are_told_and_everything_else_goes_on():
    lan = heartbeat()
    other = bytes(22) + b"\x08\x00" + bytes(40)
    rest, heard = lan.sift([other, claim(), other], 0.0)
    assert rest == [other, other]
    assert heard == [Tell(LanHeard(claim()))]


def test_before_the_frame_has_spoken_nobody_is_heard():
    assert hear(Lan(Counter()), claim()) == []


@pytest.mark.slow
def test_a_genuine_claim_is_heard_in_a_flood_of_junk():
    lan = heartbeat()
    now, heard = 0.0, 0
    for second in range(5):
        for batch in range(100):
            frames = junk(200, seed=batch)
            if batch in (3, 53, 99):
                frames.insert(batch, claim(count=1000 * second + batch))
            heard += len(hear(lan, *frames, now=now))
            now += 0.01
    assert heard == 15
    assert lan._counters["claims_ignored.junk"] == 100000


def test_judging_junk_is_cheap():
    """20,000 frames a second take a small part of one processor."""
    lan, frames = heartbeat(), junk(5000)
    best = min(_time(lan, frames) for _ in range(5))
    assert best / len(frames) < 25e-6


def _time(lan, frames):
    began = time.process_time()
    hear(lan, *frames)
    return time.process_time() - began


def test_what_was_said_before_is_not_told_again():
    lan = heartbeat()
    frames = [claim(count=count) for count in range(1, 6)]
    assert hear(lan, *frames) == frames
    assert hear(lan, *(frames * 1000)) == []
    assert hear(lan, claim(count=6)) == [claim(count=6)]
    assert lan._counters["claims_ignored.repeated"] == 5000


@pytest.mark.slow
def test_recorded_claims_of_other_starts_do_not_take_the_place_of_who_is_believed():
    lan = heartbeat()
    recorded = [claim(incarnation, count) for incarnation in range(100, 100 + 2 * SPEAKERS) for count in range(50)]
    now = 0.0
    for count in range(1, 100):
        told = hear(lan, *recorded, claim(count=count), now=now)
        assert told[-1] == claim(count=count)
        assert len(told) <= STRANGERS + 1
        now += 0.1
    assert len(lan._speakers) <= SPEAKERS


@pytest.mark.slow
def test_nor_of_a_start_that_is_new():
    """This holds as long as there are not more of them than are remembered."""
    lan = heartbeat()
    recorded = [claim(incarnation, count) for incarnation in range(100, 95 + SPEAKERS) for count in range(50)]
    now = 0.0
    for count in range(1, 100):
        assert claim(77, count) in hear(lan, *recorded, claim(77, count), now=now)
        now += 0.1


def test_a_stranger_is_told_a_few_times_a_second_and_the_believed_one_always():
    lan = heartbeat()
    assert len(hear(lan, *(claim(77, count) for count in range(500)))) == PER_SPEAKER
    assert len(hear(lan, *(claim(77, count) for count in range(500, 1000)), now=1.0)) == PER_SPEAKER
    assert len(hear(lan, *(claim(PEER, count) for count in range(500)), now=1.0)) == 500


@pytest.mark.parametrize("turn", [0, 1])
def test_either_of_two_secrets_opens_the_gate(turn):
    both = [KEYS, derive(b"another secret of this pair", "colo")]
    lan = heartbeat(gates=[one.gate for one in both])
    assert hear(lan, claim(keys=both[turn]))
