"""Descriptors over a socket, from netdev to a filter and back."""

import os
import socket

import pytest

from colo_netdev.hold import offer_netns
from colo_proto import netdev
from colo_proto.errors import WireError
from colo_proto.netdev import RefusedError, Request, TapInfo
from colo_runtime.descriptors import close_all, receive
from tap_client import fetch_tap


def test_a_descriptor_crosses_a_socket():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        r, w = os.pipe()
        info = TapInfo("lan", False, "", 1500)
        socket.send_fds(there, [netdev.encode_reply(info)], [w])
        os.close(w)
        got, fd = fetch_tap(here, "lan", "m0")
        assert got == info
        assert not os.get_inheritable(fd)
        os.write(fd, b"through")
        assert os.read(r, 20) == b"through"
        os.close(fd)
        os.close(r)
        assert netdev.decode_request(receive(there)[0]) == Request("get", "lan", "m0")


def test_a_reply_without_descriptor_and_an_end():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here:
        there.send(netdev.encode_reply(TapInfo("lan", False, "", 1500)))
        with pytest.raises(WireError, match="no descriptor"):
            fetch_tap(here, "lan", "m0")
        there.close()
        with pytest.raises(ConnectionError):
            receive(here)


def test_an_offer_is_two_sockets_and_an_answer():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        there.send(netdev.encode_ok())
        offer_netns(here, "guest", "netns-guest")
        data, fds = receive(there)
        assert netdev.decode_request(data) == Request("netns", "guest", "netns-guest")
        sockets = [socket.socket(fileno=fd) for fd in fds]
        assert [(one.family, one.type) for one in sockets] == [
            (socket.AF_INET, socket.SOCK_DGRAM),
            (socket.AF_INET6, socket.SOCK_DGRAM),
        ]
        for one in sockets:
            one.close()
        there.send(netdev.encode_error("no tap goes there"))
        with pytest.raises(RefusedError, match="goes there"):
            offer_netns(here, "guest", "netns-guest")
        for fd in receive(there)[1]:
            os.close(fd)
        there.send(b"\x80")
        with pytest.raises(WireError):
            offer_netns(here, "guest", "netns-guest")
        close_all(receive(there)[1])
