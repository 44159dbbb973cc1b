"""pcapng files as an independent reader sees them."""

import io
import json
import shutil
import subprocess
from struct import unpack

import dpkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto.pcapng import MAX_COMMENT, Capture, Shown, encode

P = craft.udp("10.0.0.2", "10.0.0.9", 53, 5000, b"primary")
S = craft.udp("10.0.0.2", "10.0.0.9", 53, 5000, b"secondary")


def blocks(data):
    """Type and body of each block; both lengths must agree."""
    found, at = [], 0
    while at < len(data):
        kind, length = unpack("<II", data[at : at + 8])
        assert length % 4 == 0
        assert data[at + length - 4 : at + length] == data[at + 4 : at + 8]
        found.append((kind, data[at + 8 : at + length - 4]))
        at += length
    return found


def test_blocks_in_order():
    data = encode(Capture(("primary", "secondary"), (Shown(0, 1.5, P), Shown(1, 1.75, S, "differs here")), "why"))
    kinds = [kind for kind, _ in blocks(data)]
    assert kinds == [0x0A0D0D0A, 1, 1, 6, 6]
    bodies = [body for _, body in blocks(data)]
    assert b"why" in bodies[0]
    assert b"primary" in bodies[1]
    assert b"secondary" in bodies[2]
    assert b"differs here" in bodies[4]
    assert unpack("<I", bodies[4][:4]) == (1,)


def test_another_reader_sees_frames_and_times():
    data = encode(Capture(("primary", "secondary"), (Shown(0, 1.5, P), Shown(1, 2.000000001, S, "x"))), offset=1000)
    got = list(dpkt.pcapng.Reader(io.BytesIO(data)))
    assert [frame for _, frame in got] == [P[10:], S[10:]]
    assert [round(float(when), 6) for when, _ in got] == [1001.5, 1002.0]


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.floats(0, 4e9), st.binary(min_size=24, max_size=80), st.text(max_size=20)),
        max_size=10,
    ),
    st.text(max_size=30),
)
@settings(deadline=None)
def test_any_frames_and_comments(rows, comment):
    data = encode(Capture(("a", "bb"), tuple(Shown(*row) for row in rows), comment))
    assert len(blocks(data)) == 3 + len(rows)
    got = [frame for _, frame in dpkt.pcapng.Reader(io.BytesIO(data))]
    assert got == [frame[10:] for _, _, frame, _ in rows]


def test_nothing_is_a_file_too():
    assert list(dpkt.pcapng.Reader(io.BytesIO(encode(Capture(("a",), ()))))) == []


def test_a_comment_has_a_bound():
    data = encode(Capture(("a",), (Shown(0, 0.0, P, "x" * 100_000),), "y" * 100_000))
    assert len(data) < 2 * MAX_COMMENT + 1000
    assert [frame for _, frame in dpkt.pcapng.Reader(io.BytesIO(data))] == [P[10:]]


def test_tshark_shows_both_sides_and_the_verdict(tmp_path):
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed")
    file = tmp_path / "evidence.pcapng"
    frames = (Shown(0, 5.0, P, "reason payload, offset 0, \u00b5"), Shown(1, 5.000001, S))
    file.write_bytes(encode(Capture(("primary", "secondary"), frames, "the verdict"), 1_700_000_000.0))
    fields = ["frame.interface_name", "frame.comment", "frame.time_epoch", "udp.payload"]
    argv = [tshark, "-r", str(file), "-T", "json", *(word for field in fields for word in ("-e", field))]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=120)
    first, second = (one["_source"]["layers"] for one in json.loads(done.stdout))
    assert first["frame.interface_name"] == ["primary"]
    assert second["frame.interface_name"] == ["secondary"]
    assert first["frame.comment"] == ["reason payload, offset 0, \u00b5"]
    assert float(first["frame.time_epoch"][0]) == pytest.approx(1_700_000_005.0)
    assert bytes.fromhex(second["udp.payload"][0].replace(":", "")) == b"secondary"
