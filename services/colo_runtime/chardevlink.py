"""QEMU's chardev as a link: `colo_proto.chardev` on a `Stream`, in both directions on one connection.

Frames that are sent while no peer is connected are dropped and counted, as in QEMU. Frames that the peer does not read
fast enough are queued up to the bound in bytes, and then dropped. A reliable input of the same process is held back
before either happens (`stalled`). This byte stream has no acknowledgements: what a peer had not read when it died is
lost, and nobody notices.
"""

from collections.abc import Sequence
from typing import Final

from colo_proto.chardev import ChardevParser, encode
from colo_proto.errors import WireError
from colo_proto.frame import Buffer
from colo_runtime.link import BATCH_FRAMES, Link
from colo_runtime.stream import Stream

SLOW_PEER_BYTES: Final = 1 << 20
"""Bytes queued for a slow peer above which reliable inputs are held back (half the bound, where that is less)."""


class ChardevLink(Link):
    """See the module."""

    def open(self) -> None:
        """Listen or connect."""
        self._stream = Stream(self.endpoint, self.context, self.option)
        self._stream.on_up = self._up
        self._stream.on_data = self._data
        self._stream.on_down = self._down
        self._stream.on_drained = self._drained
        self._slow = False
        self._new_parser()
        self._stream.open()

    @property
    def stalled(self) -> str:
        """Not empty without a peer, or with one that is far behind."""
        if not self.opened or not self._stream.up:
            return f"nobody is connected to {self.option}"
        return f"the peer of {self.option} does not keep up" if self._slow else ""

    @property
    def pending(self) -> int:
        """Bytes queued for the peer."""
        return self._stream.pending

    def gauges(self) -> dict[str, int]:
        """The queue and the connection."""
        return super().gauges() | {"peers": int(self._stream.up)}

    def _new_parser(self) -> None:
        self._parser = ChardevParser(self.counters, vnet_hdr=self.endpoint.vnet_hdr)

    def _up(self) -> None:
        # The rest of an incomplete frame of the last connection is not the beginning of this one.
        self._new_parser()
        self.context.on_ready()

    def _down(self, lost: int) -> None:
        self._slow = False
        if lost:
            self._lose("disconnected", lost)
        if self._parser.partial:
            self.counters["truncated"] += 1
        self.context.on_ready()

    def _drained(self) -> None:
        if self._slow:
            self._slow = False
            self.context.on_ready()

    def _lose(self, reason: str, frames: int) -> None:
        self.drop(reason, frames)
        self.context.on_lost(self.port, reason, frames)

    def _data(self, data: memoryview) -> None:
        if self._stopped or not self.reads:
            # We expect nothing on an output, and want nothing more when we drain. But a peer whose data is not read
            # would stand still.
            self.counters["ignored_bytes"] += len(data)
            return
        frames = self._parser.feed(data)
        if self._parser.vnet_hdr_len is not None:
            self.context.vnet_hdr_len = self._parser.vnet_hdr_len
        for name in ("empty", "runt", "giant", "vnet_hdr_len"):
            refused = self.counters.pop(name, 0)
            if refused:
                self.counters["wire_errors." + name] += refused
                self.context.complain("frame.refused", f"{self.port} {name}", port=self.port, reason=name)
        for at in range(0, len(frames), BATCH_FRAMES):
            self.pass_on(frames[at : at + BATCH_FRAMES])
        try:
            self._parser.check()
        except WireError as error:
            self.refuse(error)
            self._new_parser()
            self._stream.hang_up()

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send the frames in QEMU's framing."""
        self.count_sent(frames)
        if not self._stream.up:
            self._lose("disconnected", len(frames))
            return
        context, endpoint = self.context, self.endpoint
        length = endpoint.vnet_hdr_len if context.vnet_hdr_len is None else context.vnet_hdr_len
        messages = encode(frames, vnet_hdr=endpoint.vnet_hdr, vnet_hdr_len=length)
        if len(messages) < len(frames):
            self.drop("offload", len(frames) - len(messages))
        if messages and not self._stream.send(messages, context.common.queue_bytes):
            self._lose("queue_full" if self._stream.up else "disconnected", len(messages))
        if not self._slow and self._stream.pending > min(SLOW_PEER_BYTES, context.common.queue_bytes // 2):
            self._slow = True
            context.on_ready()

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
