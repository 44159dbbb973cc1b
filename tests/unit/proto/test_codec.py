"""The wire: golden bytes hold it still, strict decoding keeps what is malformed out, round trips lose nothing."""

from contextlib import suppress
from dataclasses import MISSING, fields

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colo_proto import codec, messages
from colo_proto.codec import Batch, LinkAck, LinkBarrier, LinkHello, LinkReset, LinkStart, decode, encode, encode_batch
from colo_proto.errors import WireError
from colo_proto.frame import MAX_FRAME, MIN_FRAME
from colo_proto.messages import (
    Answer,
    CheckpointDone,
    CheckpointWanted,
    Demote,
    Drain,
    Flushed,
    Handover,
    HandoverTaken,
    Heartbeat,
    Hello,
    LanHeard,
    LanSaid,
    LanSay,
    Lease,
    Leaving,
    Promote,
    Query,
    Report,
    SetMode,
    SetRules,
    Settled,
    Welcome,
    WorkerTable,
    Yielded,
)

FRAME = bytes(10) + bytes.fromhex("02000000000102000000000288b5") + b"\x01\x02"

CHATTER = {
    LinkHello("f1.indev", 9, -1): "950101a866312e696e64657609ff",
    LinkAck("m0.outdev", 7, 1002): "950102a96d302e6f757464657607cd03ea",
    LinkReset("m0.outdev", 7, 64): "950103a96d302e6f75746465760740",
    LinkStart("m0.outdev", 7, 1000): "950105a96d302e6f757464657607cd03e8",
    LinkBarrier("f2.outdev", 7, 3): "950106a966322e6f75746465760703",
}

# What version 1 looked like when each message was first sent. These lines are never changed: a message that gets a
# field keeps its line (the field has a default), a new message gets a new line.
GOLDEN = [
    (
        Hello("mirror", "m0", 5, 42, "127.0.0.1:9100"),
        (
            "940104a568656c6c6f85a4726f6c65a66d6972726f72a26964a26d30ab696e6361726e6174696f6e05a37069642aa468747470"
            "ae3132372e302e302e313a39313030"
        ),
    ),
    (
        Welcome(3, "shadow", 8),
        "940104a777656c636f6d6583a565706f636803a46d6f6465a6736861646f77ab696e6361726e6174696f6e08",
    ),
    (
        Report("mirror", "m0", 5, {"frames": 2}, {"held": 0}, {"ready": True}, 42),
        (
            "940104a67265706f727487a4726f6c65a66d6972726f72a26964a26d30ab696e6361726e6174696f6e05a8636f756e74657273"
            "81a66672616d657302a667617567657381a468656c6400a673746174757381a57265616479c3a37069642a"
        ),
    ),
    (
        CheckpointWanted("payload", "tcp 10.0.0.2:80 > 10.0.0.9:5000", 10, {"primary": "41"}, 3, "comp0"),
        (
            "940104b1636865636b706f696e745f77616e74656486a6726561736f6ea77061796c6f6164a4666c6f77bf7463702031302e30"
            "2e302e323a3830203e2031302e302e302e393a35303030a66f66667365740aa664657461696c81a77072696d617279a23431a5"
            "65706f636803a6736f75726365a5636f6d7030"
        ),
    ),
    (
        CheckpointDone(4, state_copied=True),
        "940104af636865636b706f696e745f646f6e6582a565706f636804ac73746174655f636f70696564c3",
    ),
    (
        Flushed(4, "comp0", 2, 1),
        "940104a7666c757368656484a565706f636804a26964a5636f6d7030a872656c656173656402a764726f7070656401",
    ),
    (SetMode("bypass"), "940104a87365745f6d6f646581a46d6f6465a6627970617373"),
    (
        SetRules("pass udp port 123\n"),
        "940104a97365745f72756c657381a572756c6573b2706173732075647020706f7274203132330a",
    ),
    (
        WorkerTable(2, ["comp0", "comp1"], [0, 1, 1, 0]),
        (
            "940104ac776f726b65725f7461626c6583a776657273696f6e02a7776f726b65727392a5636f6d7030a5636f6d7031a5736c6f"
            "74739400010100"
        ),
    ),
    (Drain(), "940104a5647261696e80"),
    (
        Query("mode", {"mode": "shadow"}),
        "940104a5717565727982a477686174a46d6f6465a46172677381a46d6f6465a6736861646f77",
    ),
    (
        Answer(ok=False, body={"a": None}, error="no"),
        "940104a6616e7377657283a26f6bc2a4626f647981a161c0a56572726f72a26e6f",
    ),
    (
        Heartbeat("primary", 5, 6, 3, 1, "enforce", {"version": 2}, {"ready": True}),
        (
            "940104a968656172746265617488a4726f6c65a77072696d617279ab696e6361726e6174696f6e05a5636f756e7406a565706f"
            "636803a566656e636501a46d6f6465a7656e666f726365a57461626c6581a776657273696f6e02a4626f647981a57265616479c3"
        ),
    ),
    (Leaving("comp1"), "940104a76c656176696e6781a26964a5636f6d7031"),
    (
        Handover(3, "comp0", "comp1", 2, last=True, data=b"\x01\x02"),
        (
            "940104a868616e646f76657286a776657273696f6e03a6736f75726365a5636f6d7030a6746172676574a5636f6d7031a470617274"
            "02a46c617374c3a464617461c4020102"
        ),
    ),
    (
        HandoverTaken(3, "comp0", "comp1", 2),
        (
            "940104ae68616e646f7665725f74616b656e84a776657273696f6e03a6736f75726365a5636f6d7030a6746172676574a5636f6d70"
            "31a47061727402"
        ),
    ),
    (Settled("comp1", 3), "940104a7736574746c656482a26964a5636f6d7031a776657273696f6e03"),
    (Promote(2, "secondary"), "940104a770726f6d6f746582a566656e636502a473696465a97365636f6e64617279"),
    (Demote(3), "940104a664656d6f746581a566656e636503"),
    (Lease(12.5, 2), "940104a56c6561736582a5756e74696ccb4029000000000000a566656e636502"),
    (Yielded(3), "940104a77969656c64656481a566656e636503"),
    (
        LanSay(FRAME, 7),
        "940104a76c616e5f73617982a56672616d65c41a0000000000000000000002000000000102000000000288b50102a5636f756e7407",
    ),
    (LanSaid(7), "940104a86c616e5f7361696481a5636f756e7407"),
    (
        LanHeard(FRAME),
        "940104a96c616e5f686561726481a56672616d65c41a0000000000000000000002000000000102000000000288b50102",
    ),
]


def packed(*body):
    return msgpack.packb(list(body), use_bin_type=True)


def control(kind, **body):
    return packed(1, codec.KIND_CONTROL, kind, body)


def refused(data, reason):
    with pytest.raises(WireError) as caught:
        decode(data)
    assert caught.value.reason == reason


class TestGolden:
    def test_a_batch(self):
        data = bytes.fromhex(
            "980100a96d302e6f757464657607cd03e803cb3ff800000000000092c41a" + FRAME.hex() + "c41a" + FRAME[::-1].hex()
        )
        assert encode_batch("m0.outdev", 7, 1000, 3, 1.5, [FRAME, FRAME[::-1]]) == data
        assert decode(data) == Batch("m0.outdev", 7, 1000, 3, 1.5, [FRAME, FRAME[::-1]])

    def test_an_empty_batch(self):
        data = bytes.fromhex("980100a96d302e6f757464657607cd03e803cb3ff800000000000090")
        assert encode_batch("m0.outdev", 7, 1000, 3, 1.5, []) == data
        assert decode(data) == Batch("m0.outdev", 7, 1000, 3, 1.5, [])

    @pytest.mark.parametrize(("value", "golden"), CHATTER.items(), ids=lambda v: type(v).__name__)
    def test_chatter(self, value, golden):
        assert encode(value).hex() == golden
        decoded = decode(bytes.fromhex(golden))
        assert (type(decoded), decoded) == (type(value), value)

    @pytest.mark.parametrize(("value", "golden"), GOLDEN, ids=lambda v: messages.NAMES.get(type(v), ""))
    def test_control(self, value, golden):
        assert decode(bytes.fromhex(golden)) == value
        # An older reader finds all it knows in what we send today; newer fields may stand beside it.
        _, _, kind, then = msgpack.unpackb(bytes.fromhex(golden))
        version, _, kind_now, now = msgpack.unpackb(encode(value))
        assert (version, kind_now) == (1, kind)
        assert {name: now.get(name) for name in then} == then

    def test_every_message_has_its_bytes(self):
        assert {messages.NAMES[type(value)] for value, _ in GOLDEN} == set(messages.TYPES), (
            "a message without golden bytes: add a line (and never change one)"
        )

    def test_a_field_that_came_later_has_a_default(self):
        for value, golden in GOLDEN:
            known = msgpack.unpackb(bytes.fromhex(golden))[3]
            required = [f.name for f in fields(value) if f.default is MISSING and f.default_factory is MISSING]
            assert set(required) <= set(known), f"{messages.NAMES[type(value)]}: an older peer does not send it"

    def test_kinds_and_version_are_what_they_were(self):
        assert codec.WIRE_VERSION == 1
        assert (
            codec.KIND_BATCH, codec.KIND_HELLO, codec.KIND_ACK, codec.KIND_RESET, codec.KIND_CONTROL, codec.KIND_START,
        ) == (0, 1, 2, 3, 4, 5)  # fmt: skip


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


def test_a_newer_peer_may_say_more():
    assert decode(control("set_mode", mode="shadow", since="yesterday", who=[1, 2])) == SetMode("shadow")


def test_where_only_messages_have_business():
    assert codec.decode_message(encode(Drain())) == Drain()
    for other in (batch(), encode(LinkHello("l", 1, 1))):
        with pytest.raises(WireError) as caught:
            codec.decode_message(other)
        assert caught.value.reason == "unexpected"


frames_ = st.lists(st.binary(min_size=MIN_FRAME, max_size=200), max_size=64)
numbers = st.integers(0, 2**63 - 1)


@given(st.text(max_size=100), numbers, numbers, numbers, st.floats(allow_nan=False), frames_)
@settings(deadline=None)
def test_batches_survive(link, incarnation, sequence, epoch, timestamp, frames):
    data = encode_batch(link, incarnation, sequence, epoch, timestamp, frames)
    assert decode(data) == Batch(link, incarnation, sequence, epoch, timestamp, frames)
    assert decode(memoryview(data)).frames == frames


@pytest.mark.parametrize("sizes", [[65000], [65536 + 24, 255, 256], [65535, 65536], [9000] * 15, [9000] * 16, [8193]])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_large_frames_are_the_packers_bytes(sizes, kind):
    head = (codec.WIRE_VERSION, codec.KIND_BATCH, "m0.outdev", 2**62, 70000, 3, 1.5)
    frames = [kind(bytes([n % 251]) * n) for n in sizes]
    assert encode_batch(*head[2:], frames) == msgpack.packb((*head, frames))


@given(frames_)
@settings(deadline=None)
def test_frames_of_any_kind_of_buffer_are_the_same_bytes(frames):
    plain = encode_batch("l", 1, 0, 0, 0.0, frames)
    assert encode_batch("l", 1, 0, 0, 0.0, [bytearray(f) for f in frames]) == plain
    assert encode_batch("l", 1, 0, 0, 0.0, [memoryview(f) for f in frames]) == plain


@given(
    st.sampled_from([LinkHello, LinkAck, LinkReset, LinkStart]),
    st.text(max_size=100),
    numbers,
    st.integers(-1, 2**63 - 1),
)
@settings(deadline=None)
def test_chatter_survives(kind, link, incarnation, number):
    value = kind(link, incarnation, number)
    decoded = decode(encode(value))
    assert (type(decoded), decoded) == (kind, value)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
_maps = st.dictionaries(st.text(), _anything, max_size=4)
_counts = st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1), max_size=5)
_control = st.one_of(
    st.builds(Hello, st.text(), st.text(), numbers, numbers, st.text()),
    st.builds(Welcome, numbers, st.text(), numbers),
    st.builds(Report, st.text(), st.text(), numbers, _counts, _counts, _maps, numbers),
    st.builds(CheckpointWanted, st.text(), st.text(), st.none() | numbers, _maps, numbers, st.text()),
    st.builds(CheckpointDone, numbers, st.booleans()),
    st.builds(Flushed, numbers, st.text(), numbers, numbers),
    st.builds(SetMode, st.text()),
    st.builds(SetRules, st.text()),
    st.builds(WorkerTable, numbers, st.lists(st.text(), max_size=4), st.lists(numbers, max_size=9)),
    st.builds(Query, st.text(), _maps),
    st.builds(Answer, st.booleans(), _maps, st.text()),
    st.builds(Heartbeat, st.text(), numbers, numbers, numbers, numbers, st.text(), st.none() | _maps, _maps),
)  # fmt: skip


@given(_control)
@settings(deadline=None)
def test_messages_survive(value):
    assert decode(encode(value)) == value


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
