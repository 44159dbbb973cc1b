"""Captures as links: offline runs from file to file, which end by themselves."""

import pytest

import craft
from colo_proto.core import Send, Way
from colo_proto.errors import ConfigError
from colo_runtime.capture import CaptureWriter, read_capture
from craft import VnetHdr
from runtime_helpers import frame, frames, relay, sink, source


@pytest.fixture
def file(bench):
    def write(*some, name="in.pcap", tail=b""):
        path = bench.path(name)
        with open(path, "wb") as out:
            writer = CaptureWriter(out)
            for one in some:
                writer.write(one[10:], 1.0)
            out.write(tail)
        return path

    return write


def written(path):
    with open(path, "rb") as into:
        return list(read_capture(into))


def count(shell, name):
    return shell.snapshot().counters.get(name, 0)


def test_from_file_to_file_and_the_process_is_done(bench, file):
    core = relay()
    shell = bench.shell(core, "x", indev="pcap://" + file(*frames(0, 500)), outdev=f"pcap://{bench.path('out.pcap')}")
    bench.until(lambda: shell.done)
    assert shell.status == 0
    assert core.got["indev"] == frames(0, 500)
    assert max(n for _, n in core.batches) <= 64
    bench.drop(shell)
    assert written(bench.path("out.pcap")) == [one[10:] for one in frames(0, 500)]
    assert shell.log.events("capture.ended") == [{"port": "indev", "frames": 500}]


def test_an_empty_capture_ends_at_once(bench, file):
    shell = bench.shell(relay(), "x", indev="pcap://" + file(), outdev=f"pcap://{bench.path('out.pcap')}")
    bench.until(lambda: shell.done)


def test_the_process_ends_when_all_captures_have(bench, file):
    core = sink(a=Way.IN, b=Way.IN)
    shell = bench.shell(
        core, "x", a="pcap://" + file(*frames(0, 3)), b="pcap://" + file(*frames(5, 300), name="b.pcap")
    )
    bench.until(lambda: shell.done)
    assert (len(core.got["a"]), len(core.got["b"])) == (3, 300)


def test_it_lives_on_when_another_input_is_no_capture(bench, file):
    core = sink(a=Way.IN, b=Way.IN)
    shell = bench.shell(core, "x", a="pcap://" + file(*frames(0, 3)), b="inproc://b?server=on")
    bench.until(lambda: shell.log.events("capture.ended"))
    bench.turn(0.05)
    assert not shell.done


def test_reading_waits_for_a_slow_output(bench, file):
    core = relay()
    shell = bench.shell(core, "x", indev="pcap://" + file(*frames(0, 1000, 8000)), outdev=bench.ipc("o") + "?server=on")
    bench.turn(0.2)
    # Nobody is there: some is queued, nothing dropped, the rest is still in the file.
    assert 0 < len(core.got["indev"]) < 1000
    assert not count(shell, "link.outdev.dropped")
    into = sink()
    bench.shell(into, "y", in_=bench.ipc("o"))
    bench.until(lambda: len(into.got["in"]) == 1000)
    assert into.got["in"] == frames(0, 1000, 8000)


def test_a_damaged_tail_is_counted_and_ends_it(bench, file):
    core = relay()
    path = file(*frames(0, 3), tail=b"\1\2\3")
    shell = bench.shell(core, "x", indev="pcap://" + path, outdev=f"pcap://{bench.path('out.pcap')}")
    bench.until(lambda: shell.done)
    assert core.got["indev"] == frames(0, 3)
    assert count(shell, "link.indev.wire_errors.truncated") == 1


def test_frames_of_impossible_length_are_dropped_by_reason(bench, file):
    core = relay()
    path = file(frame(0), bytes(10 + 13), bytes(10 + 70_000), frame(1))
    shell = bench.shell(core, "x", indev="pcap://" + path, outdev=f"pcap://{bench.path('out.pcap')}")
    bench.until(lambda: shell.done)
    assert core.got["indev"] == frames(0, 2)
    assert count(shell, "link.indev.dropped.size") == 2


def test_offloads_are_done_before_writing(bench):
    shell = bench.shell(source(), "x", out=f"pcap://{bench.path('out.pcap')}")
    big = craft.tcp("10.0.0.1", "10.0.0.2", 1, 2, 3, 4, 16, bytes(3000), gso=1400)
    bad = VnetHdr(gso_type=99, gso_size=5).encode() + frame(1)[10:]
    shell._do([Send("out", [big, bad, frame(1)])])
    assert count(shell, "link.out.dropped.offload") == 1
    bench.drop(shell)
    assert [len(one) for one in written(bench.path("out.pcap"))] == [1454, 1454, 254, 60]


def test_a_full_disk_is_counted(bench):
    shell = bench.shell(source(), "x", out="pcap:///dev/full")
    for n in range(100):
        shell._do([Send("out", frames(n, 10, 1000))])
    assert count(shell, "link.out.dropped.not_written") > 800
    bench.drop(shell)
    assert shell.log.events("file.not_written")


def test_a_directory_is_no_capture(bench):
    with pytest.raises(ConfigError, match="--indev: .*Is a directory"):
        bench.shell(relay(), "x", indev=f"pcap://{bench.directory}", outdev="pcap:///dev/null")


@pytest.mark.parametrize(
    ("content", "named"),
    [(None, "No such file"), (b"", "breaks off"), (b"this is no capture", "neither pcap nor pcapng")],
)
def test_a_file_that_cannot_be_used_is_named(bench, content, named):
    path = bench.path("x.pcap")
    if content is not None:
        with open(path, "wb") as out:
            out.write(content)
    with pytest.raises(ConfigError, match=f"--indev: {path}: .*{named}"):
        bench.shell(relay(), "x", indev=f"pcap://{path}", outdev=f"pcap://{bench.path('o')}")


def test_a_capture_has_one_way(bench):
    with pytest.raises(ConfigError, match="read or written, not both"):
        bench.shell(source(port=Way.BOTH), "x", port=f"pcap://{bench.path('o')}")
