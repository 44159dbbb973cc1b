"""`--notify-dev` on a chardev: the words that QEMU's compare and a Xen COLO frame exchange.

::

    frame -> us    COLO_USERSPACE_PROXY_INIT       hello
    us -> frame    COLO_COMPARE_GET_XEN_INIT       and the answer to it
    us -> frame    DO_CHECKPOINT                   please; one outstanding at a time
    frame -> us    COLO_CHECKPOINT                 done: state was copied, flush

Words are framed by their length. With `vnet_hdr=on` QEMU reads the extra length field on this stream
but does not write it; so do we. Nothing tells that frame when the flush is over.
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
"""Seconds after which an unanswered DO_CHECKPOINT may be said again, when the core still asks."""
MAX_WORD: Final = 1024


class Notify:
    """Stands where `Control` stands, for a frame that speaks QEMU's words."""

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
        """Only the wish for a checkpoint has a word."""
        if not isinstance(message, CheckpointWanted):
            return
        now = monotonic()
        if self._asked is not None and now - self._asked < AGAIN:
            self.counters["coalesced"] += 1
            return
        self._asked = now
        self._ask()

    def _ask(self) -> None:
        # Never with the extra field, not even with vnet_hdr=on: QEMU's asymmetry.
        if self._stream.send([word(WANTED)], 65536):
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
            self.counters["wire_errors." + error.reason] += 1
            self.context.complain("message.refused", "notify", port="notify_dev", error=str(error))
            self._stream.hang_up()

    def _word(self, one: bytes) -> None:
        if one == INIT:
            self._stream.send([word(INIT_ANSWER)], 65536)
        elif one == DONE:
            self._asked = None
            self.context.epoch += 1
            self._hear(CheckpointDone(self.context.epoch, state_copied=True))
        else:
            self.counters["wire_errors.unknown_word"] += 1
            self.context.complain("message.refused", "notify", port="notify_dev", error=f"unknown word {one[:40]!r}")

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
