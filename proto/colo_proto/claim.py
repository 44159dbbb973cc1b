"""Claims: what each side of a pair says of who may write to the client LAN, so that a cut link between the hosts is
not mistaken for a dead host.

The two frames (processes) speak over the `peer` link. A claim goes there inside each heartbeat, and once more where it
matters, as an Ethernet frame between the two hosts' ports on the client LAN::

    dst ff:ff:ff:ff:ff:ff  src 06:xx:xx:xx:xx:0s  type 0x88B5 (IEEE 802 local experimental 1)
    "COLO" version side | incarnation 8 | count 8 | fence 8 | echo_of 8 | echo 8 | sent ms 8 | lease ms 4 | bits 1
    | state 1 | answers 4 x (incarnation 8, count 8) | gate 16 | seal 16

Whoever can write to the LAN can say anything there, and say again what was said before. So a claim carries two proofs.

**Who says it.** `gate` and `seal` are HMAC-SHA256 of all fields before them, cut to 128 bits, under two keys that are
derived from the pair's secret (`derive`). With the gate's key alone the filters tell claims of the pair from junk
(`colo_proto.lan`); only the frames have the seal's, so a filter can sort claims but not make one.

**When it was said.** `incarnation` is a random number that a frame draws at its start, and `count` numbers what it
says: together they are a nonce that changes with each word. `echo` and `answers` repeat such nonces of the other side;
whoever repeats one speaks after it was said. What a listener believes is in `colo_frame.freshness`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest, digest
from struct import Struct
from typing import Final

from colo_proto.errors import ConfigError, WireError
from colo_proto.frame import ETH, NO_OFFLOAD, Buffer

ETHERTYPE: Final = b"\x88\xb5"
VERSION: Final = 2
_MAGIC: Final = b"COLO" + bytes((VERSION,))
MAX_ANSWERS: Final = 4
_BODY: Final = Struct(f"!5sBQQQQQQIBB{2 * MAX_ANSWERS}Q")
_SEAL: Final = 16
_AT: Final = ETH + 14
_END: Final = _AT + _BODY.size
_NAME: Final = Struct("!5sBQQ").unpack_from
_ECHO_OF: Final = Struct("!Q").unpack_from
_ECHO_AT: Final = _AT + 30
_MOST: Final = 1 << 63
"""What control messages have room for; tokens and counts are counted on from what was heard, so they stay far below."""
_SIDES: Final = ("primary", "secondary")
CLAIM: Final = _END + 2 * _SEAL
"""Length of every claim, with the offload header: what has another one need not be looked at."""
MIN_SECRET: Final = 16
"""Bytes of a pair's secret, at least."""
MAX_SECRETS: Final = 4
"""Secrets that count at a time: the one that is sealed with, and those that are still, or already, believed."""


class State:
    """Where a side stands: values of `Stand.state`."""

    ASKING = "asking"
    """Primary: just started, or stood still for a while. Does not write until it knows that it may."""
    HOLDING = "holding"
    """Primary: writes, and the secondary lives."""
    LEAVING = "leaving"
    """Primary: the secondary is silent. Says that it will go on alone; a secondary that hears it steps back."""
    ALONE = "alone"
    """Primary: writes without a secondary."""
    YIELDING = "yielding"
    """Primary: the secondary has taken over; permissions to write still run."""
    FENCED = "fenced"
    """Either: the other side has the LAN. Nothing is written."""
    STANDBY = "standby"
    """Secondary: ready, and silent on the LAN."""
    TAKING = "taking"
    """Secondary: wants the LAN, and waits until the primary certainly no longer writes."""
    PROMOTED = "promoted"
    """Secondary: has the LAN."""
    ALL = (ASKING, HOLDING, LEAVING, ALONE, YIELDING, FENCED, STANDBY, TAKING, PROMOTED)


@dataclass(frozen=True, slots=True)
class Stand:
    """What one side says of itself. `count` numbers what an incarnation says, on both ways together."""

    side: str
    incarnation: int
    count: int
    fence: int
    state: str
    protected: bool = False
    """Primary: everything that leaves has been compared, so the secondary could carry on."""
    ask: bool = False
    """Answer at once."""
    lease_ms: int = 0
    """For how long its writers may go on writing without hearing from it again."""
    echo_of: int = 0
    """Incarnation of the other side that was believed last, and …"""
    echo: int = 0
    """… its `count`."""
    sent_ms: int = 0
    """When this was said, on the speaker's own clock, which no other knows: it tells how far apart two claims are."""
    answers: tuple[tuple[int, int], ...] = ()
    """Incarnation and count of words that were heard and not believed: whoever said one of them just now may believe
    this. At most `MAX_ANSWERS`."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Derived from one secret of a pair."""

    gate: bytes
    seal: bytes


def derive(secret: bytes, pair: str) -> Keys:
    """The keys of the pair called `pair`. Without a secret they follow from the name, and anybody can claim."""
    if secret and len(secret) < MIN_SECRET:
        raise ConfigError(f"the pair's secret: at least {MIN_SECRET} bytes, not {len(secret)}")
    names = (b"colo claim 2 gate ", b"colo claim 2 seal ")
    return Keys(*(digest(secret or b"no secret", name + pair.encode(), "sha256") for name in names))


def source_mac(pair: str, side: str) -> bytes:
    """The address that a side of the pair claims from: locally administered, and not the guest's."""
    return b"\x06" + blake2b(pair.encode(), digest_size=4).digest() + bytes((_SIDES.index(side) + 1,))


def write_claim(stand: Stand, pair: str, keys: Keys) -> bytes:
    """The frame that says `stand`."""
    bits = stand.protected | stand.ask << 1
    answers = (*stand.answers[:MAX_ANSWERS], *[(0, 0)] * MAX_ANSWERS)[:MAX_ANSWERS]
    body = _BODY.pack(
        _MAGIC, _SIDES.index(stand.side), stand.incarnation, stand.count, stand.fence, stand.echo_of, stand.echo,
        stand.sent_ms, stand.lease_ms, bits, State.ALL.index(stand.state), *(n for answer in answers for n in answer),
    )  # fmt: skip
    proofs = _sign(body, keys.gate) + _sign(body, keys.seal)
    return NO_OFFLOAD + b"\xff" * 6 + source_mac(pair, stand.side) + ETHERTYPE + body + proofs


def read_claim(frame: Buffer, keys: Sequence[Keys]) -> Stand:
    """What a frame with our EtherType says. `WireError` when it is no claim of this pair, sealed with one of `keys`."""
    if len(frame) != CLAIM:
        raise WireError("claim", "not a claim's length")
    body = bytes(frame[_AT:_END])
    magic, side, incarnation, count, fence, echo_of, echo, sent, lease, bits, state, *numbers = _BODY.unpack(body)
    if magic != _MAGIC or side >= len(_SIDES) or state >= len(State.ALL):
        raise WireError("claim", "not a claim, or of another version")
    seal = bytes(frame[_END + _SEAL :])
    if not any(compare_digest(seal, _sign(body, one.seal)) for one in keys):
        raise WireError("seal", "of another pair, or with another secret")
    answers = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    stand = Stand(
        _SIDES[side], incarnation, count, fence, State.ALL[state], bool(bits & 1), bool(bits & 2), lease, echo_of, echo,
        sent, tuple(answer for answer in answers if answer != (0, 0)),
    )  # fmt: skip
    if not in_range(stand):
        raise WireError("claim", "numbers that cannot be counted on")
    return stand


def in_range(stand: Stand) -> bool:
    """False for numbers that no frame of ours says, and that could not be answered."""
    counted = (stand.count, stand.fence, stand.echo, *(count for _, count in stand.answers))
    names = (stand.incarnation, stand.echo_of, *(name for name, _ in stand.answers))
    numbers = (stand.lease_ms, stand.sent_ms, *names, *counted)
    return min(numbers) >= 0 and max(numbers) < _MOST and 2 * max(counted) < _MOST and stand.lease_ms < 1 << 32


def is_claim(frame: Buffer) -> bool:
    """True for a frame with our EtherType: nothing for a guest."""
    return frame[ETH + 12 : ETH + 14] == ETHERTYPE


def glance(frame: Buffer, gates: Sequence[bytes]) -> tuple[int, int, int] | None:
    """Side (0 primary, 1 secondary), incarnation and count of a claim that passes one of the gates; None: junk. A flood
    of junk comes this far, so the cheapest look comes first.
    """
    if len(frame) != CLAIM:
        return None
    magic, side, incarnation, count = _NAME(frame, _AT)
    if magic != _MAGIC:
        return None
    body, gate = bytes(frame[_AT:_END]), bytes(frame[_END : _END + _SEAL])
    for key in gates:
        if compare_digest(gate, _sign(body, key)):
            return side, incarnation, count
    return None


def speaker(frame: Buffer) -> int:
    """Of a claim that we say ourselves: the incarnation of the other side that we believe; 0: none."""
    return int(_ECHO_OF(frame, _ECHO_AT)[0]) if len(frame) == CLAIM else 0


def _sign(body: bytes, key: bytes) -> bytes:
    return digest(key, body, "sha256")[:_SEAL]
