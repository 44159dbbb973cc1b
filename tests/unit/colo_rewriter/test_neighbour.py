from hypothesis import given
from hypothesis import strategies as st

import craft
from colo_proto.frame import ETH
from colo_proto.net.packet import ETH_ARP, ETH_IPV6, dissect
from colo_rewriter.neighbour import MAX_OWN, Neighbours
from rewriting import CLIENT_MAC, GUEST_MAC

G4, C4, ROUTER4 = "10.0.0.2", "10.0.0.9", "10.0.0.1"
G6, C6 = "fd00::2", "fd00::9"
GL, RL = "fe80::2", "fe80::1"
ROUTER_MAC = bytes.fromhex("020000000001")


def heard(*frames, limit=4096):
    table = Neighbours(limit)
    for frame in frames:
        table.learn(dissect(frame))
    return table


def ask(table, frame):
    return table.answer(dissect(frame))


def arp_from(sender=C4, sender_mac=CLIENT_MAC, **more):
    return craft.arp_request(sender, G4, sender_mac=sender_mac, **more)


def who_has(target=C4, sender=G4, **more):
    return craft.arp_request(sender, target, sender_mac=GUEST_MAC, **more)


def solicit(target=C6, source=G6, **more):
    return craft.neighbour_solicitation(source, target, src_mac=GUEST_MAC, **more)


def router_advertisement(options=b"", src=RL):
    return craft.icmp(src, "ff02::1", 134, 0, bytes(12) + options, ttl=255, macs=(ROUTER_MAC, CLIENT_MAC))


def test_an_arp_request_and_a_reply_of_the_lan_both_teach():
    for frame in (arp_from(), craft.arp_reply(C4, G4, sender_mac=CLIENT_MAC, target_mac=GUEST_MAC)):
        assert ask(heard(frame), who_has()) == craft.arp_reply(C4, G4, sender_mac=CLIENT_MAC, target_mac=GUEST_MAC)


def test_a_unicast_probe_is_answered_too():
    probe = craft.arp(1, G4, GUEST_MAC, C4, CLIENT_MAC, CLIENT_MAC)
    assert ask(heard(arp_from()), probe) == craft.arp_reply(C4, G4, sender_mac=CLIENT_MAC, target_mac=GUEST_MAC)


def test_who_is_not_known_is_not_answered_for():
    assert ask(heard(arp_from()), who_has(ROUTER4)) is None


def test_the_latest_address_counts():
    table = heard(arp_from(), arp_from(sender_mac=ROUTER_MAC))
    assert ask(table, who_has())[ETH + 6 : ETH + 12] == ROUTER_MAC


def test_probes_for_a_free_address_and_announcements_are_not_answered():
    table = heard(arp_from(), arp_from(G4))
    assert ask(table, who_has(sender="0.0.0.0")) is None
    assert ask(table, who_has(G4)) is None
    assert ask(heard(craft.neighbour_advertisement(C6, G6, C6, CLIENT_MAC)), solicit(source="::")) is None


def test_the_guests_own_addresses_are_never_answered_for():
    table = heard(arp_from())
    ask(table, who_has(sender="10.0.0.3"))
    table.learn(dissect(arp_from("10.0.0.3")))
    assert ask(table, who_has("10.0.0.3")) is None
    assert ask(heard(arp_from(sender_mac=GUEST_MAC)), who_has()) is None, "its own MAC, mirrored back"


def test_a_reply_is_not_answered():
    assert ask(heard(arp_from()), craft.arp_reply(G4, C4, sender_mac=GUEST_MAC, target_mac=CLIENT_MAC)) is None


def test_addresses_that_are_nobodys_are_not_learned():
    for sender, mac in (("0.0.0.0", CLIENT_MAC), (C4, bytes(6)), (C4, b"\xff" * 6), (C4, b"\x01\x00\x5e\0\0\1")):
        assert len(heard(arp_from(sender, mac))) == 0


def test_vlans_are_apart():
    table = heard(arp_from(tags=(5,)))
    assert ask(table, who_has()) is None
    assert ask(table, who_has(tags=(6,))) is None
    reply = ask(table, who_has(tags=(5,)))
    assert reply == craft.arp_reply(C4, G4, sender_mac=CLIENT_MAC, target_mac=GUEST_MAC, tags=(5,))


def test_a_solicitation_and_an_advertisement_of_the_lan_both_teach():
    want = craft.neighbour_advertisement(C6, G6, C6, CLIENT_MAC, macs=(CLIENT_MAC, GUEST_MAC))
    for frame in (
        craft.neighbour_solicitation(C6, G6, src_mac=CLIENT_MAC),
        craft.neighbour_advertisement(C6, G6, C6, CLIENT_MAC),
    ):
        assert ask(heard(frame), solicit()) == want
        assert ask(heard(frame), solicit(dst=C6)) == want


def router_flag(table, target):
    reply = ask(table, solicit(target, GL))
    packet = dissect(reply)
    return bool(reply[packet.l4 + 4] & 0x80)


def test_a_routers_answer_says_that_it_is_one():
    """Without the flag the guest would drop its default route (RFC 4861 §7.2.5)."""
    announced = heard(router_advertisement(b"\1\1" + ROUTER_MAC))
    assert router_flag(announced, RL)
    announced.learn(dissect(craft.neighbour_solicitation(RL, GL, src_mac=ROUTER_MAC)))
    assert router_flag(announced, RL), "a solicitation says nothing about it"
    advertised = heard(
        craft.icmp(C6, G6, 136, 0, b"\xe0\0\0\0" + dissect(solicit()).payload()[8:24] + b"\2\1" + CLIENT_MAC, ttl=255)
    )
    assert router_flag(advertised, C6)
    advertised.learn(dissect(craft.neighbour_solicitation(C6, G6, src_mac=CLIENT_MAC)))
    assert router_flag(advertised, C6)


def test_who_has_not_said_is_a_router_only_if_link_local():
    assert router_flag(heard(craft.neighbour_solicitation(RL, GL, src_mac=ROUTER_MAC)), RL)
    assert not router_flag(heard(craft.neighbour_solicitation(C6, G6, src_mac=CLIENT_MAC)), C6)
    assert not router_flag(heard(craft.neighbour_advertisement(RL, GL, RL, ROUTER_MAC)), RL)


def test_a_router_solicitation_is_a_hosts():
    frame = craft.icmp(RL, "ff02::2", 133, 0, bytes(4) + b"\1\1" + ROUTER_MAC, ttl=255)
    assert not router_flag(heard(frame), RL)


def test_discovery_from_afar_or_with_another_code_is_not_believed():
    for more in ({"ttl": 254}, {"code": 1}):
        code, ttl = more.get("code", 0), more.get("ttl", 255)
        body = bytes(4) + bytes.fromhex("fd00" + "00" * 13 + "09") + b"\2\1" + CLIENT_MAC
        assert len(heard(craft.icmp(C6, G6, 136, code, body, ttl=ttl))) == 0


def test_other_options_are_skipped_and_an_empty_one_ends_the_search():
    mtu = b"\5\1\0\0\0\0\5\xdc"
    assert len(heard(router_advertisement(mtu + b"\1\1" + ROUTER_MAC))) == 1
    assert len(heard(router_advertisement(b"\5\0" + bytes(6) + b"\1\1" + ROUTER_MAC))) == 0
    assert len(heard(router_advertisement(b"\1\2" + ROUTER_MAC + bytes(8)))) == 0
    assert len(heard(router_advertisement())) == 0


def test_the_table_is_bounded_and_keeps_what_is_asked_for():
    table = heard(arp_from("10.1.0.1"), arp_from("10.1.0.2"), limit=2)
    assert ask(table, who_has("10.1.0.1")) is not None
    table.learn(dissect(arp_from("10.1.0.3")))
    assert len(table) == 2
    assert ask(table, who_has("10.1.0.1")) is not None
    assert ask(table, who_has("10.1.0.2")) is None


def test_the_guests_addresses_are_bounded():
    table = heard()
    for number in range(MAX_OWN + 50):
        ask(table, who_has(sender=f"10.7.{number // 250}.{number % 250 + 1}"))
    assert len(table._own) == MAX_OWN


@given(st.binary(max_size=80), st.sampled_from([ETH_ARP, ETH_IPV6]), st.booleans())
def test_any_bytes_are_survived(raw, ethertype, tail):
    body = raw if not tail else bytes.fromhex("6000000000103aff") + raw
    frame = craft.ethernet(ethertype, body)
    table = heard(frame)
    ask(table, frame)
    assert len(table) <= 1


# -- after a restart, when the introductions were missed ---------------------------------------------------------------


def noticed(*frames, limit=4096):
    table = Neighbours(limit)
    for frame in frames:
        table.notice(frame)
    return table


def says(src, dst, mac=CLIENT_MAC, **more):
    return craft.udp(src, dst, 1000, 53, b"x", macs=(mac, GUEST_MAC), **more)


def test_whoever_talks_is_known():
    assert ask(noticed(says(C4, G4)), who_has()) == craft.arp_reply(C4, G4, sender_mac=CLIENT_MAC, target_mac=GUEST_MAC)
    assert ask(noticed(says(C6, G6)), solicit()) is not None
    assert ask(noticed(says(C4, G4)), who_has("10.0.0.8")) is None
    segment = craft.tcp(C4, G4, 1000, 80, 1, 1, 0x10, b"x", macs=(CLIENT_MAC, GUEST_MAC))
    assert ask(noticed(segment), who_has()) is not None


def test_what_a_host_has_said_of_itself_counts_more():
    table = noticed(says(C4, G4, mac=ROUTER_MAC))
    table.learn(dissect(arp_from()))
    assert ask(table, who_has())[ETH + 6 : ETH + 12] == CLIENT_MAC


def test_the_guests_own_frames_and_multicast_teach_nothing():
    table = noticed(says(C4, G4))
    ask(table, who_has(sender="10.0.0.3"))
    table.notice(says("10.0.0.3", G4))
    assert ask(table, who_has("10.0.0.3")) is None
    assert ask(noticed(says("224.0.0.1", G4)), who_has("224.0.0.1")) is None
    assert ask(noticed(b"short"), who_has()) is None


def test_each_vlan_has_its_own_stations():
    table = noticed(says(C4, G4, tags=[7]))
    assert ask(table, who_has()) is None
    assert ask(table, who_has(tags=[7])) is not None


def test_a_station_that_is_asked_alone_is_there():
    probe = craft.arp(1, G4, GUEST_MAC, ROUTER4, ROUTER_MAC, ROUTER_MAC)
    assert ask(noticed(), probe) == craft.arp_reply(ROUTER4, G4, sender_mac=ROUTER_MAC, target_mac=GUEST_MAC)


def test_a_router_that_forwards_and_has_not_introduced_itself():
    table = noticed(says("192.0.2.1", G4, mac=ROUTER_MAC))
    assert ask(table, who_has(ROUTER4)) is None, "it may be one host's only address"
    table.notice(says("192.0.2.2", G4, mac=ROUTER_MAC))
    assert ask(table, who_has(ROUTER4))[ETH + 6 : ETH + 12] == ROUTER_MAC
    assert ask(table, who_has(ROUTER4)) is not None, "and again"
    assert ask(table, solicit()) is None, "nothing is known of the other family"


def test_a_router_that_has_introduced_itself_has_no_other_address():
    table = noticed(says("192.0.2.1", G4, mac=ROUTER_MAC), says("192.0.2.2", G4, mac=ROUTER_MAC))
    table.learn(dissect(arp_from(ROUTER4, ROUTER_MAC)))
    assert ask(table, who_has("10.0.0.77")) is None
    assert ask(table, who_has(ROUTER4)) is not None


def test_a_router_is_not_taken_for_a_whole_network():
    table = noticed(says("192.0.2.1", G4, mac=ROUTER_MAC), says("192.0.2.2", G4, mac=ROUTER_MAC))
    answered = [ask(table, who_has(f"10.0.0.{n}")) is not None for n in range(20, 30)]
    assert answered == [True] * 4 + [False] * 6


def test_what_is_noticed_is_bounded_and_costs_the_known_ones_nothing():
    table = heard(arp_from(), limit=8)
    for n in range(100):
        table.notice(says(f"192.0.2.{n}", G4, mac=ROUTER_MAC))
    assert len(table._seen) == 8
    assert sum(table._seen.addresses.values()) == 8
    assert ask(table, who_has()) is not None


def asks(table, frame):
    ask(table, frame)
    return table.unknown


def test_who_is_not_known_or_only_guessed_has_to_be_asked_for_on_the_lan():
    assert asks(Neighbours(), who_has())
    assert asks(Neighbours(), solicit())
    assert not asks(heard(arp_from()), who_has())
    table = Neighbours()
    table.notice(craft.tcp(C4, G4, 5000, 80, 1, 0, 2))
    assert not asks(table, who_has())
    for address in ("192.0.2.7", "192.0.2.8"):
        table.notice(craft.tcp(address, G4, 5000, 80, 1, 0, 2, macs=(ROUTER_MAC, GUEST_MAC)))
    assert ask(table, who_has(ROUTER4))[ETH + 6 : ETH + 12] == ROUTER_MAC, "the station that forwards"
    assert table.unknown, "but that is a guess"


def test_a_probe_for_a_free_address_must_not_be_asked_on_the_lan():
    """The primary guest has the address, and would defend it against its own replica."""
    assert not asks(Neighbours(), craft.arp(1, "0.0.0.0", GUEST_MAC, G4, bytes(6), b"\xff" * 6))
    assert not asks(Neighbours(), solicit(G6, "::"))
    table = Neighbours()
    ask(table, who_has())
    assert not asks(table, who_has(G4)), "nor one for its own"


def test_a_station_that_takes_an_address_over_is_noticed():
    table = Neighbours()
    for mac in (CLIENT_MAC, ROUTER_MAC, CLIENT_MAC):
        table.notice(craft.tcp(C4, G4, 5000, 80, 1, 0, 2, macs=(mac, GUEST_MAC)))
        assert ask(table, who_has())[ETH + 6 : ETH + 12] == mac
