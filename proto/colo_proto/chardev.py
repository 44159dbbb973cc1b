"""QEMU's framing of frames on a byte stream (`-chardev socket`, `-netdev stream`).

::

    vnet_hdr=off   | u32 length |                  | Ethernet frame …                 |
    vnet_hdr=on    | u32 length | u32 vnet_hdr_len | virtio_net_hdr | Ethernet frame … |
                                                   |<----------- length ------------->|

Numbers are big-endian; `length` counts the bytes after the one or two numbers. There is no handshake and no
resynchronisation: both ends must agree on `vnet_hdr_support`. The state of the parser belongs to one connection (QEMU
keeps it across a reconnect and then forwards a garbled frame; we do not).

`ChardevParser` turns the bytes of one connection into frames of our form, `encode` does the opposite. QEMU accepts up
to 69,632 bytes after the numbers and aborts on length 0; here length 0 is skipped and counted, and a length above the
limit ends the connection.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

from colo_proto.errors import WireError
from colo_proto.frame import MAX_FRAME, MIN_FRAME, NO_OFFLOAD, VNET_HDR_LEN, Buffer
from colo_proto.net.offload import to_plain

MAX_LENGTH: Final = 69632
"""QEMU's NET_BUFSIZE: 4,096 + 65,536."""

VNET_HDR_LENS: Final = (0, 10, 12, 20)
"""The lengths of a header: none, legacy, with num_buffers (virtio 1), with a hash report."""
MAX_VNET_HDR: Final = 64

_U32 = Struct("!I")
_LENGTH: Final[Callable[[bytes, int], tuple[int]]] = _U32.unpack_from
_U32X2 = Struct("!II")


class WordParser:
    """Turns bytes, in pieces of any size, into the messages behind their lengths: by itself, into the words of the
    `notify_dev` conversation. Empty ones are left out.
    """

    def __init__(self, limit: int = 1024, *, vnet_hdr: bool = False) -> None:
        self._vnet = vnet_hdr
        self._head = 8 if vnet_hdr else 4
        self._limit = limit
        self._rest = b""

    def check(self) -> None:
        """`WireError` when the next length is above the limit: no more messages can be found on the connection."""
        if len(self._rest) >= 4:
            (length,) = _U32.unpack_from(self._rest)
            if length > self._limit:
                raise WireError("oversized", f"length {length}, at most {self._limit}")

    @property
    def partial(self) -> int:
        """Bytes of a message that is not complete yet."""
        return len(self._rest)

    def feed(self, data: Buffer) -> list[bytes]:
        """The messages that `data` completes. `data` is not kept. After a length above the limit the messages before it
        are returned, and `check` raises.
        """
        found: list[bytes] = []
        while self._rest and len(data):
            # Only the message that was cut is joined; the others are taken from `data` directly.
            short = self._missing()
            if not short:
                return found
            cut = self._rest + data[:short]
            data, self._rest = data[short:], b""
            self._take(cut, found)
        if len(data):
            # One copy of everything: slices of bytes cost half as much as slices of a view.
            self._take(bytes(data), found)
        return found

    def _missing(self) -> int:
        """Bytes that are missing until the next length, or the message, is complete; 0 when the length is above the
        limit.
        """
        rest = self._rest
        if len(rest) < 4:
            return 4 - len(rest)
        (length,) = _U32.unpack_from(rest)
        return 0 if length > self._limit else self._head + int(length) - len(rest)

    def _take(self, data: bytes, found: list[bytes]) -> None:
        """Add the messages that `data` begins with to `found`, and keep the rest."""
        at = 0
        while len(data) - at >= 4:
            (length,) = _LENGTH(data, at)
            end = at + self._head + length
            if length > self._limit or end > len(data):
                break
            if length:
                found.append(data[at + self._head : end])
            at = end
        self._rest = data[at:]


class ChardevParser(WordParser):
    """Turns the bytes of one connection, in pieces of any size, into frames.

    `counters` counts the frames that are left out, by reason: `empty` (length 0), `runt`, `giant`, `vnet_hdr_len`.
    """

    def __init__(self, counters: Counter[str], *, vnet_hdr: bool = False, limit: int = MAX_LENGTH) -> None:
        super().__init__(limit, vnet_hdr=vnet_hdr)
        self.counters = counters
        self.vnet_hdr_len: int | None = None
        """Header length of the last frame that had one."""

    def _take(self, data: bytes, found: list[bytes]) -> None:
        at, size, head, limit = 0, len(data), self._head, self._limit
        while size - at >= 4:
            (length,) = _LENGTH(data, at)
            if length > limit or size - at < head + length:
                break
            body = at + head
            at = body + length
            if not length:
                self.counters["empty"] += 1
                continue
            frame = self._with_header(data, body, at) if self._vnet else NO_OFFLOAD + data[body:at]
            if frame is None:
                continue
            if len(frame) < MIN_FRAME:
                self.counters["runt"] += 1
            elif len(frame) > MAX_FRAME:
                self.counters["giant"] += 1
            else:
                found.append(frame)
        self._rest = data[at:]

    def _with_header(self, data: bytes, body: int, end: int) -> bytes | None:
        (header,) = _LENGTH(data, body - 4)
        if header == 0:
            self.vnet_hdr_len = 0
            return NO_OFFLOAD + data[body:end]
        if not VNET_HDR_LEN <= header <= MAX_VNET_HDR or body + header > end:
            self.counters["vnet_hdr_len"] += 1
            return None
        if header in VNET_HDR_LENS:
            self.vnet_hdr_len = header
        if header == VNET_HDR_LEN:
            return data[body:end]
        # The bytes after the first ten (num_buffers, hash) describe the buffers of the receiver, not the frame.
        return data[body : body + VNET_HDR_LEN] + data[body + header : end]


def encode(frames: Sequence[Buffer], *, vnet_hdr: bool, vnet_hdr_len: int = VNET_HDR_LEN) -> list[bytes]:
    """The bytes of each frame on the stream. Without a header on the stream, offloads are done here: one frame may
    become several, or none when its header is inconsistent.
    """
    if not vnet_hdr or vnet_hdr_len == 0:
        zero = bytes(4) if vnet_hdr else b""
        messages = []
        for frame in frames:
            if isinstance(frame, bytes) and not frame[0] and not frame[1]:
                messages.append((len(frame) - VNET_HDR_LEN).to_bytes(4, "big") + zero + frame[VNET_HDR_LEN:])
            else:
                messages += [_U32.pack(len(plain)) + zero + plain for plain in to_plain(frame)]
        return messages
    # Bytes 10 and 11 are num_buffers, which only a receiver with merged buffers sets (virtio 1.2 §5.1.6.1).
    fill = bytes(vnet_hdr_len - VNET_HDR_LEN)
    return [
        b"".join((
            _U32X2.pack(len(frame) + len(fill), vnet_hdr_len), frame[:VNET_HDR_LEN], fill, frame[VNET_HDR_LEN:],
        ))
        for frame in frames
    ]  # fmt: skip


def word(message: bytes) -> bytes:
    """One word, framed as QEMU's compare writes it: never with a `vnet_hdr_len`."""
    return _U32.pack(len(message)) + message
