"""Listening and connecting: files in the way, addresses that are taken, what is left behind."""

import os
import socket
import stat
import threading

import pytest
import zmq

from colo_proto import codec
from colo_proto.core import Way
from colo_proto.errors import ConfigError, StartError
from runtime_helpers import frames, free_port, sink


def listen(bench, endpoint, name="b"):
    return bench.shell(sink(), name, in_=endpoint)


def unix(bench):
    return f"chardev+unix://{bench.path('s')}?server=on"


def test_a_stale_socket_is_replaced(bench):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(bench.path("s"))
    assert stat.S_ISSOCK(os.stat(bench.path("s")).st_mode)
    shell = listen(bench, unix(bench))
    bench.unix(bench.path("s"))
    bench.until(lambda: shell.snapshot().gauges["link.in.peers"])


def test_a_live_one_is_an_error_that_names_it(bench):
    listen(bench, unix(bench))
    with pytest.raises(StartError, match=f"--in: somebody listens on {bench.path('s')} already"):
        listen(bench, unix(bench), "c")
    bench.unix(bench.path("s"))


def test_a_live_one_that_takes_nobody_in_just_now_is_no_reason_to_hang(bench):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(bench.path("s"))
        busy.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(bench.path("s"))
        with pytest.raises(StartError, match="somebody listens"):
            listen(bench, unix(bench))
        for one in waiting:
            one.close()


def test_a_file_in_the_way_is_left_alone(bench):
    with open(bench.path("s"), "w") as file:
        file.write("precious")
    with pytest.raises(ConfigError, match="exists and is not a socket"):
        listen(bench, unix(bench))
    with open(bench.path("s")) as file:
        assert file.read() == "precious"


def test_a_port_in_use(bench):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            StartError, match=rf"--in: cannot listen on chardev\+tcp://127.0.0.1:{port}: Address already"
        ):
            listen(bench, f"chardev+tcp://127.0.0.1:{port}?server=on")


def test_a_directory_that_is_not_there(bench):
    with pytest.raises(StartError, match="--in: cannot listen on"):
        listen(bench, f"chardev+unix://{bench.path('no/such/s')}?server=on")


def test_closing_takes_the_socket_file_away_but_not_a_successors(bench):
    first = listen(bench, unix(bench))
    os.rename(bench.path("s"), bench.path("moved"))
    second = listen(bench, unix(bench), "c")
    bench.drop(first)
    bench.unix(bench.path("s"))
    bench.until(lambda: second.snapshot().gauges["link.in.peers"])
    bench.drop(second)
    assert not os.path.exists(bench.path("s"))


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 64 + ".invalid", "a..b"])
def test_a_name_that_does_not_resolve_is_tried_again_and_said_once(bench, name):
    shell = listen(bench, f"chardev+tcp://{name}:9")
    bench.until(lambda: shell.log.events("stream.unreachable"))
    bench.turn(0.3)
    assert len(shell.log.events("stream.unreachable")) == 1


def test_a_refused_connection_is_tried_again(bench):
    port = free_port()
    shell = listen(bench, f"chardev+tcp://127.0.0.1:{port}")
    bench.until(lambda: shell.log.events("stream.unreachable"))
    with socket.create_server(("127.0.0.1", port)):
        bench.until(lambda: shell.snapshot().gauges["link.in.peers"])
    bench.until(lambda: not shell.snapshot().gauges["link.in.peers"])


def test_ipv6(bench):
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            port = probe.getsockname()[1]
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")
    shell = listen(bench, f"chardev+tcp://[::1]:{port}?server=on")
    with socket.create_connection(("::1", port)):
        bench.until(lambda: shell.snapshot().gauges["link.in.peers"])


def test_events_name_the_option_and_the_endpoint(bench):
    shell = listen(bench, unix(bench))
    bench.unix(bench.path("s")).close()
    bench.until(lambda: shell.log.events("stream.closed"))
    for event in ("stream.connected", "stream.closed"):
        assert shell.log.events(event) == [{"option": "--in", "endpoint": unix(bench)}]


def test_frames_do_not_wait_for_a_name_that_is_looked_up(bench, monkeypatch):
    asked, answer, real = threading.Event(), threading.Event(), socket.getaddrinfo

    def slow(host, *more, **options):
        if host != "qemu.test" or options.get("flags"):
            return real(host, *more, **options)
        asked.set()
        assert answer.wait(60)
        return real("127.0.0.1", *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    core = sink(**{"in": Way.IN, "other": Way.IN})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        shell = bench.shell(core, "b", in_=f"chardev+tcp://qemu.test:{port}", other="inproc://other?server=on")
        assert asked.wait(60)
        bench.zmq(zmq.DEALER, "inproc://other").send(codec.encode_batch("x", 1, 0, 0, 0.0, frames(0, 3)))
        bench.until(lambda: core.got["other"] == frames(0, 3))
        assert not shell.snapshot().gauges["link.in.peers"]
        answer.set()
        bench.until(lambda: shell.snapshot().gauges["link.in.peers"])


def test_closing_while_a_name_is_looked_up(bench, monkeypatch):
    asked, answer, real = threading.Event(), threading.Event(), socket.getaddrinfo

    def slow(host, *more, **options):
        if options.get("flags"):
            return real(host, *more, **options)
        asked.set()
        assert answer.wait(60)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    shell = listen(bench, "chardev+tcp://qemu.test:9")
    assert asked.wait(60)
    bench.drop(shell)
    answer.set()
    bench.until(lambda: not any(thread.name.startswith("lookup") for thread in threading.enumerate()))
