"""Plain ZeroMQ links: batches, bounds, order, garbage."""

import msgpack
import pytest
import zmq

from colo_proto import codec
from colo_proto.core import Send, Way
from colo_proto.frame import MAX_FRAME
from runtime_helpers import frame, frames, free_port, sink, source, step


def send(shell, some, port="out"):
    shell._do([Send(port, some)])


@pytest.fixture(params=["inproc", "ipc", "tcp"])
def pair(request, bench):
    """A bound sender and a connected receiver."""
    address = {"inproc": "inproc://a", "ipc": bench.ipc("a"), "tcp": f"tcp://127.0.0.1:{free_port()}"}[request.param]
    out, into = source(), sink()
    a = bench.shell(out, "a", out=address + "?server=on")
    b = bench.shell(into, "b", in_=address)
    return bench, a, b, into


def test_frames_arrive_in_order(pair):
    bench, a, b, into = pair
    for n in range(0, 100, 10):
        send(a, frames(n, 10))
    bench.until(lambda: len(into.got["in"]) == 100)
    assert into.got["in"] == frames(0, 100)
    counters = b.snapshot().counters
    assert counters["link.in.frames_in"] == 100
    assert counters["link.in.bytes_in"] == 100 * 70
    assert counters.get("link.in.lost", 0) == 0
    assert a.snapshot().counters["link.out.sequence"] == 100


def test_one_call_is_one_message_within_the_limits(bench):
    out = source()
    a = bench.shell(out, "a", out="inproc://a?server=on")
    peer = bench.zmq(zmq.DEALER, "inproc://a")
    send(a, frames(0, 64))
    send(a, frames(64, 65))
    send(a, [frame(n, 65000) for n in range(10)])
    got = [codec.decode(peer.recv()) for _ in range(5)]
    assert [len(batch.frames) for batch in got] == [64, 64, 1, 5, 5]
    assert [batch.sequence for batch in got] == [0, 64, 128, 129, 134]
    assert {batch.link for batch in got} == {"a.out"}
    assert {batch.incarnation for batch in got} == {a.context.incarnation}


def test_batches_carry_the_epoch(bench):
    a = bench.shell(source(), "a", out="inproc://a?server=on")
    peer = bench.zmq(zmq.DEALER, "inproc://a")
    a.context.epoch = 7
    send(a, frames(0, 1))
    assert codec.decode(peer.recv()).epoch == 7


def test_a_receiver_takes_at_most_a_batch_at_a_time(pair):
    bench, a, _, into = pair
    for n in range(200):
        send(a, frames(n, 1))
    bench.until(lambda: len(into.got["in"]) == 200)
    assert max(count for _, count in into.batches) <= 64


def test_the_largest_frame_passes(pair):
    bench, a, _, into = pair
    big = bytes(MAX_FRAME)
    send(a, [big])
    bench.until(lambda: into.got["in"])
    assert into.got["in"] == [big]


def test_bytearrays_and_views_are_sent_as_they_are(pair):
    bench, a, _, into = pair
    send(a, [bytearray(frame(1)), memoryview(frame(2))])
    bench.until(lambda: into.got["in"])
    assert into.got["in"] == frames(1, 2)


class TestBound:
    def test_while_nobody_is_there_frames_wait_up_to_the_bound_then_the_newest_is_dropped(self, bench):
        a = bench.shell(source(), "a", out=bench.ipc("a") + "?server=on", queue_bytes=65536)
        for n in range(10):
            send(a, [frame(n, 10_000)])
        counters = a.snapshot().counters
        assert counters["link.out.dropped.queue_full"] == counters["link.out.dropped"] == 4
        assert 50_000 < a.links["out"].pending <= 65536
        assert len(a.log.events("frames.dropped")) == 1
        into = sink()
        b = bench.shell(into, "b", in_=bench.ipc("a"))
        bench.until(lambda: len(into.got["in"]) == 6)
        assert a.links["out"].pending == 0
        # What was dropped here is counted here, and not by the receiver a second time.
        send(a, [frame(10)])
        bench.until(lambda: len(into.got["in"]) == 7)
        assert b.snapshot().counters.get("link.in.lost", 0) == 0

    def test_a_receiver_that_stands_still_costs_memory_up_to_the_bound_only(self, bench):
        a = bench.shell(source(), "a", out=bench.ipc("a") + "?server=on", queue_bytes=1 << 20)
        into = sink()
        bench.shell(into, "b", in_=bench.ipc("a"))
        send(a, frames(0, 1))
        bench.until(lambda: into.got["in"])
        for n in range(1, 1500):
            send(a, [frame(n, 20_000)])
            step(a)
        dropped = a.snapshot().counters["link.out.dropped.queue_full"]
        assert dropped > 0
        assert a.links["out"].pending <= 1 << 20
        bench.until(lambda: len(into.got["in"]) == 1500 - dropped)


def test_what_a_cut_link_lost_is_known_when_it_is_back(bench):
    """Also when nothing follows: a sender that is connected again says how far it has counted."""
    into = sink()
    b = bench.shell(into, "b", in_=bench.ipc("in") + "?server=on")
    a = bench.shell(source(), "a", out=bench.ipc("in"))
    send(a, frames(0, 3))
    bench.until(lambda: len(into.got["in"]) == 3)
    # As if they had been on the wire when it was cut.
    a.links["out"]._sequence += 5
    socket = a.links["out"]._wire.socket
    socket.disconnect(bench.ipc("in"))
    bench.until(lambda: not b.snapshot().gauges["link.in.peers"])
    socket.connect(bench.ipc("in"))
    bench.until(lambda: b.snapshot().counters.get("link.in.lost", 0) == 5)
    assert into.got["in"] == frames(0, 3)


def test_a_bound_input_hears_all_senders(bench):
    into = sink()
    bench.shell(into, "b", in_=bench.ipc("in") + "?server=on")
    senders = [bench.shell(source(), f"s{i}", out=bench.ipc("in")) for i in range(3)]
    for i, one in enumerate(senders):
        send(one, frames(100 * i, 50))
    bench.until(lambda: len(into.got["in"]) == 150)
    assert sorted(into.got["in"]) == sorted(frames(0, 50) + frames(100, 50) + frames(200, 50))


def test_a_restarted_sender_begins_anew_and_that_is_no_loss(bench):
    into = sink()
    b = bench.shell(into, "b", in_=bench.ipc("in") + "?server=on")
    for _ in range(2):
        one = bench.shell(source(), "s", out=bench.ipc("in"))
        before = len(into.got["in"])
        send(one, frames(0, 5))
        bench.until(lambda before=before: len(into.got["in"]) == before + 5)
        bench.drop(one)
    assert b.snapshot().counters.get("link.in.lost", 0) == 0


def test_both_ways_on_one_link(bench):
    left, right = source(port=Way.BOTH), source(port=Way.BOTH)
    a = bench.shell(left, "a", port="inproc://x?server=on")
    b = bench.shell(right, "b", port="inproc://x")
    send(a, frames(0, 3), "port")
    send(b, frames(5, 3), "port")
    bench.until(lambda: left.got["port"] and right.got["port"])
    assert (left.got["port"], right.got["port"]) == (frames(5, 3), frames(0, 3))


GOOD = codec.encode_batch("x", 1, 0, 0, 0.0, [frame(1)])
GARBAGE = {
    "undecodable": b"\xc1\xff random bytes",
    "malformed": msgpack.packb([1]),
    "version": msgpack.packb([2, 0, "l", 1, 0, 0, 0.0, []]),
    "kind": msgpack.packb([1, 99]),
    "frame": codec.encode_batch("x", 1, 0, 0, 0.0, [b"short"]),
    "oversized": codec.encode_batch("x", 1, 0, 0, 0.0, [frame(1)] * 65),
    "unexpected": codec.encode(codec.messages.Drain()),
}


@pytest.mark.parametrize("reason", GARBAGE)
def test_garbage_is_counted_logged_once_and_harms_nobody(bench, reason):
    into = sink(**{"in": Way.IN, "other": Way.IN})
    b = bench.shell(into, "b", in_=bench.ipc("in") + "?server=on", other="inproc://other?server=on")
    bad = bench.zmq(zmq.DEALER, bench.ipc("in"))
    for _ in range(20):
        bad.send(GARBAGE[reason])
    bad.send(GOOD)
    bench.zmq(zmq.DEALER, "inproc://other").send(GOOD)
    bench.until(lambda: into.got["in"] and into.got["other"])
    assert b.snapshot().counters[f"link.in.wire_errors.{reason}"] == 20
    assert len(b.log.events("message.refused")) == 1
    assert into.got["in"] == [frame(1)]


def test_truncated_batches_are_counted(bench):
    into = sink()
    b = bench.shell(into, "b", in_="inproc://in?server=on")
    bad = bench.zmq(zmq.DEALER, "inproc://in")
    for size in range(1, len(GOOD)):
        bad.send(GOOD[:size])
    bad.send(GOOD)
    bench.until(lambda: into.got["in"])
    total = sum(n for name, n in b.snapshot().counters.items() if "wire_errors" in name)
    assert total == len(GOOD) - 1


def test_a_message_of_several_parts_is_one_error(bench):
    into = sink()
    b = bench.shell(into, "b", in_="inproc://in?server=on")
    bad = bench.zmq(zmq.DEALER, "inproc://in")
    bad.send_multipart([GOOD, GOOD, GOOD])
    bad.send(GOOD)
    bench.until(lambda: into.got["in"])
    assert into.got["in"] == [frame(1)]
    assert b.snapshot().counters["link.in.wire_errors.multipart"] == 1


def test_an_oversized_message_is_counted_and_a_monstrous_one_costs_its_sender_the_connection(bench):
    into = sink()
    b = bench.shell(into, "b", in_=bench.ipc("in") + "?server=on")
    bad = bench.zmq(zmq.DEALER, bench.ipc("in"))
    bad.send(bytes(codec.MAX_MESSAGE + 1))
    bad.send(bytes(16 << 20))
    good = bench.zmq(zmq.DEALER, bench.ipc("in"))
    good.send(GOOD)
    bench.until(lambda: into.got["in"] and b.snapshot().counters.get("link.in.wire_errors.oversized"))


def test_bytes_that_are_not_zmtp_are_counted(bench):
    into = sink()
    b = bench.shell(into, "b", in_=bench.ipc("in") + "?server=on")
    raw = bench.unix(bench.path("in.sock"))
    raw.sendall(b"\xff" + bytes(8) + b"\x7f" + b"GET / HTTP/1.1\r\n\r\n" * 20)
    bench.until(lambda: b.snapshot().counters.get("link.in.wire_errors.handshake"))
    bench.zmq(zmq.DEALER, bench.ipc("in")).send(GOOD)
    bench.until(lambda: into.got["in"])


def test_frames_on_an_output_are_refused(bench):
    a = bench.shell(source(), "a", out="inproc://a?server=on")
    bench.zmq(zmq.DEALER, "inproc://a").send(GOOD)
    bench.until(lambda: a.snapshot().counters.get("link.out.wire_errors.unexpected"))


def test_the_number_of_peers_is_a_gauge(bench):
    b = bench.shell(sink(), "b", in_=bench.ipc("in") + "?server=on")
    one = bench.shell(source(), "a", out=bench.ipc("in"))
    bench.until(lambda: b.snapshot().gauges["link.in.peers"] == 1)
    bench.drop(one)
    bench.until(lambda: b.snapshot().gauges["link.in.peers"] == 0)


@pytest.mark.parametrize("bound", ["sender", "receiver"])
def test_what_was_sent_before_a_drain_arrives(bench, bound):
    for life in range(20):
        one, other = bench.ipc(f"d{life}") + "?server=on", bench.ipc(f"d{life}")
        into = sink()
        b = bench.shell(into, "b", in_=one if bound == "receiver" else other)
        a = bench.shell(source(), "a", out=one if bound == "sender" else other)
        send(a, frames(0, 3))
        bench.until(lambda into=into: into.got["in"])
        send(a, frames(3, 50))
        a.drain("test")
        bench.until(lambda a=a: a.done, [a])
        bench.drop(a)
        bench.until(lambda into=into: len(into.got["in"]) == 53, [b])
        assert b.snapshot().counters.get("link.in.lost", 0) == 0
        bench.drop(b)
