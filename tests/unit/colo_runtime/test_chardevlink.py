"""QEMU's byte streams on real sockets: any cut, reconnects, garbage, one peer at a time, one that does not read."""

import socket
from contextlib import suppress
from struct import pack

import pytest

import craft
from colo_proto.chardev import ChardevParser
from colo_proto.core import Send, Way
from colo_proto.frame import F_NEEDS_CSUM, NO_OFFLOAD
from craft import VnetHdr
from runtime_helpers import frame, frames, free_port, sink, source, step


def framed(*some, vnet_hdr=False):
    """Frames as QEMU writes them."""
    if vnet_hdr:
        return b"".join(pack("!II", len(one), 10) + one for one in some)
    return b"".join(pack("!I", len(one) - 10) + one[10:] for one in some)


def count(shell, name):
    return shell.snapshot().counters.get(name, 0)


@pytest.fixture
def inlet(bench):
    """A listening input, its core, and a way to connect."""
    core = sink()
    shell = bench.shell(core, "b", in_=f"chardev+unix://{bench.path('a')}?server=on")
    return core.got["in"], shell, lambda: bench.unix(bench.path("a"))


def receive(one, count, vnet_hdr=False):
    """Read `count` frames from a blocking socket."""
    parser, got = ChardevParser({}, vnet_hdr=vnet_hdr), []
    while len(got) < count:
        data = one.recv(1 << 16)
        assert data
        got += parser.feed(data)
    return got


class TestIn:
    def test_byte_by_byte(self, bench, inlet):
        got, shell, connect = inlet
        peer = connect()
        for byte in framed(*frames(0, 3)):
            peer.send(bytes([byte]))
            step(shell, 0.0)
        bench.until(lambda: len(got) == 3)
        assert got == frames(0, 3)

    def test_many_in_one_write(self, bench, inlet):
        got, shell, connect = inlet
        connect().sendall(framed(*frames(0, 500)))
        bench.until(lambda: len(got) == 500)
        assert got == frames(0, 500)
        assert max(n for _, n in shell.core.batches) <= 64
        assert count(shell, "link.in.frames_in") == 500
        assert count(shell, "link.in.bytes_in") == 500 * 70

    def test_half_a_frame_then_a_new_connection(self, bench, inlet):
        got, shell, connect = inlet
        peer = connect()
        peer.sendall(framed(frame(0)) + framed(frame(1))[:30])
        bench.until(lambda: got)
        peer.close()
        bench.until(lambda: count(shell, "link.in.truncated"))
        connect().sendall(framed(*frames(2, 2)))
        bench.until(lambda: len(got) == 3)
        assert got == [frame(0), *frames(2, 2)]

    def test_length_zero_is_skipped(self, bench, inlet):
        got, shell, connect = inlet
        peer = connect()
        peer.sendall(bytes(4) + framed(frame(0)) + bytes(8) + framed(frame(1)))
        bench.until(lambda: len(got) == 2)
        assert got == frames(0, 2)
        assert count(shell, "link.in.wire_errors.empty") == 3
        assert len(shell.log.events("frame.refused")) == 1

    def test_the_largest_length_that_qemu_accepts(self, bench, inlet):
        got, shell, connect = inlet
        peer = connect()
        # More than a frame can be, so it is left out; but the connection is good.
        peer.sendall(pack("!I", 69632) + bytes(69632) + framed(frame(0)))
        bench.until(lambda: got)
        assert got == [frame(0)]
        assert count(shell, "link.in.wire_errors.giant") == 1

    def test_one_more_ends_the_connection_and_the_next_is_good(self, bench, inlet):
        got, shell, connect = inlet
        peer = connect()
        peer.sendall(framed(frame(0)) + pack("!I", 69633) + bytes(100))
        bench.until(lambda: count(shell, "link.in.wire_errors.oversized"))
        peer.settimeout(60)
        with pytest.raises(ConnectionError):
            while peer.send(b"x"):
                step(shell, 0.01)
        connect().sendall(framed(frame(1)))
        bench.until(lambda: len(got) == 2)
        assert got == frames(0, 2)

    def test_runts_are_left_out(self, bench, inlet):
        got, shell, connect = inlet
        connect().sendall(pack("!I", 13) + bytes(13) + framed(frame(0)))
        bench.until(lambda: got)
        assert count(shell, "link.in.wire_errors.runt") == 1

    def test_random_bytes_harm_neither_the_process_nor_its_other_links(self, bench):
        core = sink(bad=Way.IN, good=Way.IN)
        shell = bench.shell(
            core,
            "b",
            bad=f"chardev+unix://{bench.path('a')}?server=on",
            good=f"chardev+unix://{bench.path('g')}?server=on",
        )
        good = bench.unix(bench.path("g"))
        for life in range(20):
            peer = bench.unix(bench.path("a"))
            # Every first length is beyond all bounds.
            peer.sendall(b"\xff" + bytes(range(life, life + 200)))
            bench.until(lambda life=life: count(shell, "link.bad.wire_errors.oversized") == life + 1)
            peer.close()
        assert len(shell.log.events("message.refused")) == 1
        good.sendall(framed(*frames(0, 3)))
        bench.until(lambda: len(core.got["good"]) == 3)
        assert core.got["bad"] == []

    def test_a_second_client_waits_for_the_first_to_leave(self, bench, inlet):
        got, shell, connect = inlet
        first, second = connect(), connect()
        second.sendall(framed(frame(100)))
        first.sendall(framed(frame(0)))
        bench.until(lambda: got)
        bench.turn(0.1)
        assert got == [frame(0)]
        assert shell.snapshot().gauges["link.in.peers"] == 1
        first.close()
        bench.until(lambda: len(got) == 2)
        assert got == [frame(0), frame(100)]

    def test_tcp(self, bench):
        port = free_port()
        core = sink()
        bench.shell(core, "b", in_=f"chardev+tcp://127.0.0.1:{port}?server=on")
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(framed(*frames(0, 10)))
            bench.until(lambda: len(core.got["in"]) == 10)
        assert core.got["in"] == frames(0, 10)

    def test_a_client_connects_whenever_the_server_comes_and_again(self, bench):
        core = sink()
        shell = bench.shell(core, "b", in_=f"chardev+unix://{bench.path('s')}")
        bench.turn(0.05)
        for life in range(3):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(bench.path("s"))
                listener.listen()
                listener.setblocking(False)
                peers = []

                def accept(listener=listener, peers=peers):
                    try:
                        peers.append(listener.accept()[0])
                    except BlockingIOError:
                        return False
                    return True

                bench.until(accept)
                peers[0].sendall(framed(frame(life)))
                bench.until(lambda life=life: len(core.got["in"]) == life + 1)
                peers[0].close()
            bench.until(lambda: not shell.snapshot().gauges["link.in.peers"])
            (bench.directory / "s").unlink()
        assert core.got["in"] == frames(0, 3)


class TestVnetHdr:
    def test_headers_of_every_length(self, bench):
        core = sink()
        bench.shell(core, "b", in_=f"chardev+unix://{bench.path('a')}?server=on&vnet_hdr=on")
        peer = bench.unix(bench.path("a"))
        hdr = VnetHdr(F_NEEDS_CSUM, csum_start=34, csum_offset=16).encode()
        ether = frame(1)[10:]
        for length in (10, 12, 20):
            body = hdr + bytes(length - 10) + ether
            peer.sendall(pack("!II", len(body), length) + body)
        peer.sendall(pack("!II", len(ether), 0) + ether)
        bench.until(lambda: len(core.got["in"]) == 4)
        assert core.got["in"] == [hdr + ether] * 3 + [NO_OFFLOAD + ether]

    def test_an_absurd_header_length(self, bench):
        core = sink()
        shell = bench.shell(core, "b", in_=f"chardev+unix://{bench.path('a')}?server=on&vnet_hdr=on")
        peer = bench.unix(bench.path("a"))
        peer.sendall(pack("!II", 60, 0xFFFFFFFF) + bytes(60) + framed(frame(1), vnet_hdr=True))
        bench.until(lambda: core.got["in"])
        assert core.got["in"] == [frame(1)]
        assert count(shell, "link.in.wire_errors.vnet_hdr_len") == 1

    def test_what_leaves_has_the_length_that_came_in_last(self, bench):
        core = sink(**{"in": Way.IN, "out": Way.OUT})
        core.react = lambda _port, batch: [Send("out", batch)]
        bench.shell(
            core, "b", in_=f"chardev+unix://{bench.path('a')}?server=on&vnet_hdr=on",
            out=f"chardev+unix://{bench.path('o')}?server=on&vnet_hdr=on",
        )  # fmt: skip
        into, out = bench.unix(bench.path("a")), bench.unix(bench.path("o"))
        bench.until(lambda: bench.shells[0].snapshot().gauges["link.out.peers"])
        for length in (10, 12, 20):
            body = bytes(length) + frame(length)[10:]
            into.sendall(pack("!II", len(body), length) + body)
            bench.until(lambda length=length: core.got["in"] and core.got["in"][-1] == frame(length))
            assert out.recv(8, socket.MSG_WAITALL) == pack("!II", len(body), length)
            assert out.recv(len(body), socket.MSG_WAITALL) == body

    def test_without_it_offloads_are_done_here(self, bench):
        shell = bench.shell(source(), "a", out=f"chardev+unix://{bench.path('o')}?server=on")
        out = bench.unix(bench.path("o"))
        bench.until(lambda: shell.snapshot().gauges["link.out.peers"])
        big = craft.tcp("10.0.0.1", "10.0.0.2", 1, 2, 3, 4, 16, bytes(5000), gso=1400)
        shell._do([Send("out", [big, frame(1)])])
        got = receive(out, 5)
        assert [len(one) for one in got] == [10 + 54 + 1400] * 3 + [10 + 54 + 800, 70]
        bad = VnetHdr(gso_type=99, gso_size=5).encode() + frame(1)[10:]
        shell._do([Send("out", [bad])])
        assert count(shell, "link.out.dropped.offload") == 1


class TestOut:
    def outlet(self, bench, **options):
        return bench.shell(source(), "a", out=f"chardev+unix://{bench.path('o')}?server=on", **options)

    def test_without_a_peer_frames_are_dropped_by_reason(self, bench):
        shell = self.outlet(bench)
        shell._do([Send("out", frames(0, 5))])
        assert count(shell, "link.out.dropped.disconnected") == 5
        assert count(shell, "link.out.frames_out") == 5

    def test_a_peer_that_does_not_read(self, bench):
        shell = self.outlet(bench, queue_bytes=1 << 20)
        peer = bench.unix(bench.path("o"))
        bench.until(lambda: shell.snapshot().gauges["link.out.peers"])
        sent = 0
        while not count(shell, "link.out.dropped.queue_full"):
            shell._do([Send("out", [frame(sent, 8000)])])
            sent += 1
            assert sent < 10_000
        assert shell.links["out"].pending <= 1 << 20
        assert shell.snapshot().gauges["link.out.queue_bytes"] == shell.links["out"].pending
        kept = sent - 1
        peer.setblocking(False)
        parser, got = ChardevParser({}), []

        def read():
            with suppress(BlockingIOError):
                got.extend(parser.feed(peer.recv(1 << 20)))
            return len(got) == kept

        bench.until(read)
        # Whole frames, none garbled by the one that was left out.
        assert got == frames(0, kept, 8000)
        bench.until(lambda: shell.links["out"].pending == 0)
        shell._do([Send("out", [frame(7)])])
        bench.until(lambda: read() or got[-1] == frame(7))

    def test_a_peer_that_leaves_with_a_queue(self, bench):
        shell = self.outlet(bench)
        peer = bench.unix(bench.path("o"))
        bench.until(lambda: shell.snapshot().gauges["link.out.peers"])
        for n in range(200):
            shell._do([Send("out", [frame(n, 8000)])])
        assert shell.links["out"].pending
        peer.close()
        bench.until(lambda: count(shell, "link.out.dropped.disconnected"))
        assert shell.links["out"].pending == 0
        again = bench.unix(bench.path("o"))
        bench.until(lambda: shell.snapshot().gauges["link.out.peers"])
        shell._do([Send("out", frames(0, 3))])
        # The new peer gets whole frames only, not the tail of what was on its way to the other.
        assert receive(again, 3) == frames(0, 3)

    def test_what_an_outputs_peer_says_is_read_and_ignored(self, bench):
        shell = self.outlet(bench)
        peer = bench.unix(bench.path("o"))
        peer.sendall(framed(*frames(0, 3)))
        bench.until(lambda: count(shell, "link.out.ignored_bytes") == 3 * 64)
        assert not count(shell, "link.out.frames_in")

    def test_draining_reads_on_but_takes_nothing(self, bench):
        core = sink()
        shell = bench.shell(core, "b", in_=f"chardev+unix://{bench.path('a')}?server=on")
        peer = bench.unix(bench.path("a"))
        peer.sendall(framed(frame(0)))
        bench.until(lambda: core.got["in"])
        shell.links["in"].stop_reading()
        peer.sendall(framed(*frames(1, 3)))
        bench.until(lambda: count(shell, "link.in.ignored_bytes"))
        assert core.got["in"] == [frame(0)]

    def test_both_ways_on_one_connection(self, bench):
        core = source(port=Way.BOTH)
        shell = bench.shell(core, "a", port=f"chardev+unix://{bench.path('p')}?server=on")
        peer = bench.unix(bench.path("p"))
        peer.sendall(framed(frame(1)))
        bench.until(lambda: core.got["port"])
        shell._do([Send("port", [frame(2)])])
        assert receive(peer, 1) == [frame(2)]
