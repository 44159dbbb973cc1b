"""Reliable links on real sockets: whoever is killed, no frame is missing unless somebody says so."""

import os
import signal
import socket
from struct import pack

import pytest
import zmq

from colo_proto import codec
from colo_proto.codec import LinkAck, LinkHello, LinkStart
from colo_proto.core import Send
from colo_proto.messages import CheckpointWanted, Reason
from runtime_helpers import PATIENCE, frame, frames, number, relay, sink, source, step


def send(shell, some, port="out"):
    shell._do([Send(port, some)])


def sender(bench, name="m0", **options):
    return bench.shell(source(), name, out=bench.ipc("m") + "?server=on&reliable=on", **options)


def receiver(bench, name="f1", **options):
    into = sink()
    return into, bench.shell(into, name, in_=bench.ipc("m") + "?reliable=on", **options)


def acknowledged(shell):
    return shell.links["out"].sender.unacknowledged == 0


class TestWhole:
    def test_frames_arrive_in_order_and_are_freed(self, bench):
        a = sender(bench)
        into, b = receiver(bench)
        for n in range(0, 1000, 10):
            send(a, frames(n, 10))
        bench.until(lambda: len(into.got["in"]) == 1000 and acknowledged(a))
        assert into.got["in"] == frames(0, 1000)
        gauges = a.snapshot().gauges
        assert gauges["link.out.ring_bytes"] == 0
        counters = a.snapshot().counters | b.snapshot().counters
        assert counters["link.out.sequence"] == 1000
        assert counters["link.out.replayed"] == counters["link.out.resets"] == 0
        assert counters.get("link.in.gaps", 0) == counters.get("link.in.duplicates", 0) == 0

    def test_frames_sent_before_anybody_came_are_kept(self, bench):
        a = sender(bench)
        send(a, frames(0, 500))
        into, _ = receiver(bench)
        bench.until(lambda: len(into.got["in"]) == 500)

    def test_the_receiver_may_be_the_bound_end_and_hear_several(self, bench):
        into = sink()
        bench.shell(into, "b", in_=bench.ipc("in") + "?server=on&reliable=on")
        senders = [bench.shell(source(), f"s{i}", out=bench.ipc("in") + "?reliable=on") for i in range(3)]
        for i, one in enumerate(senders):
            send(one, frames(1000 * i, 200))
        bench.until(lambda: len(into.got["in"]) == 600 and all(map(acknowledged, senders)))
        for i in range(3):
            assert [f for f in into.got["in"] if number(f) // 1000 == i] == frames(1000 * i, 200)

    def test_a_slow_receiver_never_stops_the_sender(self, bench):
        a = sender(bench)
        into, b = receiver(bench)
        bench.until(lambda: a.links["out"].sender.attached)
        for n in range(2000):
            send(a, [frame(n, 10_000)])
            step(a)
        assert a.links["out"].sender.ring_bytes > 10 << 20
        bench.until(lambda: len(into.got["in"]) == 2000)
        assert into.got["in"] == [frame(n, 10_000) for n in range(2000)]
        assert b.snapshot().counters.get("link.in.gaps", 0) == 0


class TestKilled:
    def test_the_receiver(self, bench):
        a = sender(bench)
        seen = set()
        sent = 0
        for life in range(5):
            into, b = receiver(bench)
            for _ in range(20):
                send(a, frames(sent, 7))
                sent += 7
                for one in bench.shells:
                    step(one, 0.0)
            bench.until(lambda into=into, life=life: len(into.got["in"]) > 20 * life)
            seen |= set(map(number, into.got["in"]))
            got = list(map(number, into.got["in"]))
            assert got == list(range(got[0], got[0] + len(got)))
            bench.drop(b)
        into, b = receiver(bench)
        bench.until(lambda: acknowledged(a))
        assert seen | set(map(number, into.got["in"])) == set(range(sent))
        assert a.snapshot().counters["link.out.resets"] == 0
        assert b.snapshot().counters.get("link.in.gaps", 0) == 0

    def test_the_sender_is_a_gap_and_the_frame_hears_of_it(self, bench):
        control = bench.zmq(zmq.ROUTER, "inproc://control", bind=True)
        a = sender(bench)
        into, b = receiver(bench, frame="inproc://control")
        send(a, frames(0, 10))
        bench.until(lambda: len(into.got["in"]) == 10)
        bench.drop(a)
        a = sender(bench)
        send(a, frames(10, 10))
        bench.until(lambda: len(into.got["in"]) == 20)
        assert into.got["in"] == frames(0, 20)
        assert b.snapshot().counters["link.in.gaps"] == 1
        wanted = []

        def heard():
            while control.poll(0):
                message = codec.decode(control.recv_multipart()[1])
                if isinstance(message, CheckpointWanted):
                    wanted.append(message)
            return wanted

        bench.until(heard)
        assert [w.reason for w in wanted] == [Reason.MIRROR_GAP]
        assert (wanted[0].source, wanted[0].detail["port"]) == ("f1", "in")

    def test_what_the_ring_could_not_keep_is_a_gap(self, bench):
        a = sender(bench, ring_bytes=100_000)
        into, b = receiver(bench)
        send(a, frames(0, 1))
        bench.until(lambda: into.got["in"] and acknowledged(a))
        bench.drop(b)
        bench.until(lambda: a.snapshot().gauges["link.out.peers"] == 0)
        for n in range(1, 101):
            send(a, [frame(n, 10_000)])
        counters = a.snapshot().counters
        assert counters["link.out.evicted"] > 80
        assert a.links["out"].sender.ring_bytes <= 100_000
        into, b = receiver(bench)
        bench.until(lambda: into.got["in"] and number(into.got["in"][-1]) == 100)
        assert b.snapshot().counters["link.in.gaps"] == 1
        assert number(into.got["in"][0]) == counters["link.out.evicted"] + 1

    def test_a_relay_loses_nothing_and_reports_no_gap(self, bench):
        a = sender(bench)
        into = sink()
        c = bench.shell(into, "rew0", in_=bench.ipc("r") + "?reliable=on")
        seen = set()
        sent = 0

        def middle():
            return bench.shell(
                relay(), "f1", indev=bench.ipc("m") + "?reliable=on", outdev=bench.ipc("r") + "?server=on&reliable=on"
            )

        for life in range(4):
            b = middle()
            for _ in range(30):
                send(a, frames(sent, 5))
                sent += 5
                for one in bench.shells:
                    step(one, 0.0)
            bench.until(lambda life=life: len(into.got["in"]) > 100 * life)
            bench.drop(b)
        middle()
        bench.until(lambda: acknowledged(a))
        seen = set(map(number, into.got["in"]))
        assert seen == set(range(sent))
        assert c.snapshot().counters.get("link.in.gaps", 0) == 0

    def test_a_relay_acknowledges_only_what_its_output_has_got_acknowledged(self, bench):
        a = sender(bench)
        middle = relay()
        bench.shell(
            middle, "f1", indev=bench.ipc("m") + "?reliable=on", outdev=bench.ipc("r") + "?server=on&reliable=on"
        )
        send(a, frames(0, 200))
        bench.until(lambda: len(middle.got["indev"]) == 200)
        bench.turn(0.1)
        assert a.links["out"].sender.acked == 0
        into = sink()
        bench.shell(into, "rew0", in_=bench.ipc("r") + "?reliable=on")
        bench.until(lambda: acknowledged(a))
        assert into.got["in"] == frames(0, 200)


@pytest.mark.slow
class TestRealProcesses:
    """SIGKILL, and a peer that is only paused."""

    def feed(self, one: socket.socket, first: int, count: int) -> None:
        for some in frames(first, count):
            one.sendall(pack("!I", len(some) - 10) + some[10:])

    def take(self, one: socket.socket, got: list[int], until: int) -> None:
        while not got or got[-1] < until:
            (length,) = [int.from_bytes(one.recv(4, socket.MSG_WAITALL), "big")]
            got.append(number(bytes(10) + one.recv(length, socket.MSG_WAITALL)))

    @pytest.mark.parametrize("victim", ["f1", "relay"])
    def test_sigkill(self, bench, victim):
        mirror = (
            "mirror", "--id", "m0", "--netdev", f"chardev+unix://{bench.path('a')}?server=on",
            "--next", f"pcap://{os.devnull}", "--outdev", bench.ipc("m") + "?server=on&reliable=on",
        )  # fmt: skip
        end = ("redirector", "--id", "f1", "--netdev", f"chardev+unix://{bench.path('c')}?server=on")
        hop = ("redirector", "--id", "relay", "--indev", bench.ipc("m") + "?reliable=on",
               "--outdev", bench.ipc("r") + "?server=on&reliable=on")  # fmt: skip
        bench.colo(*mirror)
        if victim == "relay":
            killed = bench.colo(*hop)
            bench.colo(*end, "--indev", bench.ipc("r") + "?reliable=on")
        else:
            killed = bench.colo(*end, "--indev", bench.ipc("m") + "?reliable=on")
        into, out = bench.unix(bench.path("a")), bench.unix(bench.path("c"))
        got: list[int] = []
        self.feed(into, 0, 300)
        self.take(out, got, 100)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        bench.children.remove(killed)
        self.feed(into, 300, 300)
        bench.colo(*(str(a) for a in killed.args[4:]))
        if victim == "f1":
            # The dead process took its socket along; read what it had sent, then turn to the new one.
            out.settimeout(1)
            while (head := out.recv(4, socket.MSG_WAITALL)) and len(head) == 4:
                body = out.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
                if len(body) < 60:
                    break
                got.append(number(bytes(10) + body))
            out = bench.unix(bench.path("c"))
        self.take(out, got, 599)
        assert set(got) == set(range(600))

    def test_sigstop_is_only_a_pause(self, bench):
        a = sender(bench)
        child = bench.colo(
            "redirector", "--id", "f1", "--netdev", f"chardev+unix://{bench.path('c')}?server=on",
            "--indev", bench.ipc("m") + "?reliable=on",
        )  # fmt: skip
        out = bench.unix(bench.path("c"))
        send(a, frames(0, 1))
        bench.until(lambda: acknowledged(a))
        child.send_signal(signal.SIGSTOP)
        for n in range(1, 500):
            send(a, frames(n, 1))
            step(a)
        child.send_signal(signal.SIGCONT)
        bench.until(lambda: acknowledged(a))
        got: list[int] = []
        out.settimeout(PATIENCE)
        self.take(out, got, 499)
        assert got == list(range(500))


class TestPeers:
    def test_a_second_receiver_is_refused_while_the_first_is_there(self, bench):
        a = sender(bench)
        into, _ = receiver(bench)
        send(a, frames(0, 1))
        bench.until(lambda: into.got["in"])
        other, _ = receiver(bench, "intruder")
        bench.until(lambda: a.snapshot().counters.get("link.out.wire_errors.second_receiver"))
        send(a, frames(1, 50))
        bench.until(lambda: len(into.got["in"]) == 51)
        assert other.got["in"] == []

    def test_batches_only_after_the_hello_was_answered(self, bench):
        a = sender(bench)
        send(a, frames(0, 3))
        peer = bench.zmq(zmq.DEALER, bench.ipc("m"), identity=b"f1")
        bench.until(lambda: a.snapshot().gauges["link.out.peers"] == 1)
        bench.turn(0.05)
        assert not peer.poll(0)
        peer.send(codec.encode(LinkHello("", 0, -1)))
        bench.until(lambda: peer.poll(0))
        answer = codec.decode(peer.recv())
        assert answer == LinkStart("m0.out", a.context.incarnation, 0)
        bench.until(lambda: peer.poll(0))
        assert codec.decode(peer.recv()).frames == frames(0, 3)
        peer.send(codec.encode(LinkAck("m0.out", a.context.incarnation, 2)))
        bench.until(lambda: a.links["out"].sender.acked == 2)

    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            (codec.encode_batch("x", 1, 0, 0, 0.0, frames(0, 1)), "unexpected"),
            (b"\xc1", "undecodable"),
        ],
    )
    def test_garbage_at_the_sender(self, bench, message, reason):
        a = sender(bench)
        into, _ = receiver(bench)
        bad = bench.zmq(zmq.DEALER, bench.ipc("m"))
        for _ in range(10):
            bad.send(message)
        bad.send_multipart([b"a", b"b"])
        bench.until(lambda: a.snapshot().counters.get("link.out.wire_errors.multipart"))
        assert a.snapshot().counters[f"link.out.wire_errors.{reason}"] == 10
        send(a, frames(0, 3))
        bench.until(lambda: len(into.got["in"]) == 3)

    def test_absurd_acknowledgements_are_refused(self, bench):
        a = sender(bench)
        peer = bench.zmq(zmq.DEALER, bench.ipc("m"), identity=b"f1")
        peer.send(codec.encode(LinkHello("", 0, -1)))
        peer.send(codec.encode(LinkAck("", a.context.incarnation, 1 << 40)))
        peer.send(codec.encode(LinkHello("", a.context.incarnation, 1 << 40)))
        bench.until(lambda: a.snapshot().counters.get("link.out.wire_errors.hello_range"))
        assert a.snapshot().counters["link.out.wire_errors.ack_range"] == 1

    def test_garbage_at_the_receiver(self, bench):
        router = bench.zmq(zmq.ROUTER, bench.ipc("m"), bind=True)
        into, b = receiver(bench)
        bench.until(lambda: router.poll(0))
        peer, hello = router.recv_multipart()
        assert isinstance(codec.decode(hello), LinkHello)
        router.send_multipart([peer, b"\xc1"])
        router.send_multipart([peer, codec.encode(LinkAck("x", 1, 1))])
        router.send_multipart([peer, codec.encode_batch("x", 5, 0, 0, 0.0, frames(0, 1))])
        router.send_multipart([peer, codec.encode(LinkStart("x", 5, 3))])
        router.send_multipart([peer, codec.encode_batch("x", 5, 3, 0, 0.0, frames(3, 1))])
        bench.until(lambda: into.got["in"])
        assert into.got["in"] == frames(3, 1)
        counters = b.snapshot().counters
        assert counters["link.in.wire_errors.undecodable"] == counters["link.in.wire_errors.unexpected"] == 1
