"""The grammar of endpoints."""

import pytest

from colo_proto.endpoint import SCHEMES, Endpoint, parse_endpoint
from colo_proto.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tap://lan", Endpoint("tap", "lan")),
        ("tap://lan?netdev=/run/n.sock", Endpoint("tap", "lan", netdev="/run/n.sock")),
        ("ipc:///run/x.sock?server=on", Endpoint("ipc", "/run/x.sock", server=True)),
        ("tcp://0.0.0.0:9003?server=on&reliable=on", Endpoint("tcp", "0.0.0.0:9003", server=True, reliable=True)),
        ("tcp://[::1]:9003?split=yes", Endpoint("tcp", "[::1]:9003", split=True)),
        ("inproc://a?reliable=off", Endpoint("inproc", "a")),
        ("chardev+unix:///x?server=on&vnet_hdr=on", Endpoint("chardev+unix", "/x", server=True, vnet_hdr=True)),
        ("chardev+tcp://h:1?vnet-hdr=on", Endpoint("chardev+tcp", "h:1", vnet_hdr=True)),
        ("chardev+unix:///x?vnet_hdr_len=12", Endpoint("chardev+unix", "/x", vnet_hdr_len=12)),
        ("pcap:///srv/a.pcap", Endpoint("pcap", "/srv/a.pcap")),
    ],
)  # fmt: skip
def test_what_is_understood(text, expected):
    assert parse_endpoint(text) == expected
    assert parse_endpoint(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "scheme"),
        ("lan", "scheme"),
        ("udp://a:1", "scheme"),
        ("tap://", "no address"),
        ("tcp://9003", "HOST:PORT"),
        ("tcp://h:0", "1 to 65535"),
        ("tcp://h:65536", "1 to 65535"),
        ("tcp://h:http", "HOST:PORT"),
        ("chardev+tcp://:1", "HOST:PORT"),
        ("ipc:///" + "x" * 107, "107 bytes"),
        ("tap://a-name-far-too-long", "15 bytes"),
        ("ipc:///x?sever=on", "sever"),
        ("tap://lan?server=on", "does not go with tap"),
        ("chardev+unix:///x?reliable=on", "does not go with"),
        ("ipc:///x?server=maybe", "on or off"),
        ("chardev+unix:///x?vnet_hdr_len=11", "0, 10, 12 or 20"),
    ],
)
def test_what_is_refused_by_name(text, named):
    with pytest.raises(ConfigError, match=named) as caught:
        parse_endpoint(text)
    assert "\n" not in str(caught.value)
    assert repr(text) in str(caught.value)


def test_host_and_port():
    assert parse_endpoint("tcp://[fd00::1]:9003").host_port() == ("fd00::1", 9003)
    assert parse_endpoint("chardev+tcp://localhost:1").host_port() == ("localhost", 1)


def test_kinds():
    zmq = {s for s in SCHEMES if Endpoint(s, "x").is_zmq}
    assert zmq == {"ipc", "tcp", "inproc"}
    assert {s for s in SCHEMES if Endpoint(s, "x").is_chardev} == {"chardev+unix", "chardev+tcp"}
