import msgpack
import pytest

from colo_proto import netdev
from colo_proto.errors import WireError
from colo_proto.netdev import RefusedError, Request, TapInfo


def test_a_request_comes_back():
    for request in (Request("get", "lan", "m0"), Request("return", "guest", ""), Request("netns", "lan", "x")):
        assert netdev.decode_request(netdev.encode_request(request)) == request


def test_golden_bytes():
    assert netdev.encode_request(Request("get", "lan", "m0")).hex() == "83a17601a3676574a36c616ea26964a26d30"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "undecodable"),
        (b"\xc1", "undecodable"),
        (b"\x01", "malformed"),
        (b"\x80", "version"),
        (bytes.fromhex("82a17601a367657401"), "malformed"),  # get: 1
        (bytes.fromhex("81a17601"), "malformed"),  # no verb
        (bytes.fromhex("82a17602a3676574a178"), "version"),
        (bytes.fromhex("83a17601a3676574a178a272657475726ea178"), "undecodable"),
        (msgpack.packb({"v": True, "get": "lan"}), "version"),
        (msgpack.packb({"v": 1.0, "get": "lan"}), "version"),
        (msgpack.packb({"v": 1, "get": True}), "malformed"),
        (msgpack.packb({"v": 1, "get": "lan", "lease": 1}), "malformed"),
        (msgpack.packb({"v": 1, "get": "lan", "id": True}), "malformed"),
        (msgpack.packb({"v": 1, "get": "lan", "id": "x" * 65}), "malformed"),
    ],
)
def test_garbage_is_a_wire_error(data, reason):
    with pytest.raises(WireError) as error:
        netdev.decode_request(data)
    assert error.value.reason == reason


def test_replies():
    info = TapInfo("lan", True, "02:00:00:00:00:01", 1500)
    assert netdev.decode_reply(netdev.encode_reply(info)) == info
    with pytest.raises(RefusedError, match="no such") as error:
        netdev.decode_reply(netdev.encode_error("no such", retry=True))
    assert error.value.retry
    with pytest.raises(WireError):
        netdev.decode_reply(b"\x80")
    for body in ({"ok": 1}, {"ok": 0}, {"ok": True, "tap": "x", "vnet_hdr": 1, "mac": "", "mtu": 1500},
                 {"ok": True, "tap": "x", "vnet_hdr": True, "mac": "", "mtu": True}):  # fmt: skip
        with pytest.raises(WireError):
            netdev.decode_reply(msgpack.packb(body))
