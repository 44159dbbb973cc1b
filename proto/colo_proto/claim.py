"""Claims: what each side of a pair says about who may write to the client LAN, so that a cut link between the hosts is
not mistaken for a dead host.

The COLO frames of the two hosts speak over the `peer` link. A claim is sent there inside each heartbeat, and a second
time as an Ethernet frame between the two hosts' ports on the client LAN (the LAN heartbeat)::

    dst ff:ff:ff:ff:ff:ff  src 06:xx:xx:xx:xx:0s  type 0x88B5 (IEEE 802 local experimental 1)
    "COLO" version side | incarnation 8 | count 8 | fence 8 | echo_of 8 | echo 8 | sent ms 8 | lease ms 4 | bits 1
    | state 1 | answers 4 x (incarnation 8, count 8) | gate 16 | seal 16

Everybody on the LAN can send anything there, and can repeat what was sent before. So a claim carries two proofs.

**Who made it.** `gate` and `seal` are HMAC-SHA256 of all fields before them, cut to 128 bits, under two keys that are
derived from the pair's secret (`derive`). The filters have the gate's key alone, by which they tell claims of the pair
from junk (`colo_proto.lan`). Only the COLO frames have the seal's, so a filter can sort claims but not make one.

**When it was made.** `incarnation` is a random number that a COLO frame draws at its start, and `count` numbers its
claims: together they are a nonce that is different for each claim. `echo` and `answers` repeat such nonces of the other
side; a claim that repeats one was made after it. What a listener believes is in `colo_frame.freshness`.
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
_HEAD: Final = Struct("!5sBQQ").unpack_from
_LIMIT: Final = 1 << 63
"""Numbers in control messages are smaller. Tokens and counts go on from what was heard, so they must stay far below."""
_SIDES: Final = ("primary", "secondary")
CLAIM: Final = _END + 2 * _SEAL
"""Length of every claim in bytes, with the offload header. A frame of another length is no claim."""
MIN_SECRET: Final = 16
"""Least length of a pair's secret, in bytes."""
MAX_SECRETS: Final = 4
"""Most secrets at a time: the one that seals, and others whose claims are still, or already, believed."""


class State:
    """The states of a side (`colo_frame.leadership`): values of `Stand.state`."""

    ASKING = "asking"
    """Primary: it has just started, or it stalled. It does not write until it knows that it may."""
    HOLDING = "holding"
    """Primary: it writes, and the secondary is alive."""
    LEAVING = "leaving"
    """Primary: the secondary is silent. The primary writes, and announces that it will go on alone; a secondary that
    hears this does not take over.
    """
    ALONE = "alone"
    """Primary: it writes without a secondary."""
    YIELDING = "yielding"
    """Primary: the secondary has taken over, but leases of this host are still valid."""
    FENCED = "fenced"
    """Either side: the other one has the LAN. It does not write."""
    STANDBY = "standby"
    """Secondary: it is ready to take over, and does not write."""
    TAKING = "taking"
    """Secondary: it wants the LAN, and waits until the primary has certainly stopped writing."""
    PROMOTED = "promoted"
    """Secondary: it has the LAN, and writes."""
    ALL = (ASKING, HOLDING, LEAVING, ALONE, YIELDING, FENCED, STANDBY, TAKING, PROMOTED)


@dataclass(frozen=True, slots=True)
class Stand:
    """What one side says about itself in a claim. `count` numbers the claims of an incarnation, which go both ways."""

    side: str
    incarnation: int
    count: int
    fence: int
    state: str
    protected: bool = False
    """Primary: everything that is released has been compared, so the secondary could take over."""
    ask: bool = False
    """The other side shall answer at once."""
    lease_ms: int = 0
    """For how long its filters may go on writing without hearing from it again."""
    echo_of: int = 0
    """Incarnation of the other side whose claim was believed last."""
    echo: int = 0
    """The `count` of that claim."""
    sent_ms: int = 0
    """When the claim was made, by the speaker's own clock, which begins at any time. Two claims of a speaker show how
    much time lies between them.
    """
    vote: bool = False
    """It writes only with a third vote (`colo vote`)."""
    agrees: bool = False
    """It does not write, and will not before the speaker of the claim that it repeats must have stopped. So that one
    may go on although the store of the third vote is out of reach.
    """
    answers: tuple[tuple[int, int], ...] = ()
    """Incarnation and count of claims that were heard and not believed, at most `MAX_ANSWERS`. They prove to their
    speaker, if it has made them just now, that this claim is new.
    """


@dataclass(frozen=True, slots=True)
class Keys:
    """The two keys that are derived from one secret of a pair."""

    gate: bytes
    seal: bytes


def derive(secret: bytes, pair: str) -> Keys:
    """The keys of the pair called `pair`. With an empty secret they follow from the name, so anybody can make claims.
    `ConfigError` when the secret is too short.
    """
    if secret and len(secret) < MIN_SECRET:
        raise ConfigError(f"the pair's secret: at least {MIN_SECRET} bytes, not {len(secret)}")
    names = (b"colo claim 2 gate ", b"colo claim 2 seal ")
    return Keys(*(digest(secret or b"no secret", name + pair.encode(), "sha256") for name in names))


def source_mac(pair: str, side: str) -> bytes:
    """The source address of a side's claims: locally administered, and not the guest's."""
    return b"\x06" + blake2b(pair.encode(), digest_size=4).digest() + bytes((_SIDES.index(side) + 1,))


def write_claim(stand: Stand, pair: str, keys: Keys) -> bytes:
    """The Ethernet frame, with its offload header, that claims `stand`."""
    bits = stand.protected | stand.ask << 1 | stand.vote << 2 | stand.agrees << 3
    answers = (*stand.answers[:MAX_ANSWERS], *[(0, 0)] * MAX_ANSWERS)[:MAX_ANSWERS]
    body = _BODY.pack(
        _MAGIC, _SIDES.index(stand.side), stand.incarnation, stand.count, stand.fence, stand.echo_of, stand.echo,
        stand.sent_ms, stand.lease_ms, bits, State.ALL.index(stand.state), *(n for answer in answers for n in answer),
    )  # fmt: skip
    proofs = _sign(body, keys.gate) + _sign(body, keys.seal)
    return NO_OFFLOAD + b"\xff" * 6 + source_mac(pair, stand.side) + ETHERTYPE + body + proofs


def read_claim(frame: Buffer, keys: Sequence[Keys]) -> Stand:
    """What a frame with our EtherType claims. `WireError` when it is no claim that is sealed with one of `keys`."""
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
        sent, bool(bits & 4), bool(bits & 8), tuple(answer for answer in answers if answer != (0, 0)),
    )  # fmt: skip
    if not in_range(stand):
        raise WireError("claim", "numbers that cannot be counted on")
    return stand


def in_range(stand: Stand) -> bool:
    """False for numbers that no COLO frame says, and that could not be answered."""
    counted = (stand.count, stand.fence, stand.echo, *(count for _, count in stand.answers))
    names = (stand.incarnation, stand.echo_of, *(name for name, _ in stand.answers))
    numbers = (stand.lease_ms, stand.sent_ms, *names, *counted)
    return min(numbers) >= 0 and max(numbers) < _LIMIT and 2 * max(counted) < _LIMIT and stand.lease_ms < 1 << 32


def is_claim(frame: Buffer) -> bool:
    """True for a frame with our EtherType, which is nothing for a guest."""
    return frame[ETH + 12 : ETH + 14] == ETHERTYPE


def peek(frame: Buffer, gates: Sequence[bytes]) -> tuple[int, int, int] | None:
    """Side (0 primary, 1 secondary), incarnation and count of a claim that passes one of the gates; None when it is
    junk. A flood of junk comes this far, so the cheapest checks come first.
    """
    if len(frame) != CLAIM:
        return None
    magic, side, incarnation, count = _HEAD(frame, _AT)
    if magic != _MAGIC:
        return None
    body, gate = bytes(frame[_AT:_END]), bytes(frame[_END : _END + _SEAL])
    passes = any(compare_digest(gate, _sign(body, key)) for key in gates)
    return (side, incarnation, count) if passes else None


def believed_speaker(frame: Buffer) -> int:
    """The incarnation of the other side that our own claim `frame` believes; 0 when it believes none."""
    return int(_BODY.unpack_from(frame, _AT)[5]) if len(frame) == CLAIM else 0


def _sign(body: bytes, key: bytes) -> bytes:
    return digest(key, body, "sha256")[:_SEAL]
