"""What happens where a descriptor is made and none is left: nobody ends, nobody turns in vain, and it goes on later."""

import contextlib
import errno
import os
import resource
import signal
import socket
import time

import pytest
import zmq

from colo_netdev.config import NetdevConfig
from colo_netdev.netdev import Netdev
from colo_netdev.server import Server
from colo_proto.core import Way
from colo_proto.errors import ConfigError, WireError
from colo_proto.netdev import RefusedError, Request, TapInfo, decode_reply, decode_request, encode_reply, encode_request
from colo_runtime import curve, stream, zmqsocket
from colo_runtime.descriptors import NO_DESCRIPTORS, receive
from colo_runtime.reactor import Reactor
from runtime_helpers import Log, sink


@contextlib.contextmanager
def no_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError) as error:
            os.dup(0)
        assert error.value.errno == errno.EMFILE
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def accepted(bench, listener):
    """The next one who connects."""
    found = []

    def comes():
        with contextlib.suppress(BlockingIOError):
            found.append(listener.accept()[0])
        return found

    return bench.until(comes)[0]


def test_a_filter_that_asks_for_its_tap(bench):
    path = bench.path("netdev.sock")
    shell = bench.shell(sink(**{"in": Way.IN}), "b", in_=f"tap://lan?netdev={path}")
    with no_descriptors():
        bench.until(lambda: "Too many open files" in shell.links["in"].waiting_for)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as netdev:
        netdev.bind(path)
        netdev.listen()
        netdev.setblocking(False)
        with accepted(bench, netdev) as asked:
            assert decode_request(receive(asked)[0]) == Request("get", "lan", "b")


def test_a_descriptor_that_had_no_place_is_asked_for_again(bench):
    path = bench.path("netdev.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as netdev:
        netdev.bind(path)
        netdev.listen()
        shell = bench.shell(sink(**{"in": Way.IN}), "b", in_=f"tap://lan?netdev={path}")
        asked = netdev.accept()[0]
        bench.until(lambda: asked.recv(4096))
        pipe = os.pipe()
        info = encode_reply(TapInfo("lan", True, "", 1500))
        socket.send_fds(asked, [info], [pipe[0]])
        with no_descriptors():
            bench.until(lambda: "none left" in shell.links["in"].waiting_for)
        asked.close()
        netdev.setblocking(False)
        again = accepted(bench, netdev)
        verbs = []
        bench.until(lambda: verbs.append(decode_request(again.recv(4096))) or verbs)
        assert verbs == [Request("get", "lan", "b")]
        socket.send_fds(again, [info], [pipe[0]])
        bench.until(lambda: not shell.links["in"].waiting_for)
        for fd in pipe:
            os.close(fd)
        again.close()


def test_what_the_kernel_threw_away_is_said():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        socket.send_fds(there, [b"x"], [0])
        with no_descriptors(), pytest.raises(WireError) as error:
            receive(here)
        assert error.value.reason == NO_DESCRIPTORS


@pytest.mark.parametrize("scheme", ["unix", "tcp"])
def test_a_chardev_does_not_turn_in_vain(bench, scheme, monkeypatch):
    monkeypatch.setattr(stream, "RETRY_MAX", 0.3)
    if scheme == "unix":
        endpoint, where = f"chardev+unix://{bench.path('c.sock')}", bench.path("c.sock")
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            where = free.getsockname()
        endpoint = f"chardev+tcp://127.0.0.1:{where[1]}"
    shell = bench.shell(sink(**{"in": Way.IN}), "b", in_=endpoint + "?server=on")
    with socket.socket(socket.AF_UNIX if scheme == "unix" else socket.AF_INET) as peer:
        peer.setblocking(False)
        with no_descriptors():
            peer.connect_ex(where)
            assert calls_of(bench, shell.links["in"]._stream, "_accept") <= 3
        bench.until(lambda: shell.snapshot().gauges["link.in.peers"])


def calls_of(bench, owner, name, seconds=0.25):
    """How often the loop calls a handler in that time."""
    calls = []
    for watch in bench.shells[0].reactor._watches.values():
        if getattr(watch.handler, "__func__", None) is getattr(owner, name).__func__:
            before = watch.handler
            watch.handler = lambda events, call=before: (calls.append(1), call(events))
    bench.turn(seconds)
    return len(calls)


class Opener:
    error: OSError | None = OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def __call__(self, spec, *, offered=None):
        raise self.error


def test_netdev_refuses_and_is_asked_again(bench):
    netdev = Netdev(NetdevConfig(tap=("lan",), listen=bench.path("n.sock")), opener=Opener())
    reactor, log = Reactor(), Log()
    server = Server(netdev, reactor, log)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        one.connect(bench.path("n.sock"))
        one.send(encode_request(Request("get", "lan", "b")))
        one.setblocking(False)
        reply, end = b"", time.monotonic() + 60
        while not reply and time.monotonic() < end:
            reactor.turn(time.monotonic() + 0.01)
            with contextlib.suppress(BlockingIOError):
                reply = one.recv(4096)
        with pytest.raises(RefusedError, match="Too many open files") as error:
            decode_reply(reply)
        assert error.value.retry
    server.close()
    reactor.close()


def test_netdev_does_not_turn_in_vain(bench):
    reactor, log = Reactor(), Log()
    server = Server(Netdev(NetdevConfig(tap=("lan",), listen=bench.path("n.sock"))), reactor, log)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        turns = 0
        with no_descriptors():
            one.connect(bench.path("n.sock"))
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                reactor.turn(end)
                turns += 1
        assert turns < 20
        end = time.monotonic() + 60
        while not server.clients:
            reactor.turn(time.monotonic() + 0.01)
            assert time.monotonic() < end
    server.close()
    reactor.close()
    assert log.events("client.refused")


def test_the_list_of_peers_cannot_be_read(tmp_path):
    for name in ("a", "b"):
        curve.write_pair(str(tmp_path), name)
    with no_descriptors(), pytest.raises(ConfigError, match="Too many open files"):
        curve._peers(str(tmp_path))
    with no_descriptors(), pytest.raises(ConfigError, match="Too many open files"):
        curve.load(str(tmp_path / "a.key_secret"), str(tmp_path))


def test_a_name_cannot_be_looked_up(bench, monkeypatch):
    shell = bench.shell(sink(**{"in": Way.IN}), "b", in_="chardev+tcp://127.0.0.1:1")
    one = shell.links["in"]._stream
    bench.until(lambda: one._timer.pending)
    one._timer.cancel()
    object.__setattr__(one, "endpoint", type(one.endpoint)("chardev+tcp", "nobody.test:9"))
    with no_descriptors():
        one._connect()
    assert one._lookup is None
    assert one._timer.pending


def test_sighup_with_keys_changes_nothing_and_ends_nobody(bench, tmp_path, monkeypatch):
    for name in ("a", "b"):
        curve.write_pair(str(tmp_path), name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shell = bench.shell(
        sink(**{"in": Way.IN}), "x", in_=f"tcp://127.0.0.1:{port}?server=on", alone=True,
        curve_secret=str(tmp_path / "a.key_secret"), curve_peers=str(tmp_path / "b.key"),
    )  # fmt: skip
    wire = shell.links["in"]._wire
    with no_descriptors():
        shell._signalled(signal.SIGHUP)
    assert shell.log.events("keys.refused")
    real = wire._make

    def none_left():
        raise zmq.ZMQError(errno.EMFILE)

    monkeypatch.setattr(zmqsocket, "REDIAL", 0.05)
    wire._make = none_left
    wire.renew()
    assert shell.log.events("endpoint.lost")
    assert not wire.send(b"", b"x")
    bench.turn(0.2)
    wire._make = real
    bench.until(lambda: not wire.socket.closed)
