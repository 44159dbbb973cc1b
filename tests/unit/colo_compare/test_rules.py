"""Rules: which flows they exempt, and what masks let differ."""

import pytest

from colo_compare.config import CompareConfig
from colo_proto.messages import Mode, Reason, SetMode, SetRules, Welcome
from playbook import P, Play, S, open_connection, syn, udp

D = b"ABCDEFGHIJ"


def ruled(text, **config):
    play = Play(CompareConfig(**config))
    return play.tell(SetRules(text))


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
    assert SetRules("pass tcp") not in play.messages
    play.tell(Welcome(0, Mode.ENFORCE, incarnation=2))
    assert play.messages.count(SetRules("pass tcp")) == 1
