"""Captures: reading classic pcap (both byte orders, microseconds and nanoseconds) and pcapng; writing pcap.

Only Ethernet (linktype 1) is supported. Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng. No library is used:
dpkt and scapy read a record of any length that the file claims, and return no error when a file is truncated.
"""

from collections.abc import Iterator
from struct import Struct
from typing import BinaryIO, Final

from colo_proto.errors import WireError

ETHERNET: Final = 1
SNAPLEN: Final = 262144
MAX_BLOCK: Final = 16 << 20

_MAGIC_LITTLE: Final = (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1")
_MAGIC_BIG: Final = (b"\xa1\xb2\xc3\xd4", b"\xa1\xb2\x3c\x4d")
_SECTION, _INTERFACE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 3, 6


def read_capture(file: BinaryIO) -> Iterator[bytes]:
    """The Ethernet frames of a capture, in order. `WireError` when the file is not a capture, or is truncated."""
    magic = _exactly(file, 4)
    if magic in _MAGIC_LITTLE or magic in _MAGIC_BIG:
        yield from _pcap(file, "<" if magic in _MAGIC_LITTLE else ">")
    elif magic == b"\x0a\x0d\x0d\x0a":
        yield from _pcapng(file)
    else:
        raise WireError("capture", "neither pcap nor pcapng")


def _pcap(file: BinaryIO, order: str) -> Iterator[bytes]:
    _, _, _, _, _, linktype = Struct(order + "HHiIII").unpack(_exactly(file, 20))
    if linktype & 0xFFFF != ETHERNET:
        raise WireError("linktype", f"{linktype & 0xFFFF}, only Ethernet (1) is read")
    record = Struct(order + "IIII")
    while head := file.read(16):
        if len(head) < 16:
            raise WireError("truncated", "inside a record")
        _, _, captured, original = record.unpack(head)
        if captured > MAX_BLOCK:
            raise WireError("capture", f"a record of {captured} bytes")
        data = _exactly(file, captured)
        if captured == original:
            yield data


def _pcapng(file: BinaryIO) -> Iterator[bytes]:
    order = ""
    linktypes: list[int] = []
    head = b"\x0a\x0d\x0d\x0a" + _exactly(file, 4)
    while head:
        if len(head) < 8:
            raise WireError("truncated", "inside a block")
        if head[:4] == b"\x0a\x0d\x0d\x0a":
            # Each section declares its byte order, and numbers its interfaces from 0.
            mark = _exactly(file, 4)
            order = "<" if mark == b"\x4d\x3c\x2b\x1a" else ">" if mark == b"\x1a\x2b\x3c\x4d" else ""
            if not order:
                raise WireError("capture", "no byte order in the section header")
            linktypes = []
            (length,) = Struct(order + "I").unpack(head[4:])
            _body(file, length, 12)
        else:
            kind, length = Struct(order + "II").unpack(head)
            body = _body(file, length, 8)
            if kind == _INTERFACE:
                linktypes.append(Struct(order + "H").unpack_from(_at_least(body, 8))[0])
            elif kind == _ENHANCED:
                interface, _, _, captured, original = Struct(order + "IIIII").unpack_from(_at_least(body, 20))
                if interface >= len(linktypes) or captured > len(body) - 20:
                    raise WireError("capture", "a packet block that contradicts itself")
                if linktypes[interface] == ETHERNET and captured == original:
                    yield body[20 : 20 + captured]
            elif kind == _SIMPLE and linktypes and linktypes[0] == ETHERNET:
                (original,) = Struct(order + "I").unpack_from(_at_least(body, 4))
                if original <= len(body) - 4:
                    yield body[4 : 4 + original]
        head = file.read(8)


def _body(file: BinaryIO, length: int, already: int) -> bytes:
    if length % 4 or not already + 4 <= length <= MAX_BLOCK:
        raise WireError("capture", f"a block of {length} bytes")
    return _exactly(file, length - already)[:-4]


def _at_least(body: bytes, size: int) -> bytes:
    if len(body) < size:
        raise WireError("truncated", "a block too short for its kind")
    return body


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise WireError("truncated", "the file breaks off")
    return data


class CaptureWriter:
    """A classic pcap, little-endian, microseconds."""

    _record = Struct("<IIII")

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.write(Struct("<IHHiIII").pack(0xA1B2C3D4, 2, 4, 0, 0, SNAPLEN, ETHERNET))

    def write(self, frame: bytes, when: float) -> None:
        """One Ethernet frame (without `virtio_net_hdr`), at `when` seconds since 1970."""
        microseconds = int(when * 1_000_000)
        head = self._record.pack(microseconds // 1_000_000, microseconds % 1_000_000, len(frame), len(frame))
        self._file.write(head + frame)
