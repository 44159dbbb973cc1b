"""Announcing a guest: what its own frames teach, what is said of it, and when."""

import pytest

import craft
from colo_proto.frame import ETH
from colo_proto.net.announce import ANNOUNCE_AT, MAX_ADDRESSES, MAX_STATIONS, Announcer

GUEST, CLIENT = bytes.fromhex("02c010000002"), bytes.fromhex("02c010000001")
G4, C4, G6, C6, LOCAL = "10.0.0.2", "10.0.0.9", "fd00::2", "fd00::9", "fe80::2"


def heard(*frames):
    one = Announcer()
    one.learn(frames)
    return one


def rarp(**more):
    return craft.rarp_announcement(GUEST, **more)


def garp(address=G4, **more):
    return craft.arp_request(address, address, sender_mac=GUEST, pad=60, **more)


def na(address=G6, **more):
    return craft.neighbour_advertisement(address, "ff02::1", address, GUEST, solicited=False, **more)


def test_any_frame_teaches_the_station_and_none_but_its_own_words_an_address():
    tcp = craft.tcp(C4, "192.0.2.7", 80, 5000, 1, 1, 16, macs=(GUEST, CLIENT))
    assert heard(tcp).frames() == [rarp()], "it may forward packets of others"


@pytest.mark.parametrize(
    "frame",
    [
        craft.arp_request(G4, C4, sender_mac=GUEST),
        craft.arp_reply(G4, C4, sender_mac=GUEST, target_mac=CLIENT),
        craft.arp_request(G4, G4, sender_mac=GUEST),
    ],
)
def test_arp_teaches_an_address(frame):
    assert heard(frame).frames() == [rarp(), garp()]


def test_a_probe_for_a_free_address_teaches_none():
    assert heard(craft.arp_request("0.0.0.0", G4, sender_mac=GUEST)).frames() == [rarp()]


def test_neighbour_discovery_teaches_addresses():
    ask = craft.neighbour_solicitation(LOCAL, C6, src_mac=GUEST)
    answer = craft.neighbour_advertisement(G6, C6, G6, GUEST, macs=(GUEST, CLIENT))
    assert heard(ask, answer).frames() == [rarp(), na(LOCAL), na(G6)]


def test_duplicate_address_detection_teaches_none():
    assert heard(craft.neighbour_solicitation("::", G6, src_mac=GUEST)).frames() == [rarp()]


def test_a_router_stays_one():
    says = craft.neighbour_advertisement(G6, C6, G6, GUEST, router=True, macs=(GUEST, CLIENT))
    asks = craft.neighbour_solicitation(G6, C6, src_mac=GUEST)
    assert heard(says, asks).frames() == [rarp(), na(router=True)]
    advertises = craft.icmp(LOCAL, "ff02::1", 134, 0, bytes(12), ttl=255, macs=(GUEST, CLIENT))
    assert heard(advertises).frames() == [rarp(), na(LOCAL, router=True)]


def test_what_was_forwarded_is_no_discovery():
    routed = craft.icmp(G6, C6, 135, 0, bytes(20), ttl=64, macs=(GUEST, CLIENT))
    assert heard(routed).frames() == [rarp()]


@pytest.mark.parametrize("tags", [(5,), (7, 5)])
def test_vlans_are_kept_apart(tags):
    frames = [craft.arp_request(G4, C4, sender_mac=GUEST, tags=tags), craft.arp_request(G4, C4, sender_mac=GUEST)]
    assert heard(*frames).frames() == [rarp(tags=tags), rarp(), garp(tags=tags), garp()]


@pytest.mark.parametrize("tags", [(), (5,)])
def test_an_address_is_learnt_after_many_frames_of_the_same_station(tags):
    tcp = craft.tcp(G4, C4, 80, 5000, 1, 1, 16, macs=(GUEST, CLIENT), tags=tags)
    one = heard(*[tcp] * 100, craft.arp_reply(G4, C4, sender_mac=GUEST, target_mac=CLIENT, tags=tags))
    assert one.frames() == [rarp(tags=tags), garp(tags=tags)]


def test_it_is_said_a_few_times_within_a_second():
    one = heard(craft.arp_request(G4, C4, sender_mac=GUEST))
    assert one.deadline() is None
    assert one.due(5.0) == []
    one.start(5.0)
    said = []
    while (due := one.deadline()) is not None:
        assert one.due(due - 0.001) == []
        assert one.due(due) == [rarp(), garp()]
        said.append(due)
    assert said == [5.0 + after for after in ANNOUNCE_AT]
    assert said[-1] == 6.0


def test_a_late_timer_says_it_once():
    one = heard(craft.arp_request(G4, C4, sender_mac=GUEST))
    one.start(5.0)
    assert len(one.due(5.5)) == 2
    assert one.deadline() == 5.6
    one.stop()
    assert one.deadline() is None


def test_bounds():
    one = Announcer()
    for n in range(2000):
        mac = bytes((2, 0, 0, 0, n >> 8, n & 255))
        one.learn([craft.arp_request(f"10.1.{n >> 8}.{n & 255}", C4, sender_mac=mac)])
    assert len(one.frames()) <= MAX_STATIONS + MAX_ADDRESSES


def test_garbage_teaches_nothing():
    one = Announcer()
    one.learn([bytes(24), bytes(26), b"\xff" * 40, bytes(10) + b"\xff" * 6 + GUEST + b"\x81\x00", bytes(22)])
    assert one.frames() in ([], [rarp()])
    assert all(len(frame) > ETH for frame in one.frames())
