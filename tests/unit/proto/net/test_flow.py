"""Flow keys: two names of one flow, apart and together again, and their slots."""

from collections import Counter
from ipaddress import ip_address
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_proto.net import packet as p
from colo_proto.net.flow import SLOTS, describe, parts, reverse, slot

port = st.integers(0, 65535)
tags_ = st.lists(st.integers(0, 4095), max_size=2)


@st.composite
def keys(draw):
    address = st.ip_addresses(v=draw(st.sampled_from([4, 6])))
    return make(draw(st.integers(0, 255)), draw(address), draw(address), draw(port), draw(port), *draw(tags_))


def make(proto, src, dst, sport=0, dport=0, *tags):
    src, dst = ip_address(src).packed, ip_address(dst).packed
    return p.flow_key(proto, src, dst, pack("!HH", sport, dport), b"".join(pack("!H", tag) for tag in tags))


@given(keys())
def test_the_reverse_of_the_reverse(key):
    assert reverse(reverse(key)) == key
    proto, src, dst, sport, dport, tags = parts(key)
    assert parts(reverse(key)) == (proto, dst, src, dport, sport, tags)


@given(keys())
def test_both_directions_have_one_name_and_one_slot(key):
    assert slot(key) == slot(reverse(key))
    assert 0 <= slot(key) < SLOTS


@given(keys())
def test_parts(key):
    proto, src, dst, sport, dport, tags = parts(key)
    assert len(src) == len(dst)
    assert make(proto, ip_address(src), ip_address(dst), sport, dport, *tags) == key


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (make(6, "10.0.0.2", "10.0.0.9", 80, 5000), "tcp 10.0.0.2:80 > 10.0.0.9:5000"),
        (make(17, "fd00::2", "fd00::9", 53, 5000), "udp [fd00::2]:53 > [fd00::9]:5000"),
        (make(1, "10.0.0.2", "10.0.0.9"), "icmp 10.0.0.2 > 10.0.0.9"),
        (make(58, "fd00::2", "fd00::9"), "icmpv6 fd00::2 > fd00::9"),
        (make(132, "10.0.0.2", "10.0.0.9", 1, 2), "sctp 10.0.0.2:1 > 10.0.0.9:2"),
        (make(99, "10.0.0.2", "10.0.0.9"), "proto-99 10.0.0.2 > 10.0.0.9"),
        (make(6, "10.0.0.2", "10.0.0.9", 80, 5000, 7), "vlan 7 tcp 10.0.0.2:80 > 10.0.0.9:5000"),
        (make(6, "fd00::2", "fd00::9", 80, 1, 7, 8), "vlan 7 vlan 8 tcp [fd00::2]:80 > [fd00::9]:1"),
    ],
)
def test_text_for_people(key, text):
    assert describe(key) == text


def test_slots_do_not_change_from_one_version_to_the_next():
    # Two hosts of different versions must share a flow out alike.
    assert [slot(make(6, "10.0.0.2", f"10.0.0.{n}", 80, 5000)) for n in range(3)] == [471, 404, 118]
    assert slot(make(6, "10.0.0.2", "10.0.0.1", 80, 5000), b"seed") != slot(make(6, "10.0.0.2", "10.0.0.1", 80, 5000))


def test_slots_are_spread_evenly():
    count = Counter(slot(make(6, "10.0.0.2", f"10.1.{n >> 8}.{n & 255}", 80, 5000 + n)) for n in range(20 * SLOTS))
    assert len(count) == SLOTS
    # 20 expected, standard deviation 4.5.
    assert max(count.values()) < 50
