"""Captures: every flavour read, damage named, what we write read by somebody else."""

import io
import subprocess
from shutil import which
from struct import pack

import dpkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colo_proto.errors import WireError
from colo_runtime.capture import MAX_BLOCK, CaptureWriter, read_capture

FRAMES = [bytes([n]) * (60 + n) for n in range(5)]
MAGICS = {("<", "us"): 0xA1B2C3D4, (">", "us"): 0xA1B2C3D4, ("<", "ns"): 0xA1B23C4D, (">", "ns"): 0xA1B23C4D}


def pcap(frames, order="<", unit="us", linktype=1):
    out = pack(order + "IHHiIII", MAGICS[order, unit], 2, 4, 0, 0, 262144, linktype)
    return out + b"".join(pack(order + "IIII", 1, 2, len(f), len(f)) + f for f in frames)


def block(kind, body, order="<"):
    body += b"\0" * (-len(body) % 4)
    return pack(order + "II", kind, len(body) + 12) + body + pack(order + "I", len(body) + 12)


def section(order="<"):
    return block(0x0A0D0D0A, pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(order="<", linktype=1):
    return block(1, pack(order + "HHI", linktype, 0, 0), order)


def enhanced(frame, order="<", which=0):
    return block(6, pack(order + "IIIII", which, 0, 0, len(frame), len(frame)) + frame, order)


def read(data):
    return list(read_capture(io.BytesIO(data)))


def refused(data, reason):
    with pytest.raises(WireError) as caught:
        read(data)
    assert caught.value.reason == reason


class TestPcap:
    @pytest.mark.parametrize("flavour", MAGICS)
    def test_both_orders_and_units(self, flavour):
        assert read(pcap(FRAMES, *flavour)) == FRAMES

    def test_empty(self):
        assert read(pcap([])) == []

    def test_another_linktype(self):
        refused(pcap(FRAMES, linktype=101), "linktype")

    def test_frames_that_were_cut_when_captured_are_left_out(self):
        data = pcap(FRAMES[:1]) + pack("<IIII", 1, 2, 60, 1500) + bytes(60) + pcap(FRAMES[1:])[24:]
        assert read(data) == FRAMES

    def test_an_absurd_length(self):
        refused(pcap([]) + pack("<IIII", 1, 2, MAX_BLOCK + 1, MAX_BLOCK + 1), "capture")


class TestPcapng:
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_enhanced_packets(self, order):
        data = section(order) + interface(order) + b"".join(enhanced(f, order) for f in FRAMES)
        assert read(data) == FRAMES

    def test_simple_packets(self):
        data = section() + interface() + b"".join(block(3, pack("<I", len(f)) + f) for f in FRAMES)
        assert read(data) == FRAMES

    def test_other_blocks_and_other_linktypes_are_passed_over(self):
        data = section() + interface(linktype=101) + interface() + block(0x0BAD, b"anything")
        data += enhanced(FRAMES[0], which=0) + enhanced(FRAMES[1], which=1)
        assert read(data) == [FRAMES[1]]

    def test_a_second_section_counts_interfaces_anew_and_may_have_the_other_order(self):
        data = section("<") + interface("<") + enhanced(FRAMES[0]) + section(">") + interface(">")
        assert read(data + enhanced(FRAMES[1], ">")) == FRAMES[:2]
        refused(section() + interface() + section() + enhanced(FRAMES[0]), "capture")

    def test_options_of_a_packet_are_no_bytes_of_it(self):
        body = pack("<IIIII", 0, 0, 0, 60, 60) + FRAMES[0] + pack("<HH4sHH", 1, 4, b"note", 0, 0)
        assert read(section() + interface() + block(6, body)) == [FRAMES[0]]

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (enhanced(FRAMES[0], which=9), "capture"),
            (block(6, pack("<IIIII", 0, 0, 0, 999, 999) + bytes(60)), "capture"),
            (block(6, bytes(8)), "truncated"),
            (block(1, bytes(4)), "truncated"),
            (pack("<II", 6, 13), "capture"),
            (pack("<II", 6, 8), "capture"),
            (pack("<II", 6, MAX_BLOCK + 4), "capture"),
            (b"\0\0\0", "truncated"),
        ],
    )
    def test_damage(self, damage, reason):
        refused(section() + interface() + damage, reason)

    def test_a_section_without_a_byte_order(self):
        refused(block(0x0A0D0D0A, bytes(16)), "capture")


@pytest.mark.parametrize("data", [b"", b"\n\r\r\n", b"GET / HTTP/1.1\r\n", b"\xd4\xc3\xb2\xa1short"])
def test_what_is_no_capture(data):
    refused(data, "truncated" if data[:4] != b"GET " else "capture")


@pytest.mark.parametrize(
    "whole", [pcap(FRAMES), section() + interface() + b"".join(enhanced(f) for f in FRAMES)], ids=["pcap", "pcapng"]
)
def test_a_file_that_breaks_off_gives_what_was_whole(whole):
    ends = _ends()
    for size in range(len(whole)):
        got, reasons = [], []
        try:
            got.extend(read_capture(io.BytesIO(whole[:size])))
        except WireError as error:
            reasons.append(error.reason)
        assert got == FRAMES[: len(got)]
        assert reasons == ["truncated"] or (not reasons and size in ends)


def _ends():
    """Lengths at which a file may end: behind its head and behind each frame."""
    ends = set()
    for n in range(6):
        ends.add(len(pcap(FRAMES[:n])))
        ends.add(len(section() + interface() + b"".join(enhanced(f) for f in FRAMES[:n])))
    return ends | {len(section())}


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_garbage_is_refused_and_never_raises_anything_else(data):
    for head in (b"", pcap([]), section(), section() + interface(), pcap([])[:4]):
        try:
            read(head + data)
        except WireError:
            continue


@given(st.lists(st.binary(min_size=14, max_size=100), max_size=20), st.floats(0, 4e9))
@settings(deadline=None)
def test_what_is_written_is_read_by_us_and_by_others(frames, when):
    file = io.BytesIO()
    writer = CaptureWriter(file)
    for frame in frames:
        writer.write(frame, when)
    assert read(file.getvalue()) == frames
    other = list(dpkt.pcap.Reader(io.BytesIO(file.getvalue())))
    assert [data for _, data in other] == frames
    assert all(abs(float(stamp) - when) < 1e-3 for stamp, _ in other)


@pytest.mark.skipif(which("capinfos") is None, reason="capinfos is not installed")
def test_wireshark_reads_it(tmp_path):
    path = tmp_path / "x.pcap"
    with path.open("wb") as file:
        writer = CaptureWriter(file)
        for frame in FRAMES:
            writer.write(frame, 1.5)
    said = subprocess.run(["capinfos", "-Mc", str(path)], capture_output=True, text=True, check=True).stdout
    assert "5" in said.split("Number of packets")[1]
