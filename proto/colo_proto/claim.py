"""Claims: what each side of a pair says on the client LAN itself, so that a cut link between the hosts is not
mistaken for a dead host.

The two frames (processes) speak over the `peer` link. A claim says the same once more where it matters,
as an Ethernet frame between the two hosts' ports on the client LAN::

    dst ff:ff:ff:ff:ff:ff  src 06:xx:xx:xx:xx:0s  type 0x88B5 (IEEE 802 local experimental 1)
    "COLO" version side | incarnation 8 | count 8 | fence 8 | echo_of 8 | echo 8 | lease ms 4 | bits 1 | state
    | seal 16

`seal` is BLAKE2b keyed with the pair's name: pairs that share a LAN do not hear each other, and who does
not know the name cannot speak for one. A claim that is played back later says nothing new: `count` grows.
"""

from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Final

from colo_proto.errors import WireError
from colo_proto.frame import ETH, NO_OFFLOAD, Buffer

ETHERTYPE: Final = b"\x88\xb5"
_MAGIC: Final = b"COLO\x01"
_BODY: Final = Struct("!5sBQQQQQIBB")
_SEAL: Final = 16
_MOST: Final = 1 << 63
"""What control messages have room for; tokens and counts are counted on from what was heard, so they stay far below."""
_SIDES: Final = ("primary", "secondary")
MIN_ETHERNET: Final = 60
"""Without the frame check sequence; shorter ones are padded."""
MAX_CLAIM: Final = 128
"""No claim is longer: what is longer need not be looked at."""


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
    """Incarnation of the other side that was heard last, and …"""
    echo: int = 0
    """… its `count`."""


def source_mac(pair: str, side: str) -> bytes:
    """The address that a side of the pair claims from: locally administered, and not the guest's."""
    return b"\x06" + blake2b(pair.encode(), digest_size=4).digest() + bytes((_SIDES.index(side) + 1,))


def write_claim(stand: Stand, pair: str) -> bytes:
    """The frame that says `stand`."""
    bits = stand.protected | stand.ask << 1
    body = _BODY.pack(
        _MAGIC, _SIDES.index(stand.side), stand.incarnation, stand.count, stand.fence, stand.echo_of, stand.echo,
        stand.lease_ms, bits, State.ALL.index(stand.state),
    )  # fmt: skip
    frame = b"\xff" * 6 + source_mac(pair, stand.side) + ETHERTYPE + body + _seal(body, pair)
    return NO_OFFLOAD + frame.ljust(MIN_ETHERNET, b"\0")


def read_claim(frame: Buffer, pair: str) -> Stand:
    """What a frame with our EtherType says. `WireError` when it is no claim of this pair."""
    at = ETH + 14
    end = at + _BODY.size
    if len(frame) < end + _SEAL or len(frame) > MAX_CLAIM:
        raise WireError("claim", "not a claim's length")
    body = bytes(frame[at:end])
    magic, side, incarnation, count, fence, echo_of, echo, lease, bits, state = _BODY.unpack(body)
    if magic != _MAGIC or side >= len(_SIDES) or state >= len(State.ALL):
        raise WireError("claim", "not a claim, or of another version")
    if not compare_digest(bytes(frame[end : end + _SEAL]), _seal(body, pair)):
        raise WireError("claim", "of another pair")
    stand = Stand(
        _SIDES[side], incarnation, count, fence, State.ALL[state], bool(bits & 1), bool(bits & 2), lease, echo_of, echo
    )
    if not possible(stand):
        raise WireError("claim", "numbers that cannot be counted on")
    return stand


def possible(stand: Stand) -> bool:
    """False for numbers that no frame of ours says, and that could not be answered."""
    counted = (stand.count, stand.fence, stand.echo)
    numbers = (stand.incarnation, stand.echo_of, stand.lease_ms, *counted)
    return min(numbers) >= 0 and max(numbers) < _MOST and 2 * max(counted) < _MOST and stand.lease_ms < 1 << 32


def is_claim(frame: Buffer) -> bool:
    """True for a frame with our EtherType: nothing for a guest."""
    return frame[ETH + 12 : ETH + 14] == ETHERTYPE


def _seal(body: bytes, pair: str) -> bytes:
    # A key has at most 64 bytes; a longer name enters by its digest.
    key = pair.encode() if len(pair.encode()) <= 64 else blake2b(pair.encode()).digest()
    return blake2b(body, digest_size=_SEAL, key=key).digest()
