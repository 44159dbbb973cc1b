"""After a failover both ends of a connection are told that the path was at fault (RFC 6069)."""

from dataclasses import replace

import pytest

from checksums import l4_checksum_ok
from colo_proto.core import Send
from colo_proto.messages import Demote, Promote
from colo_proto.net.packet import dissect, dissect_quoted
from colo_proto.net.tcp import segment
from colo_rewriter.backoff import REVIVE_AT
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter
from packets import parse as words

FORMS = ("v4", "v4-vlan", "v4-qinq", "v4-gso", "v6", "v6-gso")


def parse(text):
    side, _, rest = text.partition(" ")
    return words(rest.split(), side)


def opened(form, last, **config):
    """A connection whose secondary's ISN is 9000 and the primary's 1000; `last` is the guest's last segment."""
    core = Rewriter(RewriterConfig(**config))
    script = (
        ("indev", "c S 100 ts 7000:0"),
        ("netdev", "g SA 9000 101 ts 60:7000"),
        ("indev", "c A 101 1001 ts 7001:50"),
        ("netdev", last),
    )
    for port, text in script:
        core.receive(port, [parse(text).frame(form)], 1.0)
    return core


def revived(core):
    """What the first revival sends: to the guest, to the client."""
    core.tell(Promote(1), 2.0)
    assert core.deadline() == 2.0 + REVIVE_AT[0]
    out = core.on_timer(2.0 + REVIVE_AT[0])
    found = {one.port: [bytes(frame) for frame in one.frames] for one in out if isinstance(one, Send)}
    return found.get("netdev", []), found.get("outdev", [])


def quoted(frame):
    """The TCP header that an ICMP error quotes: the two ends and the sequence number."""
    packet = dissect(frame)
    inner = dissect_quoted(frame, packet.l4 + 8, packet.end, packet.ethertype, packet.tags)
    at = inner.l4
    ports = tuple(int.from_bytes(frame[at + n : at + n + 2], "big") for n in (0, 2))
    return inner.src, inner.dst, ports, int.from_bytes(frame[at + 4 : at + 8], "big")


@pytest.mark.parametrize("form", FORMS)
def test_the_three_frames(form):
    last = "g PA 9501 301 +100 ts 90:7050"
    to_guest, to_client = revived(opened(form, last))
    theirs = dissect(parse(last).frame(form))
    (unreachable,) = to_guest
    assert quoted(unreachable) == (theirs.src, theirs.dst, (80, 5000), 9501), "in the guest's own numbers"
    assert unreachable[10:22] == parse("c A 1 1").frame(form)[10:22]
    assert dissect(unreachable).tags == theirs.tags
    again, behind = to_client
    packet = dissect(again)
    seg = segment(again, packet.l4, packet.end)
    assert (seg.seq, seg.ack, seg.flags, seg.length) == (1601, 301, 16, 0), "in the primary's"
    assert (packet.src, packet.dst, packet.tags) == (theirs.src, theirs.dst, theirs.tags)
    assert again[seg.data - 8 : seg.data] == (80).to_bytes(4, "big") + (7050).to_bytes(4, "big")
    assert quoted(behind) == (theirs.dst, theirs.src, (5000, 80), 301)
    for frame in (unreachable, again, behind):
        assert l4_checksum_ok(frame)


def test_icmp_of_either_family_says_what_takes_the_backoff_back():
    for form, kind in (("v4", (3, 1)), ("v6", (1, 0))):
        (frame,), _ = revived(opened(form, "g A 9001 101"))
        l4 = dissect(frame).l4
        assert tuple(frame[l4 : l4 + 2]) == kind


def test_it_is_done_three_times_and_no_more():
    core = opened("v4", "g A 9001 101")
    core.tell(Promote(1), 2.0)
    times = []
    while (due := core.deadline()) is not None and due < 10:
        times.append(round(due - 2.0, 3))
        assert core.on_timer(due)
    assert times == list(REVIVE_AT)
    assert core.counters["revivals"] == 9


def test_closed_and_half_open_connections_rest():
    for last in ("g R 9001", "g RA 9001 101"):
        assert revived(opened("v4", last)) == ([], [])
    core = Rewriter(RewriterConfig())
    core.receive("indev", [parse("c S 100").frame()], 1.0)
    core.receive("netdev", [parse("g SA 9000 101").frame()], 1.0)
    assert revived(core) == ([], [])


def test_a_fin_counts():
    _, (again, _) = revived(opened("v4", "g FA 9001 101 +10"))
    assert int.from_bytes(again[48:52], "big") == 1000 + 1 + 10 + 1


def test_the_most_recently_used_come_first(monkeypatch):
    monkeypatch.setattr("colo_rewriter.rewriter.MAX_REVIVED", 1)
    core = opened("v4", "g A 9001 101")
    for port, text in (("indev", "c S 100"), ("netdev", "g SA 7000 101"), ("indev", "c A 101 2001")):
        core.receive(port, [replace(parse(text), ports=(41000, 80)).frame()], 2.0)
    (frame,), _ = revived(core)
    assert quoted(frame)[2] == (80, 41000)


def test_it_can_be_switched_off_and_ends_with_the_promotion():
    core = opened("v4", "g A 9001 101", revive=False)
    core.tell(Promote(1), 2.0)
    assert core.deadline() > 60
    core = opened("v4", "g A 9001 101")
    core.tell(Promote(1), 2.0)
    core.tell(Demote(2), 2.01)
    assert core.deadline() > 60
