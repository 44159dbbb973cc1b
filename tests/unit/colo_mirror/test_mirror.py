"""The mirror: every frame on its way first, then its copy."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

import craft
from colo_mirror.config import MirrorConfig
from colo_mirror.mirror import Mirror
from colo_proto.claim import Stand, State, derive, write_claim
from colo_proto.core import Send, Tell, Way
from colo_proto.messages import CheckpointDone, Drain, LanAsk, LanHeard, LanSaid, LanSay, SetMode
from packets import CLIENT_MAC, GUEST_MAC
from runtime_helpers import frames


def test_the_original_first_then_the_copy():
    core = Mirror(MirrorConfig())
    batch = frames(0, 3)
    out = core.receive("netdev", batch, 1.0)
    assert out == [Send("next", batch), Send("outdev", batch)]
    # The same objects: copying costs nothing.
    assert all(one is other for send in out for one, other in zip(send.frames, batch, strict=True))


@given(st.lists(st.lists(st.binary(min_size=24, max_size=60), min_size=1, max_size=8), max_size=20))
def test_nothing_is_lost_doubled_or_reordered(batches):
    core = Mirror(MirrorConfig())
    sent = {"next": [], "outdev": []}
    for now, batch in enumerate(batches):
        for send in core.receive("netdev", batch, float(now)):
            sent[send.port] += send.frames
    everything = [frame for batch in batches for frame in batch]
    assert sent == {"next": everything, "outdev": everything}
    assert core.counters["frames"] == len(everything)
    assert core.counters["bytes"] == sum(map(len, everything))


def test_it_waits_for_nothing_and_says_nothing():
    core = Mirror(MirrorConfig())
    for now, later in pairwise((0.0, 1.0, 1e6, 1e9)):
        core.receive("netdev", frames(0, 1), now)
        assert core.deadline() is None
        assert core.on_timer(later) == []
        for message in (SetMode("bypass"), CheckpointDone(1, state_copied=True), Drain()):
            assert core.tell(message, later) == []
    assert core.drain(1e9) == []
    assert (core.gauges(), core.status()) == ({"active": 0, "window_bytes": 0}, {})


def test_ports():
    ways = {port.name: (port.way, port.required) for port in Mirror.ports}
    assert ways == {
        "netdev": (Way.IN, True),
        "next": (Way.OUT, True),
        "outdev": (Way.OUT, True),
        "claims": (Way.OUT, False),
    }


KEYS = derive(bytes(range(32)), "colo")


def claim_of(side, count):
    return write_claim(Stand(side, 1, count, 1, State.STANDBY), "colo", KEYS)


def test_claims_are_for_the_frame_and_for_neither_guest():
    claim, ours = claim_of("secondary", 1), claim_of("primary", 4)
    core = Mirror(MirrorConfig(claims="tap://lan"))
    assert core.tell(LanSay(ours, 4, [KEYS.gate]), 1.0) == [Send("claims", [ours]), Tell(LanSaid(4))]
    mine = [frame[:22] + b"\x08\x00" + frame[24:] for frame in frames(0, 2)]
    out = core.receive("netdev", [mine[0], claim, mine[1]], 1.0)
    assert out == [Send("next", mine), Send("outdev", mine), Tell(LanHeard(claim))]
    assert core.receive("netdev", [claim], 1.0) == []
    assert core.receive("netdev", [claim_of("secondary", 2)], 1.0) == [Tell(LanHeard(claim_of("secondary", 2)))]
    assert core.counters["frames"] == 2
    assert core.counters["claims_ignored.repeated"] == 1


def test_without_a_port_for_claims_they_are_frames_like_others():
    core = Mirror(MirrorConfig())
    claim = [claim_of("secondary", 1)]
    assert core.receive("netdev", claim, 1.0) == [Send("next", claim), Send("outdev", claim)]
    assert core.tell(LanSay(claim[0], 4), 1.0) == []


WHO_HAS = craft.arp_request("10.0.0.2", "10.0.0.1", sender_mac=GUEST_MAC)
SOLICIT = craft.neighbour_solicitation("fd00::2", "fd00::1", src_mac=GUEST_MAC)


def asked(frame, until=9.0):
    core = Mirror(MirrorConfig(claims="tap://lan"))
    return core.tell(LanAsk(frame, until), 5.0), core.counters


def test_it_asks_for_a_neighbour_of_the_secondary_guest():
    for frame in (WHO_HAS, SOLICIT):
        out, counters = asked(frame)
        assert out == [Send("claims", [frame])]
        assert counters["neighbours_asked"] == 1


def test_it_asks_nothing_else_and_not_when_the_other_side_may_have_the_lan():
    probe = craft.arp(1, "0.0.0.0", GUEST_MAC, "10.0.0.2", bytes(6), b"\xff" * 6)
    reply = craft.arp_reply("10.0.0.2", "10.0.0.1", sender_mac=GUEST_MAC, target_mac=CLIENT_MAC)
    data = craft.tcp("10.0.0.2", "10.0.0.9", 80, 5000, 1, 0, 2)
    wrong = [(frame, 9.0) for frame in (probe, reply, data, WHO_HAS + bytes(300), b"")]
    for frame, until in [(WHO_HAS, 5.0), *wrong]:
        out, counters = asked(frame, until)
        assert not out
        assert counters["asks_refused"] == 1
    assert Mirror(MirrorConfig()).tell(LanAsk(WHO_HAS, 9.0), 5.0) == []
