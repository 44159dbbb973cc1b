"""What ends QEMU's process does not end ours."""

import signal
from struct import pack

import pytest

from packets import parse, tokens
from parity.rigs import CompareRig, OurRewriter, QemuRewriter, our_compare, qemu_compare

FRAME = parse(tokens('udp "x"')).frame()


@pytest.mark.parametrize("side", ["pri", "sec"])
def test_f3_an_empty_frame_into_compare(qemu, side):
    with CompareRig(qemu_compare({}, False)) as theirs:
        getattr(theirs, side).write(pack("!I", 0) + b"\0")
        assert theirs.process.wait(60) == -signal.SIGABRT
    with CompareRig(our_compare({}, False)) as ours:
        getattr(ours, side).write(pack("!I", 0))
        ours.feed("pri", [FRAME])
        assert ours.feed("sec", [FRAME]) == [FRAME]


@pytest.mark.parametrize("side", ["client", "guest"])
def test_rb10_an_empty_frame_into_the_rewriter(qemu, side):
    with QemuRewriter() as theirs:
        {"client": theirs.client_in, "guest": theirs.guest_in}[side].write(pack("!I", 0) + b"\0")
        assert theirs.process.wait(60) == -signal.SIGABRT
    with OurRewriter() as ours:
        {"client": ours.client_in, "guest": ours.guest_in}[side].write(pack("!I", 0))
        assert ours.feed(side, [FRAME])[side == "guest"] == [FRAME]


@pytest.mark.parametrize("make", [qemu_compare, our_compare])
def test_f12_f13_the_words_of_notify_dev_are_the_same(qemu, make):
    with CompareRig(make({}, False)) as one:
        for word in (b"HELLO", b"COLO_CHECKPOINT\0", b"COLO_USERSPACE_PROXY_INIT"):
            one.ntf.say(word)
        # Unknown messages are ignored, the hello is answered.
        one.ntf.until(lambda: one.ntf.got, one.process)
        assert one.ntf.take() == [b"COLO_COMPARE_GET_XEN_INIT"]


@pytest.mark.parametrize("make", [qemu_compare, our_compare])
def test_with_the_header_option_notify_dev_is_read_with_the_second_number_and_written_without(qemu, make):
    with CompareRig(make({}, True), vnet=True) as one:
        assert one.feed("pri", [FRAME]) == []
        assert one.checkpoint() == [FRAME]
