"""/metrics, /health and /ready, asked over real HTTP while the loop turns, and while it does not."""

import contextlib
import os
import resource
import socket
import threading
import time
from dataclasses import replace
from http.client import HTTPConnection
from struct import pack

import pytest
import zmq
from prometheus_client.parser import text_string_to_metric_families

from colo_proto import codec
from colo_proto.core import Way
from colo_proto.errors import StartError
from colo_proto.messages import Welcome
from colo_runtime import http
from runtime_helpers import sink, source


def ask(shell, path, method="GET"):
    """Status, headers and body, in this thread."""
    host, _, port = shell.http.rpartition(":")
    connection = HTTPConnection(host.strip("[]"), int(port), timeout=60)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def asked(bench, shell, path, method="GET"):
    """The same, while the loops turn."""
    got = []
    thread = threading.Thread(target=lambda: got.append(ask(shell, path, method)), daemon=True)
    thread.start()
    bench.until(lambda: got)
    thread.join()
    return got[0]


@pytest.fixture
def served(bench):
    return bench.shell(sink(), "b", in_="inproc://in?server=on", http="127.0.0.1:0")


def metrics(text):
    return {
        s.name + repr(sorted(s.labels.items())): s.value
        for f in text_string_to_metric_families(text)
        for s in f.samples
    }


class TestMetrics:
    def test_what_prometheus_reads(self, bench, served):
        served.core.counters["released"] = 7
        served.core.counters["dropped.timeout"] = 2
        served.links["in"].counters["frames_in"] = 9
        status, headers, text = asked(bench, served, "/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=")
        found = metrics(text)
        assert found["colo_probe_released_total[]"] == 7
        assert found["colo_probe_dropped_total[('reason', 'timeout')]"] == 2
        assert found["colo_probe_link_frames_in_total[('port', 'in')]"] == 9
        assert found["colo_probe_held[]"] == 0
        assert found["colo_up[('id', 'b'), ('role', 'probe')]"] == 1
        assert found["colo_ready[('id', 'b'), ('role', 'probe')]"] == 1
        assert found["process_cpu_seconds_total[]"] > 0

    def test_they_are_those_of_the_moment(self, bench, served):
        for n in range(3):
            served.core.counters["released"] = n
            assert metrics(asked(bench, served, "/metrics")[2])["colo_probe_released_total[]"] == n

    def test_a_loop_that_stands_still_gives_the_last_ones(self, bench, served, monkeypatch):
        monkeypatch.setattr(http, "FRESH", 0.01)
        served.core.counters["released"] = 1
        asked(bench, served, "/metrics")
        served.core.counters["released"] = 2
        assert metrics(ask(served, "/metrics")[2])["colo_probe_released_total[]"] == 1


class TestHealth:
    def test_while_the_loop_turns(self, bench, served):
        assert asked(bench, served, "/health")[::2] == (200, "ok\n")

    def test_a_loop_that_stands_still_is_not_well(self, served, monkeypatch):
        monkeypatch.setattr(http, "FRESH", 0.01)
        served.reactor.turned = time.monotonic() - http.STUCK - 1
        status, _, text = ask(served, "/health")
        assert status == 503
        assert "has not turned" in text
        assert ask(served, "/ready")[0] == 503


class TestReady:
    def test_when_there_is_nothing_to_wait_for(self, bench, served):
        assert asked(bench, served, "/ready")[::2] == (200, "ready\n")

    def test_a_note_changes_no_status(self, bench, served, monkeypatch):
        now = served.snapshot
        monkeypatch.setattr(served, "snapshot", lambda: replace(now(), note="the pair is unprotected (no secondary)"))
        assert asked(bench, served, "/ready")[::2] == (200, "ready; the pair is unprotected (no secondary)\n")
        assert asked(bench, served, "/health")[::2] == (200, "ok\n")

    def test_not_before_the_frame_has_welcomed_us(self, bench):
        frame = bench.zmq(zmq.ROUTER, "inproc://control", bind=True)
        shell = bench.shell(sink(), "b", in_="inproc://in?server=on", http="127.0.0.1:0", frame="inproc://control")
        status, _, text = asked(bench, shell, "/ready")
        assert (status, text) == (503, "the frame at inproc://control has not answered\n")
        assert asked(bench, shell, "/health")[0] == 200
        bench.until(lambda: frame.poll(0))
        peer, _ = frame.recv_multipart()
        frame.send_multipart([peer, codec.encode(Welcome(1))])
        bench.until(lambda: not shell.waiting_for())
        assert asked(bench, shell, "/ready")[0] == 200

    def test_not_without_its_tap(self, bench):
        shell = bench.shell(
            sink(**{"in": Way.IN}), "b", in_=f"tap://lan?netdev={bench.path('none')}", http="127.0.0.1:0"
        )
        status, _, text = asked(bench, shell, "/ready")
        assert status == 503
        assert "tap lan" in text

    def test_not_while_draining(self, bench):
        shell = bench.shell(source(), "a", out="inproc://o?server=on&reliable=on", http="127.0.0.1:0")
        shell.draining = True
        assert asked(bench, shell, "/ready")[::2] == (503, "draining\n")


def test_other_paths_and_methods(bench, served):
    assert asked(bench, served, "/")[0] == 404
    assert asked(bench, served, "/ready?verbose=1")[0] == 200
    assert asked(bench, served, "/health", "HEAD")[::2] == (200, "")
    assert asked(bench, served, "/health", "POST")[0] == 501


def test_many_at_once(bench, served):
    got = []
    threads = [threading.Thread(target=lambda: got.append(ask(served, "/metrics")[0]), daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    bench.until(lambda: len(got) == 8)
    for thread in threads:
        thread.join()
    assert got == [200] * 8


def test_an_address_that_is_taken_is_named(bench, served):
    with pytest.raises(StartError, match=f"--http {served.http}: Address already in use"):
        bench.shell(sink(), "c", in_="inproc://c?server=on", http=served.http)


def test_it_is_gone_with_the_process(bench, served):
    where = served.http
    bench.drop(served)
    assert not any(thread.name == f"http {where}" for thread in threading.enumerate())
    bench.shell(sink(), "again", in_="inproc://again?server=on", http=where)


def test_one_who_hangs_up_before_the_answer_leaves_no_traceback(bench, served, capfd):
    host, _, port = served.http.rpartition(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 50)
            # A reset: the answers have nowhere to go.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
    asked(bench, served, "/metrics")
    bench.until(lambda: not served._http._visitors)
    assert capfd.readouterr().err == ""


def raw(shell, say=b""):
    host, _, port = shell.http.rpartition(":")
    one = socket.create_connection((host, int(port)))
    one.settimeout(60)
    one.sendall(say)
    return one


def test_a_thousand_connections_take_neither_threads_nor_descriptors(bench, served, monkeypatch):
    # The connections are made at once: another test is about the rate.
    monkeypatch.setattr(http, "RATE", 2000.0)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    made = [raw(served, b"GET /metrics HTTP/1.1\r\nX-") for _ in range(300)]
    assert asked(bench, served, "/health")[0] == 200, "a proper request was not answered"
    assert asked(bench, served, "/metrics")[0] == 200
    bench.until(lambda: len(served._http._visitors) <= http.MAX_CONNECTIONS)
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) < descriptors + 300 + http.MAX_CONNECTIONS + 8
    for one in made:
        one.close()


@pytest.mark.parametrize("say", [b"", b"GET", b"GET /ready HTTP/1.1\r\nX: y\r\n"])
def test_a_request_has_its_time(bench, served, monkeypatch, say):
    monkeypatch.setattr(http, "CLIENT_TIMEOUT", 0.2)
    with raw(served, say) as one:
        assert one.recv(100) == b""


def test_one_that_comes_byte_by_byte_has_no_more(served, monkeypatch):
    monkeypatch.setattr(http, "CLIENT_TIMEOUT", 0.25)
    begin = time.monotonic()
    with raw(served, b"GET /ready HTTP/1.1\r\nX: ") as one:
        one.settimeout(0.02)
        with pytest.raises(ConnectionError):
            while time.monotonic() < begin + 60:
                try:
                    one.sendall(b"x")
                    if one.recv(100) == b"":
                        raise ConnectionResetError
                except TimeoutError:
                    continue


def test_one_who_does_not_read_is_left(bench, served, monkeypatch):
    monkeypatch.setattr(http, "CLIENT_TIMEOUT", 0.3)
    served._http._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for n in range(5_000):
        served.core.counters[f"thing{n}"] = n
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        host, _, port = served.http.rpartition(":")
        before = time.monotonic()
        one.connect((host, int(port)))
        one.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        bench.until(lambda: served._http._visitors)
        bench.until(lambda: not served._http._visitors)
        assert time.monotonic() - before > 0.2, "it had its time"
        one.settimeout(60)
        data = b""
        with contextlib.suppress(ConnectionError):
            while more := one.recv(65536):
                data += more
        assert 0 < len(data) < 100_000, "the answer was not taken to its end"


@pytest.mark.parametrize(
    ("say", "status"),
    [
        (b"GET /ready HTTP/1.1\r\nX: " + bytes(9000), b"431"),
        (b"\x16\x03\x01\r\n\r\n", b"400"),
        (b"GET /ready\r\n\r\n", b"400"),
        (b"GET /health HTTP/1.1\r\nContent-Length: 5\r\n\r\nHallo", b"501"),
        (b"GET /health HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", b"200"),
    ],
)
def test_what_is_answered_and_then_over(bench, served, say, status):
    with raw(served, say) as one:
        data = b""
        while more := one.recv(1000):
            data += more
        assert data.split(b" ")[1] == status


def test_one_connection_asks_again_and_again(bench, served):
    with raw(served, b"GET /health HTTP/1.1\r\n\r\n" * 20) as one:
        data = b""
        while data.count(b"ok\n") < 20:
            data += one.recv(4096)
        one.sendall(b"GET /nothing HTTP/1.1\r\n\r\n")
        assert b" 404 " in one.recv(4096)


def test_who_asks_without_end_does_not_take_the_loops_time(bench, served):
    stop = []

    def ask_on():
        with raw(served) as one:
            while not stop:
                one.sendall(b"GET /health HTTP/1.1\r\n\r\n" * 30)
                try:
                    one.recv(65536)
                except OSError:
                    return

    threads = [threading.Thread(target=ask_on, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    given, begin = [], time.monotonic()
    before = served._http._say

    def say(*args, **more):
        given.append(1)
        return before(*args, **more)

    served._http._say = say
    bench.turn(0.6)
    stop.append(1)
    count, took = len(given), time.monotonic() - begin
    assert count <= http.BURST + http.RATE * took + 8
    served.core.counters["x"] = 1
    for thread in threads:
        thread.join(60)


def test_without_descriptors_accept_does_not_spin(bench, served):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    one = raw(served)
    bench.until(lambda: len(served._http._visitors) == 1)
    taken = socket.socket()
    taken.setblocking(False)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken.fileno() + 1, hard))
        host, _, port = served.http.rpartition(":")
        with contextlib.suppress(BlockingIOError):
            taken.connect((host, int(port)))
        before = time.process_time()
        bench.turn(0.5)
        assert time.process_time() - before < 0.4, "a processor was kept busy"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert asked(bench, served, "/health")[0] == 200
    one.close()
    taken.close()
