"""`--notify-dev` on a chardev: the words that QEMU's compare and a Xen COLO frame exchange.

::

    frame -> us    COLO_USERSPACE_PROXY_INIT       hello
    us -> frame    COLO_COMPARE_GET_XEN_INIT       the answer to it
    us -> frame    DO_CHECKPOINT                   a checkpoint is demanded; only one demand at a time
    frame -> us    COLO_CHECKPOINT                 it is done: state was copied, flush the queues

Each word has its length in front. With `vnet_hdr=on` QEMU reads the additional length field on this stream but does not
write it; this module does the same. There is no word by which that frame learns that the flush is complete.
"""

from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final

from colo_proto.chardev import WordParser, word
from colo_proto.endpoint import Endpoint
from colo_proto.errors import WireError
from colo_proto.messages import CheckpointDone, CheckpointWanted, Message
from colo_runtime.context import Context
from colo_runtime.stream import Stream

INIT: Final = b"COLO_USERSPACE_PROXY_INIT"
INIT_ANSWER: Final = b"COLO_COMPARE_GET_XEN_INIT"
WANTED: Final = b"DO_CHECKPOINT"
DONE: Final = b"COLO_CHECKPOINT"

AGAIN: Final = 5.0
"""Seconds after which an unanswered DO_CHECKPOINT may be sent again, if the core still demands a checkpoint."""
MAX_WORD: Final = 1024
MAX_PENDING: Final = 65536
"""Bytes that may wait for a peer which does not read."""


class Notify:
    """Used in place of `Control` for a frame that speaks QEMU's words."""

    def __init__(self, endpoint: Endpoint, context: Context, hear: Callable[[Message], None]) -> None:
        self.counters: Counter[str] = Counter()
        self.context = context
        self._hear = hear
        self._vnet_hdr = endpoint.vnet_hdr
        self._asked: float | None = None
        self._stream = Stream(endpoint, context, "--notify-dev")
        self._stream.on_up = self._up
        self._stream.on_data = self._data
        self._parser = WordParser(vnet_hdr=endpoint.vnet_hdr, limit=MAX_WORD)

    def open(self) -> None:
        """Listen or connect."""
        self._stream.open()

    def tell(self, message: Message) -> None:
        """Send a message; only the demand for a checkpoint has a word."""
        if not isinstance(message, CheckpointWanted):
            return
        now = monotonic()
        if self._asked is not None and now - self._asked < AGAIN:
            self.counters["coalesced"] += 1
            return
        self._asked = now
        self._ask()

    def _ask(self) -> None:
        # Without the additional length field, even with vnet_hdr=on: QEMU does not write it either.
        if self._stream.send([word(WANTED)], MAX_PENDING):
            self.counters["checkpoints_asked"] += 1

    def _up(self) -> None:
        self._parser = WordParser(vnet_hdr=self._vnet_hdr, limit=MAX_WORD)
        if self._asked is not None:
            self._ask()

    def _data(self, data: memoryview) -> None:
        for one in self._parser.feed(data):
            self._word(one)
        try:
            self._parser.check()
        except WireError as error:
            self._refuse(error.reason, str(error))
            self._stream.hang_up()

    def _word(self, one: bytes) -> None:
        if one == INIT:
            self._stream.send([word(INIT_ANSWER)], MAX_PENDING)
        elif one == DONE:
            self._asked = None
            self.context.epoch += 1
            self._hear(CheckpointDone(self.context.epoch, state_copied=True))
        else:
            self._refuse("unknown_word", f"unknown word {one[:40]!r}")

    def _refuse(self, reason: str, error: str) -> None:
        self.counters["wire_errors." + reason] += 1
        self.context.complain("message.refused", "notify", port="notify_dev", error=error)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
