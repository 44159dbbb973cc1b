"""The rewriter as the last process before the client tap (lean wiring): it swaps by itself."""

from dataclasses import replace

import pytest

import craft
from colo_proto.claim import Stand, State, derive, write_claim
from colo_proto.core import Send, Tell
from colo_proto.errors import ConfigError
from colo_proto.messages import Demote, LanHeard, LanSaid, LanSay, Promote
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter
from packets import CLIENT_MAC, GUEST_MAC
from packets import parse as words

KEYS = derive(bytes(range(32)), "colo")
CLAIM = write_claim(Stand("primary", 1, 1, 2, State.HOLDING), "colo", KEYS)
OURS = write_claim(Stand("secondary", 1, 1, 2, State.STANDBY), "colo", KEYS)
CONFIG = RewriterConfig(
    indev="tcp://192.0.2.1:9003", outdev="tcp://0.0.0.0:9004?server=on&split=on", netdev="tap://guest",
    standby="tap://lan", claims="tap://lan", revive=False,
)  # fmt: skip
ARP = craft.arp_request("10.0.0.2", "10.0.0.9", sender_mac=GUEST_MAC)


def parse(text):
    side, _, rest = text.partition(" ")
    return words(rest.split(), side)


def balance(core):
    counters = core.counters
    dropped = sum(n for name, n in counters.items() if name.startswith("dropped."))
    made = counters["neighbour_answers"] + counters["announcements"] + counters["revivals"]
    assert counters["frames_in"] + made == counters["frames_out"] + dropped + core.gauges()["held"]


def opened():
    """A rewriter with one connection: the secondary's ISN is 9000, the primary's 1000."""
    core = Rewriter(CONFIG)
    for port, text in (("indev", "c S 100"), ("netdev", "g SA 9000 101"), ("indev", "c A 101 1001")):
        core.receive(port, [parse(text).frame()], 1.0)
    return core


def sends(outputs):
    return [(o.port, [bytes(f) for f in o.frames]) for o in outputs if isinstance(o, Send)]


def test_before_a_failover_the_tap_is_silent():
    core = opened()
    assert core.receive("standby", [parse("c A 101 1001 +10").frame()], 2.0) == []
    assert core.counters["dropped.standby"] == 1
    (sent,) = core.receive("netdev", [parse("g A 9001 101 +10").frame()], 2.0)
    assert sent.port == "outdev", "shared out to compare by the link"
    balance(core)


def test_after_it_known_connections_go_on_with_their_offset_on_the_tap():
    core = opened()
    core.tell(Promote(1), 2.0)
    out = core.receive("netdev", [parse("g A 9001 101 +10").frame()], 3.0)
    assert sends(out) == [("standby", [parse("g A 1001 101 +10").frame()])]
    out = core.receive("standby", [parse("c A 101 1011").frame()], 3.0)
    assert sends(out) == [("netdev", [parse("c A 101 9011").frame()])]
    assert core.receive("indev", [parse("c A 101 1011").frame()], 3.0) == []
    assert core.counters["dropped.promoted"] == 1
    balance(core)


def test_after_it_new_connections_are_plain():
    core = opened()
    core.tell(Promote(1), 2.0)
    for port, text, to in (
        ("standby", "c S 500", "netdev"),
        ("netdev", "g SA 7000 501", "standby"),
        ("standby", "c A 501 7001", "netdev"),
        ("netdev", "g A 7001 501 +10", "standby"),
    ):
        frame = replace(parse(text), ports=(41001, 80)).frame()
        assert sends(core.receive(port, [frame], 3.0)) == [(to, [frame])]
    assert core.gauges()["flows"] == 1
    balance(core)


def test_the_guest_is_announced():
    core = opened()
    core.receive("netdev", [ARP], 1.0)
    out = core.tell(Promote(1), 2.0)
    said = [
        craft.rarp_announcement(GUEST_MAC),
        craft.arp_request("10.0.0.2", "10.0.0.2", sender_mac=GUEST_MAC, pad=60),
    ]
    assert sends(out) == [("standby", said)]
    times = []
    while (due := core.deadline()) is not None and due < 4.0:
        times.append(due)
        assert sends(core.on_timer(due)) == [("standby", said)]
    assert times == [2.1, 2.3, 2.6, 3.0]
    balance(core)


def test_its_neighbours_are_its_own_business_then_and_again_ours_when_it_is_demoted():
    core = opened()
    core.receive("indev", [craft.arp_request("10.0.0.9", "10.0.0.2", sender_mac=CLIENT_MAC)], 1.0)
    assert ("netdev",) in {(port,) for port, _ in sends(core.receive("netdev", [ARP], 1.0))}
    core.tell(Promote(1), 2.0)
    assert [port for port, _ in sends(core.receive("netdev", [ARP], 3.0))] == ["standby"]
    core.tell(Demote(1), 4.0)
    assert core.status()["promoted"]
    core.tell(Demote(2), 4.0)
    assert not core.status()["promoted"]
    core.receive("indev", [craft.arp_request("10.0.0.9", "10.0.0.2", sender_mac=CLIENT_MAC)], 5.0)
    assert [port for port, _ in sends(core.receive("netdev", [ARP], 5.0))] == ["netdev", "outdev"]
    balance(core)


@pytest.mark.parametrize("promoted", [False, True])
def test_claims_are_for_the_frame(promoted):
    core = opened()
    if promoted:
        core.tell(Promote(1), 2.0)
    assert core.tell(LanSay(OURS, 9, [KEYS.gate]), 3.0) == [Send("claims", [OURS]), Tell(LanSaid(9))]
    assert core.receive("standby", [CLAIM], 3.0) == [Tell(LanHeard(CLAIM))]
    assert core.receive("standby", [CLAIM], 3.0) == []
    balance(core)


def test_behind_a_redirector_it_reads_its_link_after_a_failover_as_before():
    core = Rewriter(RewriterConfig())
    core.tell(Promote(1), 2.0)
    frame = parse("c S 100").frame()
    assert sends(core.receive("indev", [frame], 3.0)) == [("netdev", [frame])]


def test_claims_need_an_ear():
    with pytest.raises(ConfigError, match="--standby"):
        RewriterConfig(claims="tap://lan")
