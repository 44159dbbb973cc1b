"""Puts IP fragments together again, so that datagrams are compared and not the way in which they were cut.

::

    fragment -> add() -> Datagram when the last hole is filled
                  |
                  +-> dropped(): frames of datagrams that can never be whole (too old, too many, contradictory)

Every frame that is added comes out exactly once: in a `Datagram`, from `dropped`, or from `clear`. Fragments of one
datagram have the same version, addresses, protocol, identification and tags (RFC 791 §3.2, RFC 8200 §4.5). An IPv6
datagram with overlapping fragments is given up (RFC 5722). In IPv4 the bytes that came first count. The frames of exact
duplicates are kept with the others.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import takewhile
from typing import Final, NamedTuple

from colo_proto.frame import Buffer
from colo_proto.net.packet import Packet, dissect

MAX_BODY: Final = 65535

_Key = tuple[int, bytes, bytes, int, int, bytes]


class Datagram(NamedTuple):
    """A datagram that is whole again."""

    frames: tuple[Buffer, ...]
    """Its fragments as frames, in the order they came."""
    key: bytes
    """Flow key, with the ports of the first fragment."""
    proto: int
    body: bytes
    """From the L4 header to the end."""


class _Partial:
    __slots__ = ("began", "end", "frames", "key", "parts")

    def __init__(self, now: float) -> None:
        self.began = now
        self.frames: list[Buffer] = []
        self.parts: dict[int, bytes] = {}
        self.end = -1
        self.key = b""


class Reassembler:
    """At most `max_datagrams` unfinished ones of `max_bytes` together, none older than `timeout` seconds."""

    def __init__(self, max_datagrams: int, max_bytes: int, timeout: float) -> None:
        self.max_datagrams = max_datagrams
        self.max_bytes = max_bytes
        self.timeout = timeout
        self.size = 0
        self._partials: OrderedDict[_Key, _Partial] = OrderedDict()
        self._dropped: list[Buffer] = []

    def add(self, packet: Packet, now: float) -> Datagram | None:
        """Add a fragment (`Kind.FRAGMENT`). Returns the datagram when this was the last one missing."""
        key = (packet.version, packet.src, packet.dst, packet.proto, packet.ident, packet.tags)
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = _Partial(now)
        partial.frames.append(packet.frame)
        self.size += len(packet.frame)
        if not self._place(partial, packet):
            self._dropped += self._take(key).frames
            return None
        whole = self._whole(partial)
        if whole is not None:
            self._take(key)
            return Datagram(tuple(partial.frames), partial.key, packet.proto, whole)
        while len(self._partials) > self.max_datagrams or self.size > self.max_bytes:
            self._dropped += self._take(next(iter(self._partials))).frames
        return None

    @staticmethod
    def _place(partial: _Partial, packet: Packet) -> bool:
        """Put the bytes at their place; False when the fragments contradict each other."""
        start, body = packet.frag_offset, packet.payload()
        stop = start + len(body)
        if stop > MAX_BODY or (packet.more and (len(body) & 7 or not body)) or len(partial.frames) > 8192:
            return False
        if not packet.more:
            if partial.end not in (-1, stop):
                return False
            partial.end = stop
        if not start:
            partial.key = packet.key
        if partial.parts.get(start) == body:
            return True
        for at, part in partial.parts.items():
            if at < stop and start < at + len(part):
                # Its frame is kept, but its bytes do not count: those that came first do.
                return packet.version == 4
        partial.parts[start] = body
        return True

    @staticmethod
    def _whole(partial: _Partial) -> bytes | None:
        if partial.end < 0 or not partial.key:
            return None
        position = 0
        ordered = sorted(partial.parts.items())
        for at, part in ordered:
            if at != position:
                return None
            position += len(part)
        return b"".join(part for _, part in ordered) if position == partial.end else None

    def _take(self, key: _Key) -> _Partial:
        partial = self._partials.pop(key)
        self.size -= sum(map(len, partial.frames))
        return partial

    def expire(self, now: float) -> None:
        """Give up datagrams that are older than `timeout`."""
        for key in list(takewhile(lambda key: now - self._partials[key].began >= self.timeout, self._partials)):
            self._dropped += self._take(key).frames

    def extract(self, wanted: Callable[[bytes], bool]) -> list[tuple[float, list[Buffer]]]:
        """Remove the unfinished datagrams whose flow key `wanted` chooses; returns when each began, and its fragments.

        While the first fragment is missing, the key has addresses but no ports.
        """
        taken = []
        for key, partial in list(self._partials.items()):
            if wanted(partial.key or dissect(partial.frames[0]).key):
                self._take(key)
                taken.append((partial.began, partial.frames))
        return taken

    def dropped(self) -> list[Buffer]:
        """The frames that were given up since the last call."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def clear(self) -> list[Buffer]:
        """Forget everything, and return the frames that were kept."""
        return [frame for key in list(self._partials) for frame in self._take(key).frames]
