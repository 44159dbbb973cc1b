"""How much of what others say the frame keeps, so that nobody can fill its memory or make its answers too large.

An answer to `colo status` holds all that is kept, in one message. So what is kept must fit into a message
(`codec.MAX_MESSAGE`) and must not be nested too deep for one (`codec.MAX_DEPTH`, of which the answer itself takes
five). The *weight* of a value is what it takes at most in a message, and within a small factor what it takes in memory:
16 for each value and key, and the length of text.
"""

from dataclasses import replace
from typing import Any, Final

from colo_frame.config import SIDES
from colo_proto.messages import CheckpointWanted, Heartbeat, Hello

MAX_NAME: Final = 255
"""Bytes of a process's id. ZeroMQ does not allow longer routing ids."""
MAX_WORD: Final = 64
"""Characters of a role, a mode, a reason."""
MAX_FLOW: Final = 512
MAX_DEPTH: Final = 8
"""Levels of lists and maps inside each other in a report. The deepest of our own reports has three."""
MAX_REPORT: Final = 256 << 10
"""Weight of one report. Our own weigh some 2,500; those of compare also hold differences and rules (up to 64 KiB)."""
MAX_KEPT: Final = 2 << 20
"""Weight of all reports that are kept."""
MAX_DETAIL: Final = 8 << 10
"""Weight of the part of a request for a checkpoint that only people read."""
MAX_BODY: Final = 4 << 10
"""Weight of the part of a heartbeat that only people read."""
EACH: Final = 16


class TooMuchError(Exception):
    """A value is too large to be kept; `reason` is `depth`, `size` or `key`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def weigh(value: object, depth: int, most: int) -> int:
    """The weight of a value; `TooMuchError` when it is more than `most`, when lists and maps are nested deeper than
    `depth`, or when a map has keys that are no text.
    """
    return most - _remaining(value, depth, most)


def _remaining(value: object, depth: int, left: int) -> int:
    """What is left of `left` after this value. It stops at once where nothing is left: a message may be long."""
    left -= EACH
    if isinstance(value, str):
        # A character takes up to four bytes in UTF-8. They are counted only where there are such characters.
        left -= len(value) if value.isascii() else len(value.encode())
    elif isinstance(value, bytes):
        left -= len(value)
    elif isinstance(value, list | dict):
        if depth <= 0:
            raise TooMuchError("depth", "nested too deep")
        for one in value:
            if isinstance(value, dict):
                if not isinstance(one, str):
                    raise TooMuchError("key", "a key that is no text")
                left = _remaining(value[one], depth - 1, left)
            left = _remaining(one, depth - 1, left)
    if left < 0:
        raise TooMuchError("size", "too large")
    return left


def _bounded(value: dict[str, Any], depth: int, most: int) -> dict[str, Any]:
    """The value, or an empty one when it is too large."""
    try:
        weigh(value, depth, most)
    except TooMuchError:
        return {}
    return value


def is_text(sender: str) -> bool:
    """False for a routing id that is not UTF-8 (its other bytes are surrogates in `sender`)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in sender)


def has_valid_names(hello: Hello) -> bool:
    """True when the names in an introduction are not too long."""
    words = (hello.role, hello.mode)
    return max(map(len, words)) <= MAX_WORD and max(len(hello.id.encode()), len(hello.http.encode())) <= MAX_NAME


def trim_request(request: CheckpointWanted) -> CheckpointWanted:
    """The request without what is too long in it. It counts in either case."""
    reason, flow, source = request.reason[:MAX_WORD], request.flow[:MAX_FLOW], request.source[:MAX_NAME]
    detail = _bounded(request.detail, MAX_DEPTH, MAX_DETAIL)
    return replace(request, reason=reason, flow=flow, source=source, detail=detail)


def trim_heartbeat(beat: Heartbeat) -> Heartbeat | None:
    """What is kept of a heartbeat; None when no frame can have sent it."""
    if beat.role not in SIDES or max(len(beat.mode), len(beat.state)) > MAX_WORD:
        return None
    return replace(beat, body=_bounded(beat.body, 2, MAX_BODY), table=None, claim=b"", verdict={}, broken=[])
