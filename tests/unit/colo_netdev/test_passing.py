import os
import socket

import msgpack
import pytest

from colo_netdev import passing
from colo_netdev.passing import RefusedError, Request, TapInfo
from colo_proto.errors import WireError


def test_a_request_comes_back():
    for request in (Request("get", "lan", "m0"), Request("return", "guest", ""), Request("netns", "lan", "x")):
        assert passing.decode_request(passing.encode_request(request)) == request


def test_golden_bytes():
    assert passing.encode_request(Request("get", "lan", "m0")).hex() == "83a17601a3676574a36c616ea26964a26d30"


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
        passing.decode_request(data)
    assert error.value.reason == reason


def test_replies():
    info = TapInfo("lan", True, "02:00:00:00:00:01", 1500)
    assert passing.decode_reply(passing.encode_reply(info)) == info
    with pytest.raises(RefusedError, match="no such") as error:
        passing.decode_reply(passing.encode_error("no such", retry=True))
    assert error.value.retry
    with pytest.raises(WireError):
        passing.decode_reply(b"\x80")
    for body in ({"ok": 1}, {"ok": 0}, {"ok": True, "tap": "x", "vnet_hdr": 1, "mac": "", "mtu": 1500},
                 {"ok": True, "tap": "x", "vnet_hdr": True, "mac": "", "mtu": True}):  # fmt: skip
        with pytest.raises(WireError):
            passing.decode_reply(msgpack.packb(body))


def test_a_descriptor_crosses_a_socket():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        r, w = os.pipe()
        info = TapInfo("lan", False, "", 1500)
        socket.send_fds(there, [passing.encode_reply(info)], [w])
        os.close(w)
        got, fd = passing.fetch_tap(here, "lan", "m0")
        assert got == info
        assert not os.get_inheritable(fd)
        os.write(fd, b"through")
        assert os.read(r, 20) == b"through"
        os.close(fd)
        os.close(r)
        assert passing.decode_request(passing.receive(there)[0]) == Request("get", "lan", "m0")


def test_a_reply_without_descriptor_and_an_end():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here:
        there.send(passing.encode_reply(TapInfo("lan", False, "", 1500)))
        with pytest.raises(WireError, match="no descriptor"):
            passing.fetch_tap(here, "lan", "m0")
        there.close()
        with pytest.raises(ConnectionError):
            passing.receive(here)


def test_an_offer_is_two_sockets_and_an_answer():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        there.send(passing.encode_ok())
        passing.offer_netns(here, "guest", "netns-guest")
        data, fds = passing.receive(there)
        assert passing.decode_request(data) == Request("netns", "guest", "netns-guest")
        sockets = [socket.socket(fileno=fd) for fd in fds]
        assert [(one.family, one.type) for one in sockets] == [
            (socket.AF_INET, socket.SOCK_DGRAM),
            (socket.AF_INET6, socket.SOCK_DGRAM),
        ]
        for one in sockets:
            one.close()
        there.send(passing.encode_error("no tap goes there"))
        with pytest.raises(RefusedError, match="goes there"):
            passing.offer_netns(here, "guest", "netns-guest")
        for fd in passing.receive(there)[1]:
            os.close(fd)
        there.send(b"\x80")
        with pytest.raises(WireError):
            passing.offer_netns(here, "guest", "netns-guest")
        passing.close_all(passing.receive(there)[1])
