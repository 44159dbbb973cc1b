"""Files of bound sockets that are deleted: noticed, and bound again, without anybody who is connected noticing."""

import contextlib
import os
import shutil
import socket
import stat

import pytest

from colo_netdev.config import NetdevConfig
from colo_netdev.netdev import Netdev
from colo_netdev.server import Server
from colo_proto.core import Send
from colo_proto.messages import WorkerTable
from colo_proto.net.flow import SLOTS
from colo_proto.netdev import RefusedError, Request, decode_reply, encode_request
from colo_runtime import socketfile
from colo_runtime.reactor import Reactor
from colo_runtime.zmqsocket import MAX_LISTENERS
from runtime_helpers import Log, frame, frames, sink, source


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(socketfile, "EVERY", 0.02)


def send(shell, some):
    shell._do([Send("out", some)])


def path_of(bench, name):
    return bench.ipc(name).removeprefix("ipc://")


def test_an_ipc_socket_is_found_again_and_connections_stay(bench):
    into = sink()
    b = bench.shell(into, "b", in_=bench.ipc("in") + "?server=on")
    first = bench.shell(source(), "first", out=bench.ipc("in"))
    send(first, frames(0, 1))
    bench.until(lambda: len(into.got["in"]) == 1)
    os.unlink(path_of(bench, "in"))
    bench.until(lambda: os.path.exists(path_of(bench, "in")))
    assert stat.S_IMODE(os.stat(path_of(bench, "in")).st_mode) == 0o660
    assert b.log.events("socket.bound_again")
    second = bench.shell(source(), "second", out=bench.ipc("in"))
    send(second, frames(10, 1))
    send(first, frames(1, 1))
    bench.until(lambda: len(into.got["in"]) == 3)
    assert first.snapshot().gauges["link.out.peers"] == 1
    assert not first.log.events("link.down"), "it was never cut off"
    assert b.snapshot().counters["link.in.bound_again"] == 1


def test_a_splitter_is_found_again(bench):
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
    a._hear(WorkerTable(version=1, workers=["comp0"], slots=[0] * SLOTS))
    os.unlink(path_of(bench, "w"))
    into = sink()
    bench.shell(into, "comp0", in_=bench.ipc("w"))
    bench.until(lambda: a.snapshot().gauges["link.out.peers"] == 1)
    send(a, frames(0, 1))
    bench.until(lambda: into.got["in"])


def test_a_directory_that_was_deleted_and_is_made_again(bench):
    place = bench.directory / "run"
    place.mkdir()
    into = sink()
    b = bench.shell(into, "b", in_=f"ipc://{place}/in.sock?server=on")
    shutil.rmtree(place)
    bench.until(lambda: b.log.events("socket.lost"))
    bench.turn(0.2)
    assert len(b.log.events("socket.lost")) == 1, "once a minute"
    place.mkdir()
    bench.until((place / "in.sock").exists)
    one = bench.shell(source(), "one", out=f"ipc://{place}/in.sock")
    send(one, frames(0, 1))
    bench.until(lambda: into.got["in"])


def test_a_file_that_is_deleted_again_and_again_costs_few_descriptors(bench):
    into = sink()
    b = bench.shell(into, "b", in_=bench.ipc("in") + "?server=on")
    first = bench.shell(source(), "first", out=bench.ipc("in"))
    path = path_of(bench, "in")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3 * MAX_LISTENERS):
        bench.until(lambda: os.path.exists(path))
        os.unlink(path)
    bench.until(lambda: os.path.exists(path))
    assert len(os.listdir("/proc/self/fd")) < before + 3 * MAX_LISTENERS - 4
    bench.until(lambda: send(first, [frame(7)]) or into.got["in"])
    assert b.snapshot().counters["link.in.bound_again"] > MAX_LISTENERS


def test_whoever_has_taken_the_place_keeps_it(bench):
    into = sink()
    b = bench.shell(into, "b", in_=bench.ipc("in") + "?server=on")
    path = path_of(bench, "in")
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        bench.until(lambda: b.log.events("socket.lost"))
        bench.turn(0.1)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            other.accept()[0].close()
    # It died, and left its file behind.
    one = bench.shell(source(), "one", out=bench.ipc("in"))
    send(one, frames(0, 1))
    bench.until(lambda: into.got["in"])


def test_what_is_no_socket_is_left_alone(bench):
    b = bench.shell(sink(), "b", in_=bench.ipc("in") + "?server=on")
    path = path_of(bench, "in")
    os.unlink(path)
    with open(path, "w") as file:
        file.write("mine")
    bench.until(lambda: b.log.events("socket.lost"))
    bench.turn(0.1)
    with open(path) as file:
        assert file.read() == "mine"
    os.unlink(path)
    bench.until(lambda: os.path.exists(path))


def test_a_chardev_is_found_again_by_the_next_peer(bench):
    into = sink()
    path = str(bench.directory / "chr.sock")
    bench.shell(into, "b", in_=f"chardev+unix://{path}?server=on")
    first = socket.socket(socket.AF_UNIX)
    first.connect(path)
    some = [frame(0), frame(1), frame(2)]
    first.sendall(len(some[0][10:]).to_bytes(4, "big") + some[0][10:])
    bench.until(lambda: into.got["in"] == some[:1])
    os.unlink(path)
    bench.until(lambda: os.path.exists(path))
    second = socket.socket(socket.AF_UNIX)
    second.connect(path)
    second.sendall(len(some[2][10:]).to_bytes(4, "big") + some[2][10:])
    first.sendall(len(some[1][10:]).to_bytes(4, "big") + some[1][10:])
    bench.until(lambda: into.got["in"] == some[:2])
    first.close()
    bench.until(lambda: into.got["in"] == some)
    second.close()


def test_netdev_is_found_again(bench):
    path = str(bench.directory / "netdev.sock")
    reactor, log = Reactor(), Log()
    netdev = Netdev(NetdevConfig(path, ("lan",), socket_mode="0600"))
    server = Server(netdev, reactor, log)
    try:
        first, second = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
        first.connect(path)
        os.unlink(path)
        bench.until(lambda: reactor.turn(0) or os.path.exists(path))
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert netdev.counters["bound_again"] == 1
        second.connect(path)
        for one in (first, second):
            one.setblocking(False)
            one.send(encode_request(Request("get", "nope")))

            def answered(one=one):
                reactor.turn(0)
                try:
                    return one.recv(4096)
                except BlockingIOError:
                    return None

            with pytest.raises(RefusedError):
                decode_reply(bench.until(answered))
            one.close()
    finally:
        server.close()
        reactor.close()
    assert not os.path.exists(path)


def test_who_has_ended_binds_no_more(bench):
    b = bench.shell(sink(), "b", in_=bench.ipc("in") + "?server=on")
    other = bench.shell(sink(), "other", in_=bench.ipc("other") + "?server=on")
    bench.drop(b)
    for name in ("in", "other"):
        # libzmq may have deleted that of the ended one, in a thread of its own.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path_of(bench, name))
    bench.until(lambda: other.log.events("socket.bound_again"))
    assert not os.path.exists(path_of(bench, "in"))
