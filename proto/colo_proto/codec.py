"""The bytes of what crosses a ZeroMQ link: batches of frames, messages about the link itself, control messages.

Every message has one part: a msgpack array that begins with the wire version and a kind::

    batch    [1, 0, link, incarnation, sequence, epoch, timestamp, [frame, frame, …]]
    hello    [1, 1, link, incarnation, next]        receiver -> sender on a reliable link
    ack      [1, 2, link, incarnation, next]        receiver -> sender: everything before `next` is done
    reset    [1, 3, link, incarnation, sequence]    sender -> receiver: replay starts here, what was before is missing
    control  [1, 4, type, {field: value}]
    start    [1, 5, link, incarnation, sequence]    sender -> receiver: replay starts here, nothing is missing
    barrier  [1, 6, link, incarnation, version]     sender -> receiver: a barrier: the frames after it are distributed
                                                    by this worker table (-1: there is none yet)

`sequence` counts the frames on the link since the start of the sender (its `incarnation`); `timestamp` is the monotonic
clock of the sender in seconds. Messages of two parts were measured at a third of the rate of messages with one part.
The wire version changes only when an old reader would misunderstand new bytes; the golden bytes in
`tests/unit/proto/test_codec.py` notice every change.
"""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from math import isfinite
from struct import Struct
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

import msgpack

from colo_proto import messages
from colo_proto.errors import WireError
from colo_proto.frame import MAX_FRAME, MIN_FRAME, Buffer

WIRE_VERSION = 1

KIND_BATCH, KIND_HELLO, KIND_ACK, KIND_RESET, KIND_CONTROL, KIND_START, KIND_BARRIER = range(7)

MAX_BATCH_FRAMES = 64
MAX_BATCH_BYTES = 256 * 1024
"""A batch is complete when it has this many frames or bytes; the frame that reaches the bytes is its last one."""

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of the largest message that is decoded; a longer one is an error of the peer."""

MAX_CONTROL: Final = 512 * 1024
"""Bytes of the largest control message, except for those in `LARGE`. Decoding one may need a hundred times as much
memory for a moment.
"""

LARGE = (messages.Answer, messages.Handover)
"""Control messages that may be larger: they carry the status of a whole host, or the state of flows."""

MAX_LINK_NAME: Final = 512
"""Characters of the longest name of a link: an id and a port. Receivers remember the names of their senders."""

MAX_DEPTH = 16
"""How deep lists and maps may be nested in a field of any type; deeper ones could be decoded, but not encoded again."""

_U63 = 1 << 63


class Batch(NamedTuple):
    """Frames in order, with the numbers `sequence`, `sequence + 1`, … on their link."""

    link: str
    incarnation: int
    sequence: int
    epoch: int
    timestamp: float
    frames: list[bytes]


class LinkHello(NamedTuple):
    """A receiver attaches. `next` is the first sequence number that it wants; -1: it has none yet, start anywhere."""

    link: str
    incarnation: int
    next: int


class LinkAck(NamedTuple):
    """A receiver has passed on everything before `next` that this `incarnation` of the sender has sent."""

    link: str
    incarnation: int
    next: int


class LinkReset(NamedTuple):
    """A sender cannot replay from where the receiver asked: it continues at `sequence`, and frames are missing."""

    link: str
    incarnation: int
    sequence: int


class LinkStart(NamedTuple):
    """A sender answers a hello: it continues at `sequence`, and nothing before that is missing."""

    link: str
    incarnation: int
    sequence: int


class LinkBarrier(NamedTuple):
    """A barrier: frames after it were distributed by the worker table `version`, frames before it by an older one."""

    link: str
    incarnation: int
    version: int


Chatter = LinkHello | LinkAck | LinkReset | LinkStart | LinkBarrier
Wire = Batch | Chatter | messages.Message

_pack: Final[Callable[[object], bytes]] = msgpack.Packer(use_bin_type=True).pack

_ARRAY_OF_8 = b"\x98"
_BIN16, _BIN32 = Struct(">BH").pack, Struct(">BI").pack
_FIX = 16
"""The length of an array shorter than this is a part of its first byte (msgpack's fixarray)."""
_LARGE = 8192
"""Average bytes of a frame above which joining parts is faster than packing (measured)."""


def encode_batch(
    link: str, incarnation: int, sequence: int, epoch: int, timestamp: float, frames: Sequence[Buffer]
) -> bytes:
    """The bytes of one batch."""
    if len(frames) < _FIX and sum(map(len, frames)) > _LARGE * len(frames):
        return _joined(_pack((WIRE_VERSION, KIND_BATCH, link, incarnation, sequence, epoch, timestamp)), frames)
    return _pack((WIRE_VERSION, KIND_BATCH, link, incarnation, sequence, epoch, timestamp, frames))


def _joined(head: bytes, frames: Sequence[Buffer]) -> bytes:
    """The same bytes as the packer makes. The packer copies every frame twice; here each is copied once."""
    parts: list[Buffer] = [_ARRAY_OF_8, head[1:], bytes((0x90 | len(frames),))]
    for frame in frames:
        size = len(frame)
        if size > 0xFFFF:
            parts.append(_BIN32(0xC6, size))
        else:
            parts.append(_BIN16(0xC5, size) if size > 0xFF else bytes((0xC4, size)))
        parts.append(frame)
    return b"".join(parts)


def encode(value: Chatter | messages.Message) -> bytes:
    """The bytes of one message about a link, or of one control message."""
    if isinstance(value, tuple):
        return _pack((WIRE_VERSION, _KIND[type(value)], *value))
    return _pack((WIRE_VERSION, KIND_CONTROL, messages.NAMES[type(value)], messages.to_dict(value)))


def decode(data: Buffer) -> Wire:
    """The value of one message. `WireError` for anything that is not exactly well-formed."""
    if len(data) > MAX_MESSAGE:
        raise WireError("oversized", f"{len(data)} bytes")
    try:
        body = msgpack.unpackb(data, use_list=True, raw=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise WireError("undecodable", str(error)[:120]) from None
    if type(body) is not list or len(body) < 2:
        raise WireError("malformed", "not an array of a version and a kind")
    if body[0] != WIRE_VERSION or type(body[0]) is not int:
        raise WireError("version", f"{str(body[0])[:20]!r}, this side speaks {WIRE_VERSION}")
    kind = body[1]
    # False and 4.0 are equal to the numbers of kinds, but are not valid.
    if type(kind) is int:
        if kind == KIND_BATCH:
            return _batch(body)
        if kind in _CHATTER:
            return _chatter(body)
        if kind == KIND_CONTROL:
            return _control(body)
    raise WireError("kind", f"{str(kind)[:20]!r} is unknown")


def decode_message(data: Buffer) -> messages.Message:
    """The value of one message on a control link: a `WireError` as well for anything but a control message."""
    if len(data) > MAX_CONTROL and not bytes(data[:64]).startswith(_LARGE_HEADS):
        raise WireError("oversized", f"{len(data)} bytes of a control message")
    value = decode(data)
    if isinstance(value, messages.Message):
        return value
    raise WireError("unexpected", f"{type(value).__name__} on a control link")


def _batch(body: list[Any]) -> Batch:
    if len(body) != 8:
        raise WireError("malformed", "a batch has 8 elements")
    _, _, link, incarnation, sequence, epoch, timestamp, frames = body
    if (
        type(link) is not str
        or type(incarnation) is not int
        or type(sequence) is not int
        or type(epoch) is not int
        or type(timestamp) is not float
        or type(frames) is not list
        or not 0 <= sequence < _U63
        or not 0 <= incarnation < _U63
        or not 0 <= epoch < _U63
        or len(link) > MAX_LINK_NAME
    ):
        raise WireError("malformed", "batch header")
    if len(frames) > MAX_BATCH_FRAMES:
        raise WireError("oversized", f"{len(frames)} frames in a batch")
    for frame in frames:
        if type(frame) is not bytes or not MIN_FRAME <= len(frame) <= MAX_FRAME:
            raise WireError("frame", "not bytes of a frame's length")
    return Batch(link, incarnation, sequence, epoch, timestamp, frames)


def _chatter(body: list[Any]) -> Chatter:
    if len(body) != 5 or type(body[2]) is not str or type(body[3]) is not int or type(body[4]) is not int:
        raise WireError("malformed", "link chatter")
    if not (0 <= body[3] < _U63 and -1 <= body[4] < _U63 and len(body[2]) <= MAX_LINK_NAME):
        raise WireError("malformed", "link chatter out of range")
    return _CHATTER[body[1]](body[2], body[3], body[4])


def _control(body: list[Any]) -> messages.Message:
    if len(body) != 4 or type(body[2]) is not str or type(body[3]) is not dict:
        raise WireError("malformed", "control message")
    cls = messages.TYPES.get(body[2])
    if cls is None:
        raise WireError("unknown_message", body[2][:40])
    schema = _SCHEMA[body[2]]
    given = {}
    for name, value in body[3].items():
        check = schema.get(name)
        # A newer peer may send fields that we do not know; the fields that we know must have the right type.
        if check is None:
            continue
        if not _fits(value, check):
            raise WireError("malformed", f"{body[2]}.{name} has the wrong type")
        given[name] = value
    for spec in fields(cls):
        if spec.name not in given and spec.default is MISSING and spec.default_factory is MISSING:
            raise WireError("malformed", f"{body[2]}.{spec.name} is missing")
    return cast("messages.Message", cls(**given))


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (UnionType, Union):
        return any(_fits(value, part) for part in get_args(hint))
    if hint is Any:
        return _plain(value, MAX_DEPTH)
    if hint is float:
        # A time that is not a number would never be over.
        return type(value) is float and isfinite(value)
    if hint is int:
        # We count on from the epochs and versions of a peer, and must still be able to encode the result.
        return type(value) is int and _plain(value, 0)
    if hint in (NoneType, None):
        return value is None
    if origin is list:
        (item,) = get_args(hint)
        return type(value) is list and all(_fits(v, item) for v in value)
    if origin is dict:
        key, item = get_args(hint)
        return type(value) is dict and all(_fits(k, key) and _fits(v, item) for k, v in value.items())
    return type(value) is hint


def _plain(value: object, depth: int) -> bool:
    """True when we could encode `value` ourselves: it has no extension types, no integers of more than 63 bits (sums of
    them must still be encodable), and is nested at most `depth` deep.
    """
    kind = type(value)
    if kind is int:
        return -_U63 <= cast("int", value) < _U63
    if kind is list:
        return depth > 0 and all(_plain(v, depth - 1) for v in cast("list[object]", value))
    if kind is dict:
        items = cast("dict[object, object]", value).items()
        return depth > 0 and all(type(k) in (str, bytes) and _plain(v, depth - 1) for k, v in items)
    return kind in (str, bytes, float, bool, NoneType)


_CHATTER: dict[int, Callable[[str, int, int], Chatter]] = {
    KIND_HELLO: LinkHello, KIND_ACK: LinkAck, KIND_RESET: LinkReset, KIND_START: LinkStart,
    KIND_BARRIER: LinkBarrier,
}  # fmt: skip
_KIND: dict[object, int] = {cls: kind for kind, cls in _CHATTER.items()}

_LARGE_HEADS = tuple(b"\x94" + _pack((WIRE_VERSION, KIND_CONTROL, messages.NAMES[cls]))[1:] for cls in LARGE)
"""How a large one begins: an array of four elements, of which these are the first three."""
_SCHEMA: dict[str, dict[str, Any]] = {name: get_type_hints(cls) for name, cls in messages.TYPES.items()}
