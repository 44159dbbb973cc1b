"""The rewriter of a host that leads at some times and follows at others (symmetric wiring)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import craft
from colo_proto.core import Log, Send
from colo_proto.errors import ConfigError
from colo_proto.messages import CheckpointDone, Demote, Promote, SetMode, Unprotected
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import RST, segment
from colo_rewriter.backoff import REVIVE_AT
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter
from packets import CLIENT_MAC, GUEST_MAC
from packets import parse as words

CONFIG = RewriterConfig(
    indev="tcp://192.0.2.1:9003", outdev="tcp://0.0.0.0:9004?server=on&split=on", netdev="tap://guest",
    lead_in="ipc://lead0", lead_out="ipc://compare0?server=on&split=on", revive=False,
)  # fmt: skip
ARP = craft.arp_request("10.0.0.2", "10.0.0.9", sender_mac=GUEST_MAC)
OLD, NEW = 5000, 41001
"""Client ports of a connection from before the promotion, and of one that begins afterwards."""


def frame(text, port=OLD):
    side, _, rest = text.partition(" ")
    return replace(words(rest.split(), side), ports=(port, 80)).frame()


def sends(outputs):
    return [(out.port, [bytes(one) for one in out.frames]) for out in outputs if isinstance(out, Send)]


def through(core, port, text, client=OLD, now=3.0):
    """What leaves when this frame comes: by port."""
    return dict(sends(core.receive(port, [frame(text, client)], now)))


def balance(core):
    counters = core.counters
    dropped = sum(n for name, n in counters.items() if name.startswith("dropped."))
    made = sum(counters[name] for name in ("neighbour_answers", "announcements", "revivals", "resets_made"))
    assert counters["frames_in"] + made == counters["frames_out"] + dropped + core.gauges()["held"]


def feed(core, into, out, client, *texts):
    """A conversation in equal numbers: each frame must come out at the other end as it is."""
    for text in texts:
        port, to = (into, "netdev") if text[0] == "c" else ("netdev", out)
        assert through(core, port, text, client) == {to: [frame(text, client)]}, text


def follower():
    """A host that follows, with one connection: its guest's ISN is 9000, the leader's 1000."""
    core = Rewriter(CONFIG)
    for port, text in (("indev", "c S 100"), ("netdev", "g SA 9000 101"), ("indev", "c A 101 1001")):
        core.receive(port, [frame(text)], 1.0)
    return core


def promoted():
    """The same host, which leads from 2.0 on, with another connection, whose ISN is 7000."""
    core = follower()
    core.tell(Promote(3), 2.0)
    feed(core, "lead_in", "lead_out", NEW, "c S 500", "g SA 7000 501", "c A 501 7001", "g PA 7001 501 +10")
    return core


def flows(core):
    return {int.from_bytes(flow.key_client[8:10], "big"): flow for flow in core._table}


def goes_on_with_its_offset(core, into, out):
    assert through(core, "netdev", "g A 9001 101 +10") == {out: [frame("g A 1001 101 +10")]}
    assert through(core, into, "c A 101 1011") == {"netdev": [frame("c A 101 9011")]}


def test_a_leader_from_the_beginning_passes_every_connection_on_as_it_is():
    core = Rewriter(CONFIG)
    core.tell(Promote(2), 0.0)
    feed(
        core, "lead_in", "lead_out", NEW,
        "c S 500 ts 5:0", "g SA 7000 501 ts 90:5", "c A 501 7001 ts 6:90", "c PA 501 7001 +10 ts 7:90",
        "g PA 7001 511 +10 ts 95:7", "c FA 511 7011 ts 8:95", "g FA 7011 512 ts 97:8", "c A 512 7012 ts 9:97",
    )  # fmt: skip
    # The guest may open as well.
    feed(core, "lead_in", "lead_out", OLD, "g S 300", "c SA 900 301", "g A 301 901", "c PA 901 301 +7", "g R 301")
    assert core.counters["rewritten"] == 0
    assert core.status()["flows_shifted"] == 0
    assert core.gauges()["flows_closed"] == 2
    assert core.gauges()["promoted"] == 1
    balance(core)


SEGMENTS = st.builds(
    lambda side, flags, seq, ack, size, port: frame(
        f"{side} {''.join(flags)} {seq} {ack if 'A' in flags else 0}" + f" +{size}" * bool(size), port
    ),
    st.sampled_from("cg"),
    st.sampled_from(["S", "SA", "A", "PA", "FA", "RA", "R", "F"]),
    st.integers(998, 1003),
    st.integers(998, 1003),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([OLD, NEW]),
)


@given(st.lists(st.tuples(SEGMENTS, st.sampled_from([0.0, 0.1, 3.0, 70.0])), max_size=40))
def test_whatever_comes_a_leader_from_the_beginning_changes_nothing(steps):
    core = Rewriter(CONFIG)
    core.tell(Promote(2), 0.0)
    now = 1.0
    for one, later in steps:
        now += later
        if (due := core.deadline()) is not None and due <= now:
            assert sends(core.on_timer(now)) == []
        outward = one[10 + 6 : 10 + 12] == GUEST_MAC
        port, to = ("netdev", "lead_out") if outward else ("lead_in", "netdev")
        assert sends(core.receive(port, [one], now)) == [(to, [one])]
    assert all(flow.own and not flow.offset for flow in core._table)


def test_until_it_is_told_it_does_not_lead():
    core = Rewriter(CONFIG)
    assert core.receive("lead_in", [frame("c S 100")], 1.0) == []
    assert through(core, "netdev", "g S 300") == {"outdev": [frame("g S 300")]}
    assert core.counters["dropped.standby"] == 1
    balance(core)


def test_promoted_it_goes_on_with_old_connections_and_new_ones_have_no_offset():
    core = promoted()
    goes_on_with_its_offset(core, "lead_in", "lead_out")
    assert core.receive("indev", [frame("c A 101 1011")], 3.0) == []
    assert core.counters["dropped.promoted"] == 1
    assert {port: (flow.own, flow.offset) for port, flow in flows(core).items()} == {OLD: (False, 8000), NEW: (True, 0)}
    balance(core)


def test_promoted_it_resets_what_cannot_be_continued():
    core = follower()
    core.tell(Unprotected("comp0", 1, lost=[b"\x06" + flows(core)[OLD].key_guest]), 1.0)
    made = dict(sends(core.tell(Promote(3), 2.0)))["netdev"][0]
    packet = dissect(made)
    assert segment(made, packet.l4, packet.end).flags == RST
    assert core.counters["connections_reset"] == 1
    # Its ports are free for a new one, which needs nothing of us.
    feed(core, "lead_in", "lead_out", OLD, "c S 500", "g SA 7000 501", "c A 501 7001")
    assert flows(core)[OLD].own
    balance(core)


def test_demoted_its_guest_follows_and_every_connection_keeps_its_numbers():
    core = promoted()
    (said,) = core.tell(Demote(4), 4.0)
    assert said == Log("warning", "rewriter.demoted", {"fence": 4})
    goes_on_with_its_offset(core, "indev", "outdev")
    feed(core, "indev", "outdev", NEW, "c PA 501 7011 +10", "g PA 7011 511 +10", "c FA 511 7021", "g FA 7021 512")
    # A connection that begins now has the numbers of the other guest.
    for port, text in (("indev", "c S 900"), ("netdev", "g SA 60000 901"), ("indev", "c A 901 30001")):
        core.receive(port, [frame(text, 42000)], 5.0)
    assert flows(core)[42000].offset == 30000
    assert core.receive("lead_in", [frame("c A 501 7001", NEW)], 5.0) == []
    balance(core)


def test_there_and_back_and_there_again():
    core = promoted()
    core.tell(Demote(4), 4.0)
    feed(core, "indev", "outdev", NEW, "c PA 501 7011 +10 ts 8:200", "g PA 7011 511 +10 ts 210:8")
    core.tell(Promote(5), 5.0)
    goes_on_with_its_offset(core, "lead_in", "lead_out")
    feed(core, "lead_in", "lead_out", NEW, "c A 511 7021 ts 9:210", "g PA 7021 511 +10 ts 220:9")
    balance(core)


def test_leading_again_its_timestamps_do_not_fall_behind_those_of_the_other_guest():
    core = promoted()
    core.tell(Demote(4), 4.0)
    # The client echoes 5000 of the other host's clock, which runs ahead.
    feed(core, "indev", "outdev", NEW, "g PA 7011 501 +10 ts 210:8", "c A 501 7021 ts 9:5000")
    core.tell(Promote(5), 5.0)
    assert through(core, "netdev", "g PA 7021 501 +10 ts 220:9", NEW) == {
        "lead_out": [frame("g PA 7021 501 +10 ts 5000:9", NEW)]
    }


def test_a_connection_of_its_own_may_be_unprotected_after_a_change():
    core = promoted()
    core.tell(Demote(4), 4.0)
    core.tell(Unprotected("comp0-s", 1, lost=[b"\x06" + flows(core)[NEW].key_guest]), 4.0)
    assert core.gauges()["flows_unprotected"] == 1
    core.tell(Promote(5), 5.0)
    assert core.counters["connections_reset"] == 1
    assert through(core, "netdev", "g PA 7011 501 +10", NEW).keys() == {"netdev"}
    goes_on_with_its_offset(core, "lead_in", "lead_out")


def test_while_it_leads_checkpoints_and_what_compare_says_are_about_the_other_guest():
    core = promoted()
    keys = [b"\x06" + flow.key_guest for flow in core._table]
    core.tell(Unprotected("comp0-s", 1, lost=keys), 3.0)
    core.tell(Unprotected("frame-s", 1, everything=True), 3.0)
    core.tell(CheckpointDone(1, state_copied=True), 3.0)
    core.tell(SetMode("shadow"), 3.0)
    assert (core.gauges()["flows_unprotected"], core.counters["connections_reset"]) == (0, 0)
    goes_on_with_its_offset(core, "lead_in", "lead_out")
    feed(core, "lead_in", "lead_out", NEW, "c A 501 7011")
    # Nothing of that is left when it follows: the other host's compares say anew what they know.
    core.tell(Demote(4), 4.0)
    assert core.status()["unprotected"] == {}
    assert core.gauges()["flows_unprotected"] == 0


def test_what_was_said_before_a_promotion_is_not_about_connections_that_begin_after_it():
    core = follower()
    core.tell(Unprotected("frame-p", 1, everything=True), 1.9)
    core.tell(Promote(3), 2.0)
    feed(core, "lead_in", "lead_out", NEW, "c S 500", "g SA 7000 501", "c A 501 7001", "g PA 7001 501 +10")
    assert flows(core)[NEW].own


def test_a_follower_in_shadow_mode_waits_for_its_guest_after_a_change_as_well():
    core = promoted()
    core.tell(SetMode("shadow"), 3.0)
    assert not core.status()["paced"]
    core.tell(Demote(4), 4.0)
    assert core.status()["paced"]
    # The client has more of the other guest than this one has sent.
    assert through(core, "indev", "c PA 501 7021 +10", NEW) == {}
    assert core.gauges()["held"] == 1
    assert through(core, "netdev", "g PA 7011 501 +10", NEW)["netdev"] == [frame("c PA 501 7021 +10", NEW)]
    core.receive("indev", [frame("c PA 511 7031 +10", NEW)], 5.0)
    assert sends(core.tell(Promote(5), 6.0)) != []
    assert core.gauges()["held"] == 0
    balance(core)


def test_a_handshake_in_the_middle_of_a_change():
    core = follower()
    core.tell(Promote(3), 2.0)
    feed(core, "lead_in", "lead_out", NEW, "c S 500", "g SA 7000 501")
    core.tell(Demote(4), 3.0)
    # The client has the SYN/ACK of this guest, or that of the other one, which was sent after it.
    feed(core, "indev", "outdev", NEW, "c A 501 7001", "g PA 7001 501 +10")
    core = follower()
    core.tell(Promote(3), 2.0)
    feed(core, "lead_in", "lead_out", NEW, "c S 500", "g SA 7000 501")
    core.tell(Demote(4), 3.0)
    assert through(core, "indev", "c A 501 2001", NEW) == {"netdev": [frame("c A 501 7001", NEW)]}


def test_a_frame_that_was_restarted_says_the_same_again():
    core = promoted()
    assert core.tell(Promote(3), 4.0) == []
    goes_on_with_its_offset(core, "lead_in", "lead_out")
    core.tell(Demote(4), 5.0)
    assert core.tell(Demote(4), 6.0) == []
    goes_on_with_its_offset(core, "indev", "outdev")
    assert core.tell(Promote(3), 7.0) == []
    assert core.status()["fence"] == 4


def test_a_token_of_the_past_does_not_lead_even_before_the_first_promotion():
    core = follower()
    core.tell(Demote(5), 1.0)
    core.tell(Promote(4), 2.0)
    assert not core.status()["promoted"]
    core.tell(Promote(6, side="primary"), 2.0)
    assert core.status()["promoted"]


def test_what_began_after_the_promotion_has_nothing_to_be_revived():
    core = Rewriter(replace(CONFIG, revive=True))
    core.tell(Promote(2), 2.0)
    feed(core, "lead_in", "lead_out", NEW, "c S 500", "g SA 7000 501", "c A 501 7001", "g PA 7001 501 +10")
    assert "netdev" not in dict(sends(core.on_timer(2.0 + REVIVE_AT[-1])))
    assert core.counters["revivals"] == 0


def test_ports_that_are_used_again_have_a_connection_without_offset():
    core = follower()
    core.tell(Promote(3), 2.0)
    feed(core, "lead_in", "lead_out", OLD, "c S 70000", "g SA 40000 70001", "c A 70001 40001", "g PA 40001 70001 +9")
    assert (flows(core)[OLD].own, flows(core)[OLD].offset) == (True, 0)
    # And once more, before the client has answered, and after both have closed.
    feed(core, "lead_in", "lead_out", OLD, "c S 90000", "g SA 50000 90001", "c S 95000", "g SA 55000 95001")
    feed(core, "lead_in", "lead_out", OLD, "c A 95001 55001", "c FA 95001 55001", "g FA 55001 95002", "c A 95002 55002")
    assert core.gauges()["flows_closed"] == 1
    feed(core, "lead_in", "lead_out", OLD, "c S 95000", "g SA 66000 95001", "c A 95001 66001", "g PA 66001 95001 +9")
    assert core.gauges()["flows_established"] == 1
    balance(core)


def test_a_flood_of_syns_pushes_no_connection_out_that_needs_its_offset():
    core = Rewriter(replace(CONFIG, max_flows=64))
    for port, text in (("indev", "c S 100"), ("netdev", "g SA 9000 101"), ("indev", "c A 101 1001")):
        core.receive(port, [frame(text)], 1.0)
    core.tell(Promote(3), 2.0)
    for client in range(10000, 10500):
        # Who has not seen the guest's number cannot acknowledge it.
        feed(core, "lead_in", "lead_out", client, "c S 500", "g SA 7000 501", "c A 501 2000001")
    assert core.gauges()["flows_established"] == 1
    goes_on_with_its_offset(core, "lead_in", "lead_out")


def test_the_guest_is_announced_to_the_compares_of_its_host():
    core = follower()
    core.receive("netdev", [ARP], 1.0)
    said = [
        craft.rarp_announcement(GUEST_MAC),
        craft.arp_request("10.0.0.2", "10.0.0.2", sender_mac=GUEST_MAC, pad=60),
    ]
    assert sends(core.tell(Promote(3), 2.0)) == [("lead_out", said)]
    assert sends(core.on_timer(2.1)) == [("lead_out", said)]
    core.tell(Demote(4), 2.2)
    assert sends(core.on_timer(2.3)) == []
    balance(core)


def test_its_neighbours_are_its_own_business_while_it_leads():
    core = follower()
    theirs = craft.arp_request("10.0.0.9", "10.0.0.2", sender_mac=CLIENT_MAC)
    core.tell(Promote(3), 2.0)
    assert sends(core.receive("lead_in", [theirs], 3.0)) == [("netdev", [theirs])]
    assert [port for port, _ in sends(core.receive("netdev", [ARP], 3.0))] == ["lead_out"]
    core.tell(Demote(4), 4.0)
    core.receive("indev", [theirs], 5.0)
    assert [port for port, _ in sends(core.receive("netdev", [ARP], 5.0))] == ["netdev", "outdev"]
    balance(core)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lead_in": "ipc://a"}, "go together"),
        ({"lead_out": "ipc://a"}, "go together"),
        ({"lead_in": "ipc://a", "lead_out": "ipc://b", "standby": "tap://lan"}, "only one"),
    ],
)
def test_ports_that_do_not_go_together(options, said):
    with pytest.raises(ConfigError, match=said):
        RewriterConfig(**options)
