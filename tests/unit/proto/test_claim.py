"""Claims on the client LAN: written and read again; claims of another pair or of a stranger are refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_proto.claim import (
    CLAIM,
    MAX_ANSWERS,
    Stand,
    State,
    believed_speaker,
    derive,
    in_range,
    is_claim,
    peek,
    read_claim,
    source_mac,
    write_claim,
)
from colo_proto.errors import ConfigError, WireError
from colo_proto.frame import ETH

SECRET = bytes(range(32))
KEYS = derive(SECRET, "colo")
OTHER = derive(bytes(range(1, 33)), "colo")
NUMBERS = st.integers(0, 2**63 - 1)
COUNTED = st.integers(0, 2**62 - 1)
STANDS = st.builds(
    Stand,
    side=st.sampled_from(["primary", "secondary"]),
    incarnation=NUMBERS,
    count=COUNTED,
    fence=COUNTED,
    state=st.sampled_from(State.ALL),
    protected=st.booleans(),
    ask=st.booleans(),
    vote=st.booleans(),
    agrees=st.booleans(),
    lease_ms=st.integers(0, 2**32 - 1),
    echo_of=NUMBERS,
    echo=COUNTED,
    sent_ms=NUMBERS,
    answers=st.lists(st.tuples(st.integers(1, 2**63 - 1), COUNTED), max_size=MAX_ANSWERS).map(tuple),
)
ONE = Stand(
    "primary", 7, 3, 2, State.HOLDING, protected=True, lease_ms=1666, echo_of=9, echo=4, sent_ms=1500,
    answers=((11, 12), (13, 14)),
)  # fmt: skip


@given(STANDS, st.binary(min_size=16, max_size=100), st.text(min_size=1, max_size=100))
def test_there_and_back(stand, secret, pair):
    keys = derive(secret, pair)
    frame = write_claim(stand, pair, keys)
    assert is_claim(frame)
    assert len(frame) == CLAIM
    assert read_claim(frame, [keys]) == stand
    assert read_claim(frame, [OTHER, keys]) == stand
    side = ("primary", "secondary").index(stand.side)
    assert peek(frame, [OTHER.gate, keys.gate]) == (side, stand.incarnation, stand.count)
    assert believed_speaker(frame) == stand.echo_of


def test_the_bytes_do_not_change():
    # Two versions on two hosts must understand each other.
    assert write_claim(ONE, "colo", KEYS).hex() == GOLDEN


GOLDEN = (
    "00000000000000000000ffffffffffff06774e1cae0188b5434f4c4f0200000000000000000700000000000000030000"
    "0000000000020000000000000009000000000000000400000000000005dc000006820101000000000000000b00000000"
    "0000000c000000000000000d000000000000000e00000000000000000000000000000000000000000000000000000000"
    "000000001ff595ee563c5f99b14a7551ce25bb103cbd8af75986ad0d61a23cccaab25348"
)


@given(st.integers(ETH + 14, CLAIM - 1), st.integers(1, 255))
def test_one_wrong_bit_and_it_is_refused(at, change):
    frame = bytearray(write_claim(ONE, "colo", KEYS))
    frame[at] ^= change
    # The gate is for the filters alone, the seal for the frames; what both are made of is for both.
    gate, seal = CLAIM - 32 <= at < CLAIM - 16, at >= CLAIM - 16
    assert (peek(bytes(frame), [KEYS.gate]) is None) == (not seal)
    if not gate:
        with pytest.raises(WireError):
            read_claim(bytes(frame), [KEYS])


@pytest.mark.parametrize("cut", [0, 24, 60, CLAIM - 1])
def test_a_claim_has_one_length(cut):
    frame = write_claim(ONE, "colo", KEYS)
    for wrong in (frame[:cut], frame + b"\0"):
        assert peek(wrong, [KEYS.gate]) is None
        with pytest.raises(WireError):
            read_claim(wrong, [KEYS])


def test_another_secret_is_not_heard():
    frame = write_claim(ONE, "colo", OTHER)
    assert peek(frame, [KEYS.gate]) is None
    with pytest.raises(WireError, match="another secret"):
        read_claim(frame, [KEYS])


@pytest.mark.parametrize("secret", [SECRET, b""])
def test_another_pair_is_not_heard(secret):
    """Also when both pairs have the same secret, or none."""
    frame = write_claim(ONE, "colo", derive(secret, "colo"))
    with pytest.raises(WireError):
        read_claim(frame, [derive(secret, "other")])


def test_without_the_secret_nobody_can_claim():
    """Keys from the name alone differ from keys from a secret, and the gate's key differs from the seal's."""
    assert derive(b"", "colo") != KEYS
    assert KEYS.gate != KEYS.seal
    assert SECRET not in (KEYS.gate, KEYS.seal)
    for key in (KEYS.gate, KEYS.seal, SECRET):
        assert key not in write_claim(ONE, "colo", KEYS)
    # A filter has the gate's key: with that alone it can make nothing that a frame believes.
    forged = write_claim(ONE, "colo", replace(KEYS, seal=KEYS.gate))
    assert peek(forged, [KEYS.gate])
    with pytest.raises(WireError):
        read_claim(forged, [KEYS])


@pytest.mark.parametrize("size", [1, 15])
def test_a_short_secret_is_none(size):
    with pytest.raises(ConfigError, match="at least 16 bytes"):
        derive(bytes(size), "colo")


def test_the_former_version_is_not_read():
    """The name of the pair is part of the key."""
    old = bytes.fromhex(
        "00000000000000000000ffffffffffff06774e1cae0188b5434f4c4f0100000000000000000700000000000000030000"
        "000000000002000000000000000900000000000000040000068201019153e13f677b7b37dae8bfea3d41584a"
    )
    assert is_claim(old)
    assert peek(old, [KEYS.gate]) is None
    with pytest.raises(WireError):
        read_claim(old, [KEYS])


def test_each_side_of_each_pair_has_a_station_address_of_its_own():
    macs = {source_mac(pair, side) for pair in ("a", "b") for side in ("primary", "secondary")}
    assert len(macs) == 4
    assert all(mac[0] & 3 == 2 for mac in macs), "locally administered, not a group"


@pytest.mark.parametrize("field", ["incarnation", "count", "fence", "echo_of", "echo", "sent_ms"])
def test_numbers_that_could_not_be_answered_are_refused(field):
    """The next token is higher than all that were heard, and 2^64 - 1 would have no successor in a message."""
    for number in (2**63, 2**64 - 1):
        with pytest.raises(WireError, match="counted on"):
            read_claim(write_claim(replace(ONE, **{field: number}), "colo", KEYS), [KEYS])
    assert not in_range(replace(ONE, **{field: -1}))
    assert in_range(replace(ONE, **{field: 2**62 - 1}))


def test_the_same_of_its_answers():
    for answers in (((2**63, 1),), ((1, 1), (1, 2**62 + 1))):
        assert not in_range(replace(ONE, answers=answers))
        with pytest.raises(WireError, match="counted on"):
            read_claim(write_claim(replace(ONE, answers=answers), "colo", KEYS), [KEYS])
