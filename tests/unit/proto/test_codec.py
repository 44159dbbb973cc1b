"""The wire: golden bytes hold it still, and what is encoded is decoded to the same value."""

from dataclasses import MISSING, fields

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colo_proto import codec, messages
from colo_proto.codec import Batch, LinkAck, LinkHello, LinkReset, LinkStart, decode, encode, encode_batch
from colo_proto.frame import MIN_FRAME
from colo_proto.messages import (
    Answer,
    CheckpointDone,
    CheckpointWanted,
    Flushed,
    Heartbeat,
    Hello,
    Query,
    Report,
    SetMode,
    SetRules,
    Welcome,
    WorkerTable,
)
from golden import CHATTER, FRAME, GOLDEN


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


def test_a_newer_peer_may_say_more():
    more = {"mode": "shadow", "since": "yesterday", "who": [1, 2]}
    assert decode(msgpack.packb([1, codec.KIND_CONTROL, "set_mode", more])) == SetMode("shadow")


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
