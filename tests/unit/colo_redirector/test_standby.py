"""The redirectors of the secondary: the client tap takes the place of the other host."""

import pytest

import craft
from colo_proto.claim import Stand, State, derive, write_claim
from colo_proto.core import Log, Send, Tell, Way
from colo_proto.errors import ConfigError
from colo_proto.messages import Demote, LanHeard, LanSaid, LanSay, Promote
from colo_redirector.config import RedirectorConfig
from colo_redirector.redirector import Redirector
from runtime_helpers import frames

KEYS = derive(bytes(range(32)), "colo")
CLAIM, NEXT = (write_claim(Stand("primary", 1, count, 2, State.HOLDING), "colo", KEYS) for count in (1, 2))
OURS = write_claim(Stand("secondary", 1, 1, 2, State.STANDBY), "colo", KEYS)
SAY = LanSay(OURS, 5, [KEYS.gate])
GUEST = bytes.fromhex("02c010000002")
SAYS = craft.arp_request("10.0.0.2", "10.0.0.9", sender_mac=GUEST)


def f1(**more):
    return Redirector(RedirectorConfig(netdev="ipc:///r", indev="ipc:///m", standby="tap://lan", claims="tap://lan"))


def f2():
    return Redirector(RedirectorConfig(netdev="ipc:///r", outdev="ipc:///c", standby="tap://lan"))


def others(batch):
    """Frames that are no claims: the helper's have the claims' type."""
    return [frame[:22] + b"\x08\x00" + frame[24:] for frame in batch]


FRAMES = others(frames(0, 3))


def test_ports():
    assert {p.name: p.way for p in f1().ports if p.spare} == {"standby": Way.IN, "claims": Way.OUT}
    assert {p.name: p.way for p in f2().ports if p.spare} == {"standby": Way.OUT, "claims": Way.OUT}


def test_until_a_failover_the_tap_is_read_and_forgotten():
    core = f1()
    assert core.receive("standby", FRAMES, 0.0) == []
    assert core.counters["dropped.standby"] == 3
    assert core.receive("indev", FRAMES, 0.0) == [Send("netdev", FRAMES)]


def test_after_it_clients_come_from_the_tap_and_no_longer_from_the_other_host():
    core = f1()
    (log,) = core.tell(Promote(3), 1.0)
    assert isinstance(log, Log)
    assert core.receive("standby", FRAMES, 2.0) == [Send("netdev", FRAMES)]
    assert core.receive("indev", FRAMES, 2.0) == []
    assert core.counters["dropped.promoted"] == 3
    assert core.gauges()["promoted"] == 1


def test_after_it_the_guest_is_sent_to_the_tap_and_announced_there():
    core = f2()
    core.receive("netdev", [SAYS], 0.0)
    _, said = core.tell(Promote(3), 1.0)
    assert said == Send(
        "standby",
        [craft.rarp_announcement(GUEST), craft.arp_request("10.0.0.2", "10.0.0.2", sender_mac=GUEST, pad=60)],
    )
    times = []
    while (due := core.deadline()) is not None:
        assert core.on_timer(due) == [said]
        times.append(due)
    assert len(times) == 4
    assert core.receive("netdev", FRAMES, 1.0) == [Send("standby", FRAMES)]
    assert core.counters["announcements"] == 10


def test_promoted_again_says_nothing_again():
    core = f2()
    core.tell(Promote(3), 1.0)
    assert core.tell(Promote(3), 1.5) == []
    assert core.tell(Promote(1), 1.5) == [], "an older one is no news"
    assert core.status()["fence"] == 3


def test_a_higher_fence_takes_it_back():
    core = f2()
    core.tell(Promote(3), 1.0)
    assert core.tell(Demote(2), 2.0) == []
    assert core.promoted
    assert core.tell(Demote(4), 2.0) != []
    assert core.receive("netdev", FRAMES, 2.0) == [Send("outdev", FRAMES)]
    assert core.deadline() is None
    assert core.tell(Promote(3), 3.0) == []
    assert not core.promoted


def test_the_primarys_side_is_not_promoted_and_without_a_tap_nobody_is():
    core = f1()
    core.tell(Promote(3, "primary"), 1.0)
    assert not core.promoted
    bare = Redirector(RedirectorConfig(netdev="ipc:///r", indev="ipc:///m"))
    assert bare.tell(Promote(3), 1.0) == []
    assert bare.receive("indev", FRAMES, 1.0) == [Send("netdev", FRAMES)]


@pytest.mark.parametrize("promoted", [False, True])
def test_claims_are_for_the_frame_and_never_for_the_guest(promoted):
    core = f1()
    core.tell(SAY, 1.0)
    if promoted:
        core.tell(Promote(3), 1.0)
    outputs = core.receive("standby", [FRAMES[0], CLAIM, FRAMES[1]], 2.0)
    assert [o.message for o in outputs if isinstance(o, Tell)] == [LanHeard(CLAIM)]
    assert [o for o in outputs if isinstance(o, Send)] == ([Send("netdev", [FRAMES[0], FRAMES[1]])] if promoted else [])
    assert core.receive("standby", [NEXT], 2.0) == [Tell(LanHeard(NEXT))]


def test_a_claim_goes_out_where_there_is_a_port_for_it():
    assert f1().tell(SAY, 1.0) == [Send("claims", [OURS]), Tell(LanSaid(5))]
    assert f2().tell(SAY, 1.0) == []


def test_a_flood_of_claims_does_not_reach_the_frame():
    core = f1()
    core.tell(SAY, 0.0)
    junk = CLAIM[:-40] + bytes(40)
    told = [o for n in range(100) for o in core.receive("standby", [junk, CLAIM] * 32, n * 0.001)]
    assert told == [Tell(LanHeard(CLAIM))]
    assert core.counters["claims_heard"] == 6400
    assert core.counters["claims_ignored.junk"] == 3200
    assert core.counters["claims_ignored.repeated"] == 3199
    assert core.receive("standby", [junk] * 9 + [NEXT], 0.2) == [Tell(LanHeard(NEXT))]


@pytest.mark.parametrize(
    "options",
    [
        {"indev": "ipc:///a", "outdev": "ipc:///b", "standby": "tap://lan"},
        {"indev": "ipc:///a", "outdev": "ipc:///b", "netdev": "tap://g", "standby": "tap://lan"},
        {"outdev": "ipc:///b", "netdev": "tap://g", "standby": "tap://lan", "claims": "tap://lan"},
        {"indev": "ipc:///b", "netdev": "tap://g", "claims": "tap://lan"},
    ],
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigError, match=r"--(standby|claims) goes with"):
        RedirectorConfig(**options)
