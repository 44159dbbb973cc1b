"""How much of what others say the frame takes in and keeps, so that nobody can fill its memory or break its answers.

An answer to `colo status` holds all that is kept, in one message. So what is kept must fit into a message
(`codec.MAX_MESSAGE`) and must not be nested too deep for one (`codec.MAX_DEPTH`, of which the answer itself takes
five). A *weight* is what a value takes at most in a message, and within a small factor what it takes in memory: 16 for
each value and key, and the length of text.
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
"""Weight of what a wish for a checkpoint says for people."""
MAX_BODY: Final = 4 << 10
"""Weight of what a heartbeat says for people."""
EACH: Final = 16


class TooMuchError(Exception):
    """A value is too much to be kept; `reason` is `depth`, `size` or `key`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def weigh(value: object, depth: int, most: int) -> int:
    """The weight of a value; `TooMuchError` when it is more than `most`, nested deeper than `depth`, or has keys that
    are no text.
    """
    return most - _rest(value, depth, most)


def _rest(value: object, depth: int, left: int) -> int:
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
                left = _rest(value[one], depth - 1, left)
            left = _rest(one, depth - 1, left)
            if left < 0:
                break
    if left < 0:
        raise TooMuchError("size", "too large")
    return left


def fits(value: object, depth: int, most: int) -> bool:
    """True when it weighs no more than that."""
    try:
        weigh(value, depth, most)
    except TooMuchError:
        return False
    return True


def is_text(sender: str) -> bool:
    """False for a routing id that is not UTF-8 (its other bytes are surrogates in `sender`)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in sender)


def proper(hello: Hello) -> bool:
    """True when the names in an introduction are short enough to be names."""
    words = (hello.role, hello.mode)
    return max(map(len, words)) <= MAX_WORD and max(len(hello.id.encode()), len(hello.http.encode())) <= MAX_NAME


def modest(wish: CheckpointWanted) -> CheckpointWanted | None:
    """The wish without what is too much in it, or None when nothing is. A checkpoint is wanted in either case."""
    detail = wish.detail if fits(wish.detail, MAX_DEPTH, MAX_DETAIL) else {}
    reason, flow, source = wish.reason[:MAX_WORD], wish.flow[:MAX_FLOW], wish.source[:MAX_NAME]
    if (reason, flow, source) == (wish.reason, wish.flow, wish.source) and detail is wish.detail:
        return None
    return replace(wish, reason=reason, flow=flow, source=source, detail=detail)


def remembered(beat: Heartbeat) -> Heartbeat | None:
    """What is kept of a heartbeat; None when no frame can have sent it."""
    if beat.role not in SIDES or max(len(beat.mode), len(beat.state)) > MAX_WORD:
        return None
    body: dict[str, Any] = beat.body if fits(beat.body, 2, MAX_BODY) else {}
    return replace(beat, body=body, table=None, claim=b"")
