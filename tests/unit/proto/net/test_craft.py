"""The frames that the proxy sends are those that the tests' own, independent builder makes."""

from ipaddress import ip_address

import pytest

import craft as other
from checksums import ip_checksum_ok, l4_checksum_ok
from colo_proto.net import craft

PAIRS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}
TAGS = [(), (5,), (7, 0x0ABC)]


def ends(version, tags):
    src, dst = (ip_address(one).packed for one in PAIRS[version])
    vlans = craft.vlan_tags(b"".join(tag.to_bytes(2, "big") for tag in tags))
    return craft.Ethernet(other.MAC_A, other.MAC_B, vlans), src, dst


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tags", TAGS)
def test_segments(version, tags):
    options = other.timestamps(1, 2)
    found = craft.Connection(*ends(version, tags), bytes.fromhex("00501388")).tcp(1000, 2**32 - 1, 0x14, 77, options)
    assert found == other.tcp(*PAIRS[version], 80, 5000, 1000, 2**32 - 1, 0x14, window=77, options=options, tags=tags)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("size", [0, 2000])
def test_errors_quote_as_much_as_is_customary(version, tags, size):
    about = other.udp(*PAIRS[version][::-1], 5000, 53, bytes(size), tags=tags)
    found = craft.icmp_error(*ends(version, tags), 3, 1, about)
    assert found == other.icmp_error(*PAIRS[version], about, 3, 1, tags=tags)[: len(found)]
    assert ip_checksum_ok(found)
    assert l4_checksum_ok(found)
