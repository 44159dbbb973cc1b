"""QEMU's notify_dev words, as a frame outside says them."""

import socket
from contextlib import suppress

import pytest

from colo_proto.chardev import word
from colo_proto.messages import CheckpointDone, CheckpointWanted, SetMode
from colo_runtime import notify
from runtime_helpers import source

INIT, ANSWER = b"COLO_USERSPACE_PROXY_INIT", b"COLO_COMPARE_GET_XEN_INIT"
WANTED, DONE = b"DO_CHECKPOINT", b"COLO_CHECKPOINT"


@pytest.fixture
def talk(bench):
    def start(query=""):
        core = source()
        endpoint = f"chardev+unix://{bench.path('ntf')}?server=on{query}"
        shell = bench.shell(core, "comp0", out="inproc://out?server=on", notify_dev=endpoint)
        peer = bench.unix(bench.path("ntf"))
        bench.until(lambda: shell.log.events("stream.connected"))
        return core, shell, peer

    return start


def count(shell, name):
    return shell.snapshot().counters.get("control." + name, 0)


def hear(bench, peer, expected):
    peer.setblocking(False)
    got = b""

    def read():
        nonlocal got
        try:
            got += peer.recv(1000)
        except BlockingIOError:
            return False
        return len(got) >= len(expected)

    bench.until(read)
    assert got == expected
    peer.setblocking(True)


def request(shell):
    shell._tell(CheckpointWanted("payload"))


@pytest.mark.parametrize("query", ["", "&vnet_hdr=on"])
def test_the_whole_conversation(bench, talk, query):
    core, shell, peer = talk(query)
    # With vnet_hdr=on QEMU reads the second length but does not write it.
    said = (lambda w: len(w).to_bytes(4, "big") + bytes(4) + w) if query else word
    peer.sendall(said(INIT))
    hear(bench, peer, word(ANSWER))
    request(shell)
    hear(bench, peer, word(WANTED))
    peer.sendall(said(DONE))
    bench.until(lambda: core.told)
    assert core.told == [CheckpointDone(1, state_copied=True)]
    assert shell.context.epoch == 1


def test_one_request_is_outstanding_at_a_time(bench, talk):
    core, shell, peer = talk()
    for _ in range(10):
        request(shell)
    hear(bench, peer, word(WANTED))
    assert (count(shell, "checkpoints_asked"), count(shell, "coalesced")) == (1, 9)
    peer.sendall(word(DONE))
    bench.until(lambda: core.told)
    request(shell)
    hear(bench, peer, word(WANTED))
    assert count(shell, "checkpoints_asked") == 2


def test_a_request_that_nobody_answers_may_be_said_again(bench, talk, monkeypatch):
    monkeypatch.setattr(notify, "AGAIN", 0.0)
    _, shell, peer = talk()
    request(shell)
    request(shell)
    hear(bench, peer, word(WANTED) * 2)


def test_a_frame_that_comes_later_hears_what_is_outstanding(bench, talk):
    _, shell, peer = talk()
    request(shell)
    peer.close()
    bench.until(lambda: shell.log.events("stream.closed"))
    again = bench.unix(bench.path("ntf"))
    hear(bench, again, word(WANTED))


def test_words_in_pieces_and_together(bench, talk):
    core, _, peer = talk()
    for byte in word(INIT):
        peer.send(bytes([byte]))
        bench.turn(0.001)
    hear(bench, peer, word(ANSWER))
    peer.sendall(word(DONE) * 3)
    bench.until(lambda: len(core.told) == 3)
    assert [m.epoch for m in core.told] == [1, 2, 3]


@pytest.mark.parametrize("bad", [b"HELLO", DONE + b"\0", b"colo_checkpoint", b"\xff\xfe"])
def test_other_words_are_counted_and_logged_once(bench, talk, bad):
    core, shell, peer = talk()
    peer.sendall(word(bad) * 5 + word(INIT))
    hear(bench, peer, word(ANSWER))
    assert count(shell, "wire_errors.unknown_word") == 5
    assert len(shell.log.events("message.refused")) == 1
    assert core.told == []


def test_an_oversized_word_ends_the_connection_and_the_next_is_good(bench, talk):
    core, shell, peer = talk()
    peer.sendall((notify.MAX_WORD + 1).to_bytes(4, "big") + bytes(10))
    bench.until(lambda: count(shell, "wire_errors.oversized"))
    peer.settimeout(60)
    with suppress(ConnectionResetError):
        assert peer.recv(1) == b""
    again = bench.unix(bench.path("ntf"))
    again.sendall(word(DONE))
    bench.until(lambda: core.told)


def test_only_requests_have_a_word(bench, talk):
    _, shell, peer = talk()
    shell._tell(SetMode("shadow"))
    request(shell)
    hear(bench, peer, word(WANTED))


def test_a_request_with_nobody_there_is_not_lost(bench):
    shell = bench.shell(
        source(), "comp0", out="inproc://out?server=on", notify_dev=f"chardev+unix://{bench.path('ntf')}?server=on"
    )
    request(shell)
    peer = bench.unix(bench.path("ntf"))
    hear(bench, peer, word(WANTED))
    assert isinstance(peer, socket.socket)
