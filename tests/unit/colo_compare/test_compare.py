"""The dispatcher: shapes of frames, rules, modes, bounds over all flows, evidence."""

import gc
import tracemalloc

import pytest

from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_proto.core import Save
from colo_proto.messages import CheckpointDone, Mode, Reason, SetMode, SetRules, Welcome
from colo_proto.net import craft
from colo_proto.net.tcp import ACK, RST, SYN
from colo_proto.pcapng import encode
from playbook import CLIENT, GUEST, PA, Frame, P, Play, S, open_connection, syn, udp

D = b"ABCDEFGHIJ"


def ruled(text, **config):
    play = Play(CompareConfig(**config))
    return play.tell(SetRules(text))


# -- rules -------------------------------------------------------------------------------------------------


def test_passed_flows_leave_at_once_and_others_do_not():
    play = ruled("pass tcp guest-port 3389\npass udp")
    rdp, web = P(1, D, sport=3389), P(1, D)
    play >> rdp >> S(1, D[::-1], sport=3389) >> web >> udp("P", b"x") >> udp("S", b"y")
    assert play.released == [rdp, udp("P", b"x")]
    play.at(10)
    assert [w.flow for w in play.wanted if w.reason == Reason.TIMEOUT] == ["tcp 10.0.0.2:80 > 10.0.0.9:5000"]
    assert play.core.counters["released.rule"] == 2
    assert play.core.counters["secondary_dropped.rule"] == 2
    assert play.core.counters["flows_by_rule.pass"] == 2


def test_watched_flows_leave_at_once_and_are_reported_once():
    play = ruled("shadow tcp guest-port 80")
    frames = [P(1000, D), P(1010, D), P(1020, D)]
    play >> S(1000, D) >> frames[0] >> frames[1] >> S(1010, D[::-1]) >> frames[2]
    assert play.released == frames
    assert not play.wanted, "nobody has to wait, so nobody has to be brought together"
    (found,) = [log.fields for log in play.logs if log.event == "miscompare.found"]
    assert (found["reason"], found["rule"], found["offset"]) == ("payload", "shadow tcp guest-port 80", 10)
    assert play.core.status()["last"] == [found]
    assert play.held == 0


def test_watched_datagrams():
    play = ruled("shadow udp")
    play >> udp("P", b"x") >> udp("S", b"x") >> udp("P", b"one") >> udp("S", b"two")
    assert len(play.sent) == 2
    play.at(1)
    assert play.core.counters["miscompares"] == 1
    assert not play.wanted


@pytest.mark.parametrize("frame", [udp("P", b"x"), P(1000, D)])
def test_a_silent_secondary_is_reported_in_shadow(frame):
    """What was sent already is no longer held, but a difference that nobody hears of is no diff tool."""
    play = Play()
    play.tell(SetMode(Mode.SHADOW))
    play >> frame
    play.at(10)
    assert play.released == [frame]
    assert play.core.counters["miscompares"] == 1
    assert not play.wanted
    assert play.core.gauges()["held_bytes"] == 0


def test_a_datagram_mask():
    play = ruled("compare udp guest-port 123 mask 16:8 mask 32:16")
    ntp = bytes(range(48))
    p = udp("P", ntp, sport=123)
    play >> p >> udp("S", ntp[:16] + bytes(8) + ntp[24:32] + b"\1" * 16, sport=123)
    assert play.released == [p]
    play >> udp("P", ntp, sport=123) >> udp("S", b"\xff" + ntp[1:], sport=123)
    play.at(1)
    assert play.wanted[0].detail["byte"] == 0


def http(date, body=b"hello", status=b"200 OK"):
    return b"HTTP/1.1 " + status + b"\r\nDate: " + date + b"\r\nServer: s\r\n\r\n" + body


RULE = r"compare tcp guest-port 80 mask /Date: [^\r\n]{5}/64"


@pytest.fixture
def web():
    play = Play()
    play.tell(SetRules(RULE))
    return open_connection(play)


@pytest.mark.parametrize("first", ["P", "S"])
def test_a_date_header_may_differ(web, first):
    p, s = P(1000, http(b"10:00")), S(1000, http(b"10:01"))
    web >> (p if first == "P" else s) >> (s if first == "P" else p)
    assert web.released == [p]
    assert web.core.counters["bytes_masked"] == 1
    after = P(1000 + len(http(b"10:00")), D)
    web >> after >> S(1000 + len(http(b"10:00")), D)
    assert web.released == [p, after]


def test_what_the_mask_does_not_cover_is_found(web):
    web >> P(1000, http(b"10:00", b"x" * 200)) >> S(1000, http(b"10:01", b"x" * 9 + b"y" + b"x" * 190))
    (wanted,) = web.wanted
    assert wanted.offset == http(b"10:00").index(b"hello") + 9
    assert not web.sent


@pytest.mark.parametrize("cut", range(10, 30))
def test_a_masked_stretch_may_be_cut_anywhere(web, cut):
    """The expression cannot match before all of it is here, and that is no difference yet."""
    mine, its = http(b"10:00"), http(b"11:11")
    ps = [P(1000, mine[:cut]), P(1000 + cut, mine[cut:])]
    web >> ps[0] >> S(1000, its[:20]) >> S(1020, its[20:]) >> ps[1]
    assert web.released == ps
    assert not web.wanted
    web >> P(1000 + len(mine), b"z")
    web >> S(1000 + len(mine), b"z")
    assert len(web.sent) == 3


def test_a_difference_near_the_end_of_what_has_come_is_asked_for_in_time(web):
    web >> P(1000, http(b"10:00", b"A")) >> S(1000, http(b"10:00", b"B"))
    assert not web.wanted, "an expression may still cover it"
    web.at(5)
    (wanted,) = [w for w in web.wanted if w.reason != Reason.REPEATED]
    assert (wanted.reason, wanted.offset) == (Reason.TIMEOUT, len(http(b"10:00", b"")))
    context = wanted.detail["context"]
    assert bytes.fromhex(wanted.detail["primary"])[context:] == b"A"
    assert bytes.fromhex(wanted.detail["secondary"])[context:] == b"B"


def test_a_retransmission_is_no_less_strict_behind_a_mask(web):
    """Bytes before the last masked stretch are not masked."""
    web >> P(1000, http(b"10:00")) >> S(1000, http(b"10:01"))
    web >> P(1000, http(b"10:00", status=b"500 NO"))
    assert len(web.sent) == 1
    web.at(5)
    assert web.wanted[0].offset == 9


def test_a_masked_stretch_ends_with_its_connection(web):
    """The next one on the same ports may have numbers that are nearly the same."""
    web >> P(1000, http(b"10:00")) >> S(1000, http(b"10:01"))
    where = http(b"10:00").index(b"10:00") + 4
    web >> syn("P", 1001, ack=500) >> syn("S", 8888, ack=500)
    assert len(web.sent) == 2
    web >> P(1002, b"x" * 150) >> S(1002, b"x" * (where - 2) + b"y" + b"x" * (151 - where))
    (wanted,) = web.wanted
    assert wanted.offset == where - 2
    assert len(web.sent) == 2


def test_a_mask_by_place_counts_from_the_syn():
    play = open_connection(Play())
    play.tell(SetRules("compare tcp mask 2:3"))
    p = P(1000, b"ab123fg")
    play >> p >> S(1000, b"abXYZfg")
    assert play.released == [p]
    play >> P(1007, b"ab123fg") >> S(1007, b"abXYZfg")
    assert play.wanted[0].offset == 9


def test_places_are_unknown_to_who_came_later():
    play = Play()
    play.tell(SetRules("compare tcp mask 0:3"))
    play >> P(5000, b"abc") >> S(5000, b"abX")
    assert play.core.counters["adopted"] == 1
    assert play.wanted[0].reason == Reason.PAYLOAD


def test_rules_change_under_open_flows():
    play = open_connection(Play())
    held = P(1000, D)
    play >> held
    play.tell(SetRules("pass tcp guest-port 80"))
    assert play.released == [held], "what the new rule exempts may go"
    free = P(1010, b"free")
    play >> free >> S(1010, b"none")
    assert play.released == [held, free]
    play.tell(SetRules(""))
    back = P(1014, b"back")
    play >> back
    assert len(play.sent) == 2, "compared again, from the middle"
    play >> S(1014, b"back")
    assert play.released[-1] == back


def test_a_mask_may_come_later(web):
    web.tell(SetRules(""))
    web.tell(SetRules(RULE))
    p = P(1000, http(b"10:00"))
    web >> p >> S(1000, http(b"10:01"))
    assert web.released == [p]


def test_wrong_rules_leave_the_old_ones():
    play = ruled("pass udp")
    play.tell(SetRules("pass upd"))
    assert [log.event for log in play.logs][-1] == "rules.refused"
    play >> udp("P", b"x")
    assert len(play.sent) == 1
    assert play.core.status()["rules"] == ["pass udp"]


def test_the_frames_rules_come_before_the_files():
    play = Play(CompareConfig(rules="own.rules"))
    play.take(play.core.load_rules("pass udp", "own.rules"))
    assert play.core.status()["rules_from"] == "file"
    play >> udp("P", b"x")
    assert len(play.sent) == 1
    play.tell(SetRules("pass tcp"))
    play.take(play.core.load_rules("pass any", "own.rules"))
    assert play.core.status()["rules"] == ["pass tcp"]
    assert play.core.status()["rules_from"] == "frame"
    assert play.logs[-1].event == "rules.overruled"


def test_a_restarted_frame_is_told_its_rules():
    play = Play()
    play.tell(Welcome(0, Mode.ENFORCE, incarnation=1))
    play.tell(SetRules("pass tcp"))
    play.tell(Welcome(0, Mode.ENFORCE, incarnation=1))
    assert not play.messages
    play.tell(Welcome(0, Mode.ENFORCE, incarnation=2))
    assert play.messages == [SetRules("pass tcp")]


# -- shapes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [(), (5,), (7, 42)])
@pytest.mark.parametrize("ends", [(GUEST, CLIENT), ("fd00::2", "fd00::9")])
def test_every_shape_is_compared(tags, ends):
    play = Play()

    def make(side, payload):
        return Frame(side, craft.udp(*ends, 53, 5000, payload, tags=tags))

    equal = make("P", b"same")
    play >> equal >> make("S", b"same") >> make("P", b"mine") >> make("S", b"its!")
    assert play.released == [equal]
    play.at(1)
    assert play.wanted[0].reason == Reason.DATAGRAM
    assert play.wanted[0].flow.count("vlan") == len(tags)


@pytest.mark.parametrize("tags", [(), (5,), (7, 42)])
def test_tcp_in_tags_has_its_own_stream(tags):
    play = Play()
    frames = [P(5000, D, tags=tags), P(5000, D, tags=(99,))]
    play >> frames[0] >> S(5000, D, tags=tags) >> frames[1]
    assert play.released == [frames[0]]


@pytest.mark.parametrize("proto", [47, 50, 94, 132])
def test_tunnels_are_opaque(proto):
    play = Play()

    def make(side, body):
        return Frame(side, craft.ip(GUEST, CLIENT, proto, b"\0\1\0\2" + body))

    p = make("P", b"inner")
    play >> p >> make("S", b"inner") >> make("P", b"inner") >> make("S", b"Inner")
    assert play.released == [p]
    play.at(1)
    assert play.wanted[0].reason == Reason.DATAGRAM


def error(side, about, **more):
    return Frame(side, craft.icmp_error(GUEST, CLIENT, about, **more))


def test_icmp_errors_belong_to_the_flow_they_are_about():
    play = Play()
    first, second = udp("P", b"a", sport=6000).data, udp("P", b"b", sport=7000).data
    mine = [error("P", first), error("P", second)]
    play >> mine[0] >> mine[1]
    assert play.core.gauges()["flows"] == 2
    play >> error("S", second)
    assert play.released == [mine[1]]
    play >> error("S", first, code=1)
    play.at(1)
    assert play.wanted[0].flow == "icmp 10.0.0.2 > 10.0.0.9 about udp 10.0.0.9:5000 > 10.0.0.2:6000"


def test_an_icmp_error_may_quote_what_the_rewriter_changed():
    """The secondary guest saw another ACK, and other timestamps, than the primary's."""
    play = Play()

    def quoted(ack, stamp, seq=77):
        return craft.tcp(CLIENT, GUEST, 5000, 80, seq, ack, PA, b"data", options=craft.timestamps(1, stamp))

    p = error("P", quoted(1000, 5))
    play >> p >> error("S", quoted(888_000, 99))
    assert play.released == [p]
    other = error("P", quoted(1, 1))
    play >> other >> error("S", quoted(1, 1, seq=78))
    play.at(10)
    assert other.data not in play.sent, "each is about another packet, so each is without its equal"
    assert play.core.counters["dropped.unmatched"] == play.core.counters["secondary_dropped.unmatched"] == 1


def test_neighbours_and_groups_pass_but_ping6_does_not():
    play = Play()
    igmp = Frame("P", craft.ip(GUEST, "224.0.0.22", 2, bytes(16)))
    ping = Frame("P", craft.icmp_echo("fd00::2", "fd00::9", ident=1, seq=1, payload=b"", reply=True))
    play >> igmp >> ping
    assert play.released == [igmp]
    assert play.core.counters["released.pass"] == 1


def uso(side, payloads):
    """UDP segmentation offload: several datagrams of one size in one frame."""
    frame = bytearray(craft.udp(GUEST, CLIENT, 53, 5000, b"".join(payloads)))
    frame[:10] = b"\1\5" + (42).to_bytes(2, "little") + len(payloads[0]).to_bytes(2, "little") + b"\x22\0\6\0"
    return Frame(side, bytes(frame))


def test_segmented_datagrams_are_compared_one_by_one():
    play = Play()
    parts = [bytes([n]) * 100 for n in range(5)]
    play >> uso("P", parts) >> uso("S", parts[:2]) >> udp("S", parts[2]) >> uso("S", parts[3:])
    assert [data[52:] for data in play.sent] == parts
    assert play.held == 0
    assert not play.wanted


def test_a_frame_that_contradicts_itself_passes_and_is_counted():
    play = Play()
    for side in "PS":
        for data in (bytes(10), bytes(24), craft.udp(GUEST, CLIENT, 1, 2, b"x" * 50)[:60]):
            play >> Frame(side, data)
    assert play.core.counters["released.malformed"] == 2
    assert play.core.counters["secondary_dropped.malformed"] == 2
    assert len(play.sent) == 3


# -- modes -------------------------------------------------------------------------------------------------


def stream(count=30):
    return [(P(1000 + 10 * n, D), S(1000 + 10 * n, D)) for n in range(count)]


@pytest.mark.parametrize("first", Mode.ALL)
@pytest.mark.parametrize("second", Mode.ALL)
def test_every_change_of_mode_keeps_every_frame(first, second):
    """Whatever is held or in flight when the mode changes: each primary frame leaves exactly once."""
    play = open_connection(Play())
    play.tell(SetMode(first))
    pairs = stream()
    for at, (p, s) in enumerate(pairs):
        play >> p >> udp("P", bytes([at]))
        if at % 10 == 5:
            play.tell(SetMode(second if at == 15 else first))
        play >> s >> udp("S", bytes([at]))
    play.tell(SetMode(Mode.BYPASS))
    sent = [data for data in play.sent if data[33] == 6]
    assert sent == [p.data for p, _ in pairs]
    assert len(play.sent) == 60
    assert play.core.gauges()["held_bytes"] == 0
    assert play.core.gauges()["secondary_bytes"] == 0


def test_fragments_are_not_lost_by_a_change_of_mode():
    play = Play()
    pieces = craft.fragments(udp("P", bytes(4000)).data, 1500)
    for piece in pieces[:-1]:
        play >> Frame("P", piece)
    play.tell(SetMode(Mode.BYPASS))
    play >> Frame("P", pieces[-1])
    assert sorted(play.sent) == sorted(pieces)


def test_after_a_resync_old_connections_are_unprotected_and_new_ones_are_not():
    """Another secondary came, and nothing was copied to it."""
    play = open_connection(Play())
    play.tell(SetMode(Mode.BYPASS))
    sent = len(play.sent)
    play >> P(1000, D)
    assert len(play.sent) == sent + 1
    play.tell(SetMode(Mode.ENFORCE, resync=True))
    play >> P(1010, D)
    assert len(play.sent) == sent + 2, "the new secondary does not have this connection, and nobody waits for it"
    assert play.core.gauges()["flows_unprotected"] == 1
    assert play.core.counters["strangers"] == 1
    play >> S(1010, flags=RST) >> P(5000, flags=SYN | ACK)
    assert play.core.gauges()["flows_unprotected"] == 0
    assert len(play.sent) == sent + 2, "a new connection is compared"
    play >> S(77000, flags=SYN | ACK)
    assert len(play.sent) == sent + 3
    play >> P(5001, D)
    assert len(play.sent) == sent + 3
    play >> S(5001, D)
    assert len(play.sent) == sent + 4
    assert not play.wanted


def test_a_resync_without_bypass_lets_go_what_was_held_for_the_lost_secondary():
    play = open_connection(Play()) >> P(1000, D) >> udp("P", b"x")
    held = len(play.sent)
    play.tell(SetMode(Mode.ENFORCE, resync=True))
    assert len(play.sent) == held + 2
    assert play.core.gauges()["flows_unprotected"] == 2
    assert play.core.gauges()["held"] == 0


def test_a_checkpoint_that_copied_state_makes_strangers_known():
    play = open_connection(Play())
    play.tell(SetMode(Mode.BYPASS))
    play.tell(SetMode(Mode.ENFORCE, resync=True))
    play.tell(CheckpointDone(1, state_copied=True))
    sent = len(play.sent)
    play >> P(1000, D)
    assert len(play.sent) == sent
    assert play.core.gauges()["flows_unprotected"] == 0


# -- bounds ------------------------------------------------------------------------------------------------


def test_the_bound_on_held_bytes_holds_over_all_flows():
    play = Play(CompareConfig(max_held_mib=1))
    for port in range(30):
        play >> udp("P", bytes(60000), dport=1000 + port)
    gauges = play.core.gauges()
    assert gauges["held_bytes"] <= (1 << 20) + 60052
    assert play.core.counters["dropped.queue_full"] == 30 - gauges["held"]
    assert {w.reason for w in play.wanted} == {Reason.QUEUE_FULL}
    assert len(play.wanted) == play.core.counters["dropped.queue_full"], "one request for each flow that lost"


def test_a_report_of_shadow_mode_lets_go_of_each_datagram_once():
    """The first report flushes the flow, with the others that have waited as long."""
    play = ruled("shadow udp")
    for n in range(3):
        play >> udp("P", bytes([n]))
    play.at(10)
    assert play.core.counters["miscompares"] == 1
    assert play.core.gauges()["held_bytes"] == 0


def test_the_bound_on_held_bytes_counts_what_shadow_mode_keeps():
    play = Play(CompareConfig(max_held_mib=1))
    play.tell(SetMode(Mode.SHADOW))
    for port in range(30):
        play >> udp("P", bytes(60000), dport=1000 + port)
    assert len(play.sent) == 30
    assert play.core.gauges()["held_bytes"] <= (1 << 20) + 60052


def secondary_flood(play, flows, segments, size=1000):
    for port in range(flows):
        play >> syn("P", 999, dport=port) >> syn("S", 999, dport=port)
    for n in range(segments):
        for port in range(flows):
            play >> S(1000 + size * n, bytes(size), dport=port)


def test_the_bound_on_the_secondary_refuses_what_will_come_again():
    play = Play(CompareConfig(max_secondary_mib=1))
    secondary_flood(play, 10, 200)
    gauges = play.core.gauges()
    assert gauges["secondary_bytes"] <= (1 << 20) + 2000
    assert play.core.counters["secondary_dropped.queue_full"] > 0
    # The primary catches up, and the guest sends again what was refused.
    for n in range(200):
        for port in range(10):
            play >> P(1000 + 1000 * n, bytes(1000), dport=port) >> S(1000 + 1000 * n, bytes(1000), dport=port)
        play.now += 0.001
    play.at(1.5)
    assert len(play.sent) == 10 + 2000 or play.held, "what is not out is held"
    for n in range(200):
        for port in range(10):
            play >> S(1000 + 1000 * n, bytes(1000), dport=port)
    assert len(play.sent) == 10 + 2000
    assert not play.wanted


def test_history_gives_way_first():
    """Bytes found equal are kept for retransmissions only as long as there is room."""
    play = Play(CompareConfig(max_secondary_mib=1))
    for port in range(10):
        play >> syn("P", 999, dport=port) >> syn("S", 999, dport=port)
    for n in range(300):
        for port in range(10):
            play >> P(1000 + 1000 * n, bytes(1000), dport=port) >> S(1000 + 1000 * n, bytes(1000), dport=port)
    assert len(play.sent) == 10 + 3000
    gauges = play.core.gauges()
    assert 1 << 17 < gauges["secondary_bytes"] <= 1 << 18, "a quarter of the bound is history's"
    assert play.core.counters["history_cut"] == 0
    # The secondary is ahead, as far as the bound allows, which is as far as without history.
    for n in range(300, 378):
        for port in range(10):
            play >> S(1000 + 1000 * n, bytes(1000), dport=port)
    assert play.core.counters["history_cut"] == 1
    assert play.core.counters["secondary_dropped.queue_full"] == 0
    assert play.core.gauges()["secondary_bytes"] == 780 * (len(S(1, bytes(1000)).data) + 256)
    # A retransmission of what is forgotten goes unverified, and is counted.
    again = P(1000 + 1000 * 299, bytes(1000), dport=3)
    play >> again
    assert play.sent[-1] == again.data
    assert play.core.counters["bytes_unverified"] == 1000


@pytest.mark.slow
def test_with_many_connections_the_last_of_each_is_still_compared():
    """History is what was found equal last, whosever it is."""
    play = Play()
    for port in range(500):
        play >> syn("P", 999, dport=port) >> syn("S", 999, dport=port)
    for n in range(20):
        for port in range(500):
            play >> S(1000 + 1000 * n, bytes(1000), dport=port) >> P(1000 + 1000 * n, bytes(1000), dport=port)
    assert play.core.gauges()["secondary_bytes"] <= 1 << 20
    play >> P(1000 + 1000 * 19, bytes(1000), dport=7)
    assert play.core.counters["bytes_unverified"] == 0
    assert not play.wanted
    play >> P(1000 + 1000 * 19, b"?" * 1000, dport=7)
    assert len(play.wanted) == 1
    # Between scans no connection keeps much of what has lost its bytes, and after one nothing.
    assert max(len(flow.ref.segments) for flow in play.core.flows.values()) <= 10
    play.core.ledger.history.clear()
    play.at(play.now + 5)
    assert {len(flow.ref.segments) for flow in play.core.flows.values() if not flow.wanted} == {0}


def test_a_secondary_far_ahead_is_refused():
    play = open_connection(Play(CompareConfig(max_stream_mib=1)))
    play >> S(1000 + (1 << 20), b"far") >> S(1000, D)
    assert play.core.counters["secondary_dropped.queue_full"] == 1
    p = P(1000, D)
    play >> p
    assert play.released == [p]


@pytest.mark.slow
def test_memory_goes_with_the_flows():
    """A million SYNs, in small: the table is bounded, and what it held is given back."""
    play = Play(CompareConfig(max_flows=64))
    for port in range(1000):
        play >> syn("P", 999, dport=port) >> S(4000, bytes(100), dport=port)
        play.now += 0.001
    gauges = play.core.gauges()
    assert gauges["flows"] <= 64
    assert gauges["held"] <= 64
    ledger = play.core.ledger
    assert ledger.secondary_bytes <= 64 * 500
    for table in (ledger.holding, ledger.lingering, ledger.suspects, ledger.asked, ledger.unprotected):
        assert len(table) <= 64
    play.at(8000)
    assert play.core.gauges()["flows"] == 0
    assert (ledger.held, ledger.held_bytes, ledger.secondary_bytes, ledger.held_secondary) == (0, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_flow_takes_no_more_memory_than_the_readme_says(kind):
    """2 KiB beside the frames that are kept; the table is the only thing that grows with SYNs."""
    core = Compare(CompareConfig(max_flows=512))

    def both(port):
        frame = (syn("P", 999, dport=port) if kind == "tcp" else udp("P", b"x", dport=port)).data
        core.receive("secondary_in", [bytes(bytearray(frame))], 100.0)
        core.receive("primary_in", [frame], 100.0)

    both(1)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for port in range(2, 2000):
            both(port)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(core.flows) > 400
    assert grown < 512 * 2048


# -- evidence ----------------------------------------------------------------------------------------------


def saves(core, frames, now=100.0):
    found = []
    for frame in frames:
        port = "primary_in" if frame.side == "P" else "secondary_in"
        found += [one for one in core.receive(port, [frame.data], now) if isinstance(one, Save)]
        now += 0.001
    return found


def test_evidence_shows_both_sides_and_the_verdict():
    core = Compare(CompareConfig(evidence_dir="ev", evidence_files=2))
    (save,) = saves(core, [P(5000, D), S(5000, D), P(5010, D), S(5010, b"ABCDEFGHIX")])
    assert save.path == "ev/comp0-0000.pcapng"
    capture = save.capture
    assert capture.interfaces == ("primary", "secondary")
    mine, its = ([one for one in capture.frames if one.interface == side] for side in (0, 1))
    assert [one.frame for one in mine] == [P(5010, D).data]
    assert "reason payload" in mine[0].comment
    assert "offset 19" in mine[0].comment
    assert S(5010, b"ABCDEFGHIX").data in [one.frame for one in its]
    (last,) = core.status()["last"]
    assert last["evidence"] == save.path
    encode(capture, 1e9)


def test_evidence_is_bounded_in_number_size_and_pace():
    core = Compare(CompareConfig(evidence_dir="ev", evidence_files=2))
    paths, now = [], 100.0
    for port in range(9):
        big = bytes(60000)
        first, last = [P(5000 + n * 60000, big, dport=port) for n in range(20)], S(5000, b"\1" + big[1:], dport=port)
        found = saves(core, [*first, last], now)
        for save in found:
            paths.append(save.path)
            assert len(encode(save.capture)) < 1 << 20
            assert {one.interface for one in save.capture.frames} == {0, 1}
        now += 0.5
    assert set(paths) == {"ev/comp0-0000.pcapng", "ev/comp0-0001.pcapng"}
    assert 4 <= len(paths) <= 5
    assert core.counters["evidence_skipped"] + core.counters["evidence_files"] == 9


def test_without_a_directory_there_is_no_evidence():
    assert not saves(Compare(CompareConfig()), [P(5000, D), S(5000, D[::-1])])


# -- explained ---------------------------------------------------------------------------------------------


def test_a_difference_is_explained_in_one_event():
    play = open_connection(Play())
    mine, its = bytearray(range(64)), bytearray(range(64))
    its[40] = 99
    play >> P(1000, bytes(mine))
    play.now += 0.25
    play >> P(1064, b"more") >> S(1000, bytes(its))
    (event,) = [log for log in play.logs if log.level == "warning"]
    fields = event.fields
    assert event.event == "miscompare.found"
    assert (fields["reason"], fields["flow"], fields["offset"]) == ("payload", "tcp 10.0.0.2:80 > 10.0.0.9:5000", 40)
    assert bytes.fromhex(fields["primary"]) == bytes(mine[24:56])
    assert bytes.fromhex(fields["secondary"]) == bytes(its[24:56])
    assert (fields["context"], fields["secondary_context"]) == (16, 16)
    assert (fields["age_ms"], fields["held"], fields["secondary_pending"]) == (250, 2, 1)
    assert play.wanted[0].detail["primary"] == fields["primary"]
    assert play.core.status()["last"] == [fields]


def test_an_expired_flow_answers_a_late_checkpoint():
    play = Play()
    play >> udp("P", b"x")
    play.at(4)
    assert play.wanted
    play.tell(CheckpointDone(1, state_copied=True))
    assert play.held == 0
    assert len(play.sent) == 1


# -- a checkpoint that is put off --------------------------------------------------------------------


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
