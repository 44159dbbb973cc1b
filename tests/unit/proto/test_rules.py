"""Rules and masks: what a line means, and what is refused with the line's number."""

import time

import pytest

from colo_proto.errors import ConfigError
from colo_proto.net.flow import error_key
from colo_proto.net.packet import dissect, error_quote
from colo_proto.rules import DEFAULT, MAX_TEXT, parse_rules
from craft import icmp_error, tcp, udp

GUEST, CLIENT = "10.0.0.2", "10.0.0.9"


def key(frame):
    return dissect(frame).key


WEB = key(tcp(GUEST, CLIENT, 80, 5000, 1, 1, 16))
WEB6 = key(tcp("fd00::2", "fd00::9", 80, 5000, 1, 1, 16))
DNS = key(udp(GUEST, CLIENT, 53, 6000, b""))
TAGGED = key(tcp(GUEST, CLIENT, 80, 5000, 1, 1, 16, tags=(7, 42)))


@pytest.mark.parametrize(
    ("line", "named", "others"),
    [
        ("pass tcp", [WEB, WEB6, TAGGED], [DNS]),
        ("pass any", [WEB, WEB6, DNS], []),
        ("pass 17", [DNS], [WEB]),
        ("pass tcp guest-port 80", [WEB, WEB6], [DNS]),
        ("pass tcp client-port 80", [], [WEB]),
        ("pass tcp port 5000", [WEB], []),
        ("pass tcp port 79-81", [WEB], []),
        ("pass tcp port 81-65535", [WEB], []),
        ("pass tcp guest-port 81-65535", [], [WEB]),
        ("pass any guest 10.0.0.2", [WEB, DNS], [WEB6]),
        ("pass any client 10.0.0.0/8", [WEB, DNS], [WEB6]),
        ("pass any client 10.0.0.8/31 guest-port 53", [DNS], [WEB]),
        ("pass any guest fd00::/16", [WEB6], [WEB]),
        ("pass any vlan 42", [TAGGED], [WEB]),
    ],
)
def test_whom_a_line_names(line, named, others):
    rules = parse_rules(line)
    assert [rules.find(one).action for one in named] == ["pass"] * len(named)
    assert [rules.find(one) for one in others] == [DEFAULT] * len(others)


def test_the_first_match_wins_and_comments_are_no_rules():
    rules = parse_rules("# web\n\ncompare tcp guest-port 80 # first\npass any\n")
    assert rules.find(WEB).action == "compare"
    assert rules.find(DNS).action == "pass"
    assert [rule.text for rule in rules.rules] == ["compare tcp guest-port 80", "pass any"]


def test_an_icmp_error_is_under_the_rule_of_the_flow_it_is_about():
    packet = dissect(icmp_error(GUEST, CLIENT, udp(CLIENT, GUEST, 6000, 53, b"question")))
    quoted = error_quote(packet.frame, packet.l4, packet.end, packet.proto, packet.tags)
    about = error_key(packet.key, quoted.key)
    assert parse_rules("pass udp guest-port 53").find(about).action == "pass"
    assert parse_rules("pass icmp").find(about) is DEFAULT
    assert parse_rules("pass icmp").find(packet.key).action == "pass"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("drop tcp", "line 1: 'drop': one of compare, pass, shadow"),
        ("pass", "a protocol is expected"),
        ("\npass tpc", "line 2: 'tpc': a protocol is expected"),
        ("pass 256", "a protocol is expected"),
        ("pass tcp guest", "guest: a value is expected"),
        ("pass tcp gust 10.0.0.1", "unknown word 'gust'"),
        ("pass tcp guest 10.0.0.1 guest 10.0.0.2", "guest is given twice"),
        ("pass tcp guest 10.0.0.256", "10.0.0.256"),
        ("pass tcp port http", "'http': a port"),
        ("pass tcp\npass icmp guest-port 80", "line 2: guest-port: icmp has no ports"),
        ("pass icmpv6 client-port 80", "client-port: icmpv6 has no ports"),
        ("shadow 47 port 1-2", "port: 47 has no ports"),
        ("pass tcp guest 10.0.0.2 client fd00::9", "guest and client: one is IPv4, the other IPv6"),
        ("pass icmp client fd00::/8", "client fd00::/8: icmp goes over IPv4"),
        ("pass icmpv6 guest 10.0.0.2", "guest 10.0.0.2/32: icmpv6 goes over IPv6"),
        ("pass tcp port 90-80", "the lower one first"),
        ("pass tcp port 65536", "0 to 65535"),
        ("pass tcp port -5", "a port"),
        ("pass any vlan 4096", "0 to 4095"),
        ("pass tcp mask 0:4", "nothing to mask"),
        ("compare tcp mask 4", "OFFSET:LENGTH"),
        ("compare tcp mask 4:0", "OFFSET:LENGTH"),
        ("compare tcp mask -1:4", "OFFSET:LENGTH"),
        ("compare tcp mask /abc", "OFFSET:LENGTH"),
        ("compare tcp mask /(/", "missing )"),
        ("compare tcp mask /(?=x)/", "invalid perl operator"),
        (r"compare tcp mask /(x)\1/", "invalid escape"),
        ("compare tcp mask /x{1000}{1000}/", "repetition"),
        ("compare tcp mask /x/0", "window 0"),
        ("compare tcp mask /x/5000", "window 5000"),
        ("compare udp " + "mask 0:1 " * 17, "17 masks"),
        ("#" * (MAX_TEXT + 1), "at most"),
    ],
)
def test_what_is_refused(text, says):
    with pytest.raises(ConfigError) as caught:
        parse_rules(text, "my.rules")
    assert says in str(caught.value)
    assert str(caught.value).startswith("my.rules")


def test_masks_by_place():
    (rule,) = parse_rules("compare udp mask 2:3 mask 8:100").rules
    assert rule.normal(b"0123456789") == b"01\0\0\x00567\0\0"
    assert rule.normal(b"0") == b"0"
    assert rule.masks[0].place(1) is None
    assert rule.masks[0].place(4) == 5
    assert rule.masks[0].place(5) is None


def test_masks_by_expression():
    (rule,) = parse_rules(r"compare tcp mask /Date: [^\r\n]{5}/").rules
    (mask,) = rule.masks
    mine, its = b"HTTP\r\nDate: 12:34\r\n", b"HTTP\r\nDate: 12:59\r\n"
    assert mask.covers(mine, its, 15) == 2
    assert mask.covers(mine, its, 17) == 0, "the mask ends before"
    assert mask.covers(mine, its, 3) == 0, "and begins after"
    assert mask.covers(mine, b"HTTP\r\nDate: 12\r\n..", 15) == 0, "the other side does not match"
    assert rule.normal(mine) == b"HTTP\r\n" + bytes(11) + b"\r\n"


def test_an_expression_sees_bytes_and_may_hold_a_slash_or_a_space():
    (rule,) = parse_rules("compare tcp mask /a\\/b c\\xff./16 # so").rules
    assert rule.normal(b"-a/b c\xff\x80-") == b"-" + bytes(7) + b"-"
    assert rule.masks[0].window == 16


@pytest.mark.parametrize("expression", ["(a+)+$", "(a|a)*c", "a*a*a*a*a*a*a*b", "(.*a){12}c"])
def test_no_expression_takes_more_than_linear_time(expression):
    """Python's re would not come back from these before the sun is cold; the clock is the whole test's deadline."""
    (rule,) = parse_rules(f"compare udp mask /{expression}/4096").rules
    began = time.monotonic()
    rule.normal(b"a" * 8192 + b"!")
    rule.masks[0].covers(b"a" * 8192, b"a" * 8192, 4096)
    assert time.monotonic() - began < 60
