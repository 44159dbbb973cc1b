"""The mirror of a host that leads at some times and follows at others (symmetric wiring)."""

import pytest

import craft
from colo_mirror.config import MirrorConfig
from colo_mirror.mirror import Mirror
from colo_proto.claim import Stand, State, derive, write_claim
from colo_proto.core import Log, Send, Tell
from colo_proto.messages import Demote, LanAsk, LanHeard, LanSaid, LanSay, Promote
from runtime_helpers import frames

CONFIG = MirrorConfig(roles="change")
BATCH = frames(0, 3)
PASSED = [Send("next", BATCH), Send("outdev", BATCH)]
KEYS = derive(bytes(range(32)), "colo")
CLAIM = write_claim(Stand("secondary", 1, 1, 2, State.STANDBY), "colo", KEYS)


def test_it_passes_frames_on_only_while_its_host_leads():
    core = Mirror(CONFIG)
    assert core.receive("netdev", BATCH, 1.0) == []
    assert core.tell(Promote(2), 2.0) == [Log("info", "mirror.promoted", {"fence": 2})]
    assert core.receive("netdev", BATCH, 2.0) == PASSED
    assert core.tell(Demote(3), 3.0) == [Log("warning", "mirror.demoted", {"fence": 3})]
    assert core.receive("netdev", BATCH, 3.0) == []
    core.tell(Promote(4), 4.0)
    assert core.receive("netdev", BATCH, 4.0) == PASSED
    assert core.counters["dropped.standby"] == core.counters["frames"] == 6


def test_a_frame_that_was_restarted_says_the_same_again():
    core = Mirror(CONFIG)
    core.tell(Promote(2), 1.0)
    assert core.tell(Promote(2), 2.0) == []
    assert core.receive("netdev", BATCH, 2.0) == PASSED
    core.tell(Demote(3), 3.0)
    assert core.tell(Demote(3), 4.0) == []
    assert core.receive("netdev", BATCH, 4.0) == []


def test_tokens_of_the_past_change_nothing():
    core = Mirror(CONFIG)
    core.tell(Demote(5), 1.0)
    core.tell(Promote(4), 2.0)
    assert core.status() == {"promoted": False, "fence": 5}
    core.tell(Promote(6), 3.0)
    core.tell(Demote(5), 4.0)
    core.tell(Demote(6), 4.0)
    assert core.status() == {"promoted": True, "fence": 6}
    assert core.gauges()["promoted"] == 1


@pytest.mark.parametrize("leads", [False, True])
def test_claims_are_heard_and_said_in_both_roles(leads):
    core = Mirror(MirrorConfig(roles="change", claims="tap://lan"))
    if leads:
        core.tell(Promote(2), 1.0)
    ours = write_claim(Stand("primary", 1, 1, 2, State.HOLDING), "colo", KEYS)
    assert core.tell(LanSay(ours, 9, [KEYS.gate]), 2.0) == [Send("claims", [ours]), Tell(LanSaid(9))]
    assert core.receive("netdev", [CLAIM], 3.0) == [Tell(LanHeard(CLAIM))]


def test_a_neighbour_is_asked_for_only_while_its_host_leads():
    core = Mirror(MirrorConfig(roles="change", claims="tap://lan"))
    ask = LanAsk(craft.arp_request("10.0.0.2", "10.0.0.9"), until=9.0)
    assert core.tell(ask, 1.0) == []
    core.tell(Promote(2), 2.0)
    assert core.tell(ask, 3.0) == [Send("claims", [ask.frame])]
    core.tell(Demote(3), 4.0)
    assert core.tell(ask, 5.0) == []
    assert (core.counters["asks_refused"], core.counters["neighbours_asked"]) == (2, 1)


def test_what_it_knew_of_windows_is_forgotten_with_the_role():
    core = Mirror(CONFIG)
    core.tell(Promote(2), 1.0)
    before = core.windows
    core.tell(Promote(2), 2.0)
    assert core.windows is before
    core.tell(Demote(3), 3.0)
    assert core.windows is not before
    assert core.windows.share.budget == before.share.budget
    assert Mirror(MirrorConfig(roles="change", max_windows_mib=0)).windows is None


def test_a_mirror_of_a_fixed_primary_has_no_role():
    core = Mirror(MirrorConfig())
    assert core.tell(Demote(3), 1.0) == core.tell(Promote(4), 2.0) == []
    assert core.receive("netdev", BATCH, 3.0) == PASSED
    assert "promoted" not in core.gauges()
