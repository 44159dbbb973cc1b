"""Properties of the bytes that change, for any numbers, options and payloads."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from colo_proto.checksum import ones_sum, pseudo_sum
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import segment
from colo_rewriter.flow import Flow
from colo_rewriter.shift import timestamps, toward_client, toward_guest
from rewriting import FORMS, Seg

U32 = st.integers(0, 2**32 - 1)
BLOCKS = st.lists(st.tuples(U32, U32), max_size=2).map(tuple)
NOT_ZERO = st.integers(1, 2**32 - 1)
SEGMENTS = st.builds(
    Seg,
    side=st.sampled_from("cg"),
    flags=st.sampled_from([16, 17, 18, 20, 24, 16 | 32]),
    seq=U32,
    ack=U32,
    length=st.integers(0, 40),
    ts=st.none() | st.tuples(NOT_ZERO, NOT_ZERO),
    sack=BLOCKS,
    extra=st.sampled_from([b"", b"\x01", b"\x01\x01\x01", b"\xfe\x05abc"]),
)
CASE = settings(max_examples=300, deadline=None)


def flow(offset, ts_offset):
    one = Flow(b"", b"", 0.0)
    one.offset, one.ts_offset = offset, ts_offset
    return one


def read(frame):
    packet = dissect(frame)
    return packet, segment(frame, packet.l4, packet.end)


def shift(frame, side, offset, ts_offset):
    packet, seg = read(frame)
    if side == "c":
        return bytes(toward_guest(frame, packet.l4, seg.data, seg.flags, flow(offset, ts_offset)))
    return bytes(toward_client(frame, packet.l4, seg.data, flow(offset, ts_offset), floor=False))


def valid(frame):
    packet, _ = read(frame)
    body = packet.payload()
    return ones_sum(body, pseudo_sum(packet.src, packet.dst, 6, len(body))) == 0xFFFF


@CASE
@given(SEGMENTS, U32, U32, st.integers(0, 65535), st.sampled_from([f for f in FORMS if not f.endswith("gso")]))
def test_the_checksum_is_valid_if_and_only_if_it_was(seg, offset, ts_offset, spoil, form):
    frame = Seg(**{**vars(seg), "spoil": spoil}).frame(form)
    assert valid(shift(frame, seg.side, offset, ts_offset)) == valid(frame)


@CASE
@given(SEGMENTS, U32, U32)
def test_a_partial_checksum_is_left_alone(seg, offset, ts_offset):
    frame = seg.frame("v4-gso")
    packet, _ = read(frame)
    after = shift(frame, seg.side, offset, ts_offset)
    assert after[packet.l4 + 16 : packet.l4 + 18] == frame[packet.l4 + 16 : packet.l4 + 18]


@CASE
@given(SEGMENTS, U32, U32, st.integers(0, 65535), st.sampled_from(FORMS))
def test_there_and_back_is_the_identity(seg, offset, ts_offset, spoil, form):
    if seg.side == "c" and seg.ts is not None:
        assume((seg.ts[1] + ts_offset) % 2**32)  # an echo that becomes zero echoes nothing on the way back
    frame = Seg(**{**vars(seg), "spoil": spoil}).frame(form)
    packet, _ = read(frame)
    assume(frame[packet.l4 + 16 : packet.l4 + 18] != b"\xff\xff")  # minus zero comes back as zero
    there = shift(frame, seg.side, offset, ts_offset)
    assert shift(there, seg.side, -offset % 2**32, -ts_offset % 2**32) == frame


@CASE
@given(SEGMENTS, U32, U32, st.sampled_from(FORMS))
def test_only_the_named_fields_change(seg, offset, ts_offset, form):
    """The shifted frame is the frame that a stack would have built with the shifted numbers."""
    fields = vars(seg)
    if seg.side == "c":
        fields = {**fields, "ack": seg.ack + offset, "sack": tuple((a + offset, b + offset) for a, b in seg.sack)}
        if seg.ts:
            fields["ts"] = (seg.ts[0], seg.ts[1] + ts_offset)
    else:
        fields = {**fields, "seq": seg.seq - offset}
        if seg.ts:
            fields["ts"] = (seg.ts[0] - ts_offset, seg.ts[1])
    assert shift(seg.frame(form), seg.side, offset, ts_offset) == Seg(**fields).frame(form)


@given(U32, U32)
def test_without_ack_nothing_of_a_clients_segment_means_anything(offset, ts_offset):
    frame = Seg("c", 4, 101, 1001, ts=(5, 6), sack=((1, 2),)).frame()
    assert shift(frame, "c", offset, ts_offset) == frame


@given(st.binary(max_size=40), st.sampled_from("cg"), U32, U32)
def test_any_option_bytes_are_survived(raw, side, offset, ts_offset):
    frame = Seg(side, 16, 101, 1001, extra=raw).frame()
    after = shift(frame, side, offset, ts_offset)
    assert len(after) == len(frame)
    assert valid(after)


def test_timestamps_are_found_in_any_layout():
    for seg in (
        Seg("c", 16, 1, 2, ts=(3, 4)),
        Seg("c", 16, 1, 2, ts=(3, 4), extra=b"\x01"),
        Seg("c", 16, 1, 2, ts=(3, 4), extra=b"\x02\x04\x05\xb4\x04\x02"),
    ):
        packet, one = read(seg.frame())
        assert timestamps(seg.frame(), packet.l4, one.data) == (3, 4)
    packet, one = read(Seg("c", 16, 1, 2).frame())
    assert timestamps(Seg("c", 16, 1, 2).frame(), packet.l4, one.data) is None


def test_the_highest_echo_is_remembered_across_the_wrap():
    one = flow(1, 1)
    for echo, highest in ((0xFFFFFFF0, 0xFFFFFFF0), (5, 5), (0xFFFFFFF8, 5), (9, 9)):
        frame = Seg("c", 16, 1, 2, ts=(3, echo)).frame()
        packet, seg = read(frame)
        toward_guest(frame, packet.l4, seg.data, seg.flags, one)
        assert one.echo == highest
