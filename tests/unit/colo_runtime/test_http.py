"""/metrics, /health and /ready, asked over real HTTP while the loop turns, and while it does not."""

import socket
import threading
import time
from http.client import HTTPConnection
from struct import pack

import pytest
import zmq
from prometheus_client.parser import text_string_to_metric_families

from colo_proto import codec
from colo_proto.core import Way
from colo_proto.messages import Welcome
from colo_runtime import http
from colo_runtime.link import StartError
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
    bench.until(lambda: not any("process_request" in thread.name for thread in threading.enumerate()))
    assert capfd.readouterr().err == ""
