"""The wire: what is malformed, too large or out of place is refused, whatever the bytes are."""

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colo_proto import codec, messages
from colo_proto.codec import Batch, LinkHello, decode, encode
from colo_proto.errors import WireError
from colo_proto.frame import MAX_FRAME, MIN_FRAME
from colo_proto.messages import (
    CheckpointWanted,
    Drain,
)
from golden import CHATTER, FRAME, GOLDEN


def packed(*body):
    return msgpack.packb(list(body), use_bin_type=True)


def control(kind, **body):
    return packed(1, codec.KIND_CONTROL, kind, body)


def refused(data, reason):
    with pytest.raises(WireError) as caught:
        decode(data)
    assert caught.value.reason == reason


BATCH = ["l", 1, 0, 0, 0.0, [FRAME]]


def batch(**changes):
    names = ("link", "incarnation", "sequence", "epoch", "timestamp", "frames")
    return packed(1, 0, *(changes.get(name, value) for name, value in zip(names, BATCH, strict=True)))


class TestRefused:
    @pytest.mark.parametrize("data", [b"", b"\xc1", b"\x98\x01\x00", batch()[:-1], batch() + b"\0", b"\xd9\x01\xff"])
    def test_undecodable(self, data):
        refused(data, "undecodable")

    @pytest.mark.parametrize("body", [1, "x", None, {}, [], [1], {"a": 1}])
    def test_not_an_array_of_version_and_kind(self, body):
        refused(msgpack.packb(body), "malformed")

    @pytest.mark.parametrize("version", [0, 2, -1, None, "1", 1.0, True, 2**63, [1]])
    def test_another_version(self, version):
        refused(packed(version, 0, *BATCH), "version")

    @pytest.mark.parametrize("kind", [7, 99, -1, None, "0", 0.0, False, 1.0, True, 4.0, [0], {}])
    def test_an_unknown_kind(self, kind):
        for body in (BATCH, ["l", 1, 1], ["drain", {}]):
            refused(packed(1, kind, *body), "kind")

    @pytest.mark.parametrize(
        "changes",
        [
            {"link": b"l"}, {"link": None}, {"link": 5},
            {"incarnation": -1}, {"incarnation": 1 << 63}, {"incarnation": True}, {"incarnation": 1.0},
            {"sequence": -1}, {"sequence": 1 << 63}, {"sequence": "0"}, {"sequence": False},
            {"epoch": -1}, {"epoch": 1 << 63}, {"epoch": None},
            {"timestamp": 0}, {"timestamp": "now"},
            {"frames": FRAME}, {"frames": None}, {"frames": {}},
        ],
    )  # fmt: skip
    def test_a_batch_with_a_wrong_head(self, changes):
        refused(batch(**changes), "malformed")

    @pytest.mark.parametrize("body", [BATCH[:-1], [*BATCH, 1], []])
    def test_a_batch_of_another_length(self, body):
        refused(packed(1, 0, *body), "malformed")

    @pytest.mark.parametrize(
        "frames",
        [
            [b""],
            [bytes(MIN_FRAME - 1)],
            [bytes(MAX_FRAME + 1)],
            ["text of a frame's length"],
            [None],
            [FRAME, 7],
            [[FRAME]],
        ],
    )
    def test_what_cannot_be_a_frame(self, frames):
        refused(batch(frames=frames), "frame")

    def test_the_smallest_and_the_largest_frame_pass(self):
        frames = [bytes(MIN_FRAME), bytes(MAX_FRAME)]
        assert decode(batch(frames=frames)).frames == frames

    def test_too_many_frames(self):
        assert len(decode(batch(frames=[FRAME] * 64)).frames) == 64
        refused(batch(frames=[FRAME] * 65), "oversized")

    def test_too_many_bytes(self):
        refused(bytes(codec.MAX_MESSAGE + 1), "oversized")
        refused(bytes(codec.MAX_MESSAGE), "undecodable")

    @pytest.mark.parametrize("kind", [codec.KIND_HELLO, codec.KIND_ACK, codec.KIND_RESET, codec.KIND_START])
    @pytest.mark.parametrize(
        "body",
        [
            [], ["l", 1], ["l", 1, 1, 1], [b"l", 1, 1], ["l", "1", 1], ["l", 1, None], ["l", True, 1], ["l", 1, 1.0],
            ["l", -1, 1], ["l", 1 << 63, 1], ["l", 1, -2], ["l", 1, 1 << 63],
        ],
    )  # fmt: skip
    def test_malformed_chatter(self, kind, body):
        refused(packed(1, kind, *body), "malformed")

    @pytest.mark.parametrize("body", [[], ["drain"], ["drain", {}, 1], [b"drain", {}], ["drain", []], [None, {}]])
    def test_malformed_control(self, body):
        refused(packed(1, codec.KIND_CONTROL, *body), "malformed")

    def test_an_unknown_message(self):
        refused(control("tomorrow's"), "unknown_message")

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("hello", {"role": "mirror", "id": "m0"}),
            ("hello", {"role": "mirror", "id": 7, "incarnation": 1}),
            ("hello", {"role": "mirror", "id": "m0", "incarnation": "1"}),
            ("hello", {"role": "mirror", "id": "m0", "incarnation": 1 << 63}),
            ("welcome", {"epoch": True}),
            ("checkpoint_done", {"epoch": 1, "state_copied": 1}),
            ("checkpoint_wanted", {"reason": "payload", "offset": "10"}),
            ("checkpoint_wanted", {"reason": "payload", "detail": []}),
            ("worker_table", {"version": 1, "workers": "comp0"}),
            ("worker_table", {"version": 1, "workers": ["comp0", 1]}),
            ("worker_table", {"version": 1, "workers": ["comp0"], "slots": [0, None]}),
            ("report", {"role": "m", "id": "m", "incarnation": 1, "counters": {"a": "b"}, "gauges": {}}),
            ("report", {"role": "m", "id": "m", "incarnation": 1, "counters": {b"a": 1}, "gauges": {}}),
            ("report", {"role": "m", "id": "m", "incarnation": 1, "counters": {"a": 1 << 63}, "gauges": {}}),
            ("heartbeat", {"role": "primary", "incarnation": 1, "count": 1, "epoch": 1, "table": []}),
        ],
    )
    def test_a_field_that_is_missing_or_of_another_type(self, kind, body):
        refused(control(kind, **body), "malformed")

    def test_optional_fields_may_be_left_out_or_none(self):
        assert decode(control("checkpoint_wanted", reason="fin")) == CheckpointWanted("fin")
        assert decode(control("checkpoint_wanted", reason="fin", offset=None)).offset is None
        assert decode(control("heartbeat", role="primary", incarnation=1, count=1, epoch=1, table=None)).table is None

    @given(st.binary(max_size=200))
    @settings(deadline=None)
    def test_random_bytes_raise_nothing_else(self, data):
        for body in (data, b"\x98\x01\x00" + data, b"\x95\x01\x01" + data, b"\x94\x01\x04" + data):
            with suppress(WireError):
                decode(body)

    @given(st.data())
    @settings(deadline=None)
    def test_a_changed_byte_raises_nothing_else(self, data):
        good = data.draw(st.sampled_from([bytes.fromhex(golden) for _, golden in GOLDEN] + [batch()]))
        at = data.draw(st.integers(0, len(good) - 1))
        bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
        try:
            value = decode(bad)
        except WireError:
            return
        # What is let in can be passed on.
        if not isinstance(value, Batch):
            assert decode(encode(value)) == value

    @pytest.mark.parametrize("value", [m for m, _ in GOLDEN] + list(CHATTER), ids=lambda v: type(v).__name__)
    def test_every_cut_is_refused(self, value):
        data = encode(value)
        for size in range(len(data)):
            refused(data[:size], "undecodable")


class TestAnything:
    """Fields that may hold anything hold only what could be sent on."""

    def answer(self, value):
        return control("answer", ok=True, body={"x": value})

    @pytest.mark.parametrize(
        "value", [None, True, 1, -1, 0.5, "a", b"a", [1, [2]], {"a": {"b": None}}, 2**63 - 1, -(2**63)]
    )
    def test_plain_values_pass(self, value):
        decoded = decode(self.answer(value))
        assert decoded.body["x"] == value
        assert decode(encode(decoded)) == decoded

    @pytest.mark.parametrize(
        "value", [2**63, 2**64 - 1, msgpack.ExtType(5, b"x"), msgpack.Timestamp(1), [msgpack.ExtType(5, b"")]]
    )
    def test_what_has_no_plain_form(self, value):
        refused(self.answer(value), "malformed")

    def test_depth(self):
        def nested(depth):
            value = []
            for _ in range(depth - 1):
                value = [value]
            return value

        assert decode(self.answer(nested(codec.MAX_DEPTH - 2)))
        for depth in (codec.MAX_DEPTH + 1, 500, 1000):
            refused(self.answer(nested(depth)), "malformed")
        refused(b"\x94\x01\x04\xa6answer\x81\xa4body\x81\xa1x" + b"\x91" * 5000 + b"\x90", "undecodable")


def test_where_only_messages_have_business():
    assert codec.decode_message(encode(Drain())) == Drain()
    for other in (batch(), encode(LinkHello("l", 1, 1))):
        with pytest.raises(WireError) as caught:
            codec.decode_message(other)
        assert caught.value.reason == "unexpected"


def test_a_control_message_is_small_but_for_those_that_carry_much():
    """By its size and type, before it is read: 4 MiB of small things are hundreds of megabytes in memory."""
    much = {"x": "y" * codec.MAX_CONTROL}
    for message in (messages.Report("r", "i", 1, {}, {}, much), messages.Query("status", much)):
        with pytest.raises(WireError) as error:
            codec.decode_message(codec.encode(message))
        assert error.value.reason == "oversized"
    for message in (messages.Answer(ok=True, body=much), messages.Handover(1, "a", "b", 0, False, b"x" * (1 << 20))):
        assert codec.decode_message(codec.encode(message)) == message


@pytest.mark.parametrize(
    "head", [b"", b"\x94\x01\x04\xa6answe", b"\xc1", b"\x94\x01\x04\xdc\xff\xff", b"\x90", b"\x94\x01\x00\xa6answer"]
)
def test_what_is_large_and_no_control_message_is_refused(head):
    with pytest.raises(WireError):
        codec.decode_message(head + b"\xff" * (codec.MAX_CONTROL + 1))


def test_the_name_of_a_link_is_a_name():
    """Receivers remember the names of two hundred senders."""
    fine = "x" * codec.MAX_LINK_NAME
    assert codec.decode(codec.encode_batch(fine, 1, 0, 0, 0.0, [])).link == fine
    for data in (
        codec.encode_batch(fine + "x", 1, 0, 0, 0.0, []),
        codec.encode(codec.LinkHello(fine + "x", 1, -1)),
    ):
        with pytest.raises(WireError):
            codec.decode(data)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_time_is_a_number(number):
    """A permission until `nan` would never be over, for no moment is later than that."""
    with pytest.raises(WireError):
        codec.decode(codec.encode(messages.Lease(number, 2)))


@pytest.mark.parametrize("version", [True, 1.0, "1", None, [1]])
def test_the_version_is_the_number_1(version):
    """True and 1.0 are equal to it in Python."""
    with pytest.raises(WireError):
        codec.decode(msgpack.packb([version, 4, "drain", {}]))
    with pytest.raises(WireError):
        codec.decode(msgpack.packb([1, True, "l", 1, 0]))
