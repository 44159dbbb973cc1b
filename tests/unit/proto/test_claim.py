"""Claims on the client LAN: bytes there and back, and nothing of another pair or of a stranger."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_proto.claim import MAX_CLAIM, Stand, State, is_claim, possible, read_claim, source_mac, write_claim
from colo_proto.errors import WireError
from colo_proto.frame import ETH

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
    lease_ms=st.integers(0, 2**32 - 1),
    echo_of=NUMBERS,
    echo=COUNTED,
)
ONE = Stand("primary", 7, 3, 2, State.HOLDING, protected=True, lease_ms=1666, echo_of=9, echo=4)


@given(STANDS, st.text(min_size=1, max_size=100))
def test_there_and_back(stand, pair):
    frame = write_claim(stand, pair)
    assert is_claim(frame)
    assert 60 <= len(frame) - ETH <= MAX_CLAIM
    assert read_claim(frame, pair) == stand


def test_the_bytes_do_not_change():
    # Two versions on two hosts must understand each other.
    assert write_claim(ONE, "colo").hex() == GOLDEN


GOLDEN = (
    "00000000000000000000ffffffffffff06774e1cae0188b5434f4c4f0100000000000000000700000000000000030000"
    "000000000002000000000000000900000000000000040000068201019153e13f677b7b37dae8bfea3d41584a"
)


@given(st.integers(ETH + 14, ETH + 14 + 68 - 1), st.integers(1, 255))
def test_one_wrong_bit_and_it_is_refused(at, change):
    frame = bytearray(write_claim(ONE, "colo"))
    frame[at] ^= change
    with pytest.raises(WireError):
        read_claim(bytes(frame), "colo")


@pytest.mark.parametrize("cut", [0, 24, 60, 91])
def test_a_short_one_is_refused(cut):
    with pytest.raises(WireError):
        read_claim(write_claim(ONE, "colo")[:cut], "colo")


def test_another_pair_is_not_heard():
    with pytest.raises(WireError):
        read_claim(write_claim(ONE, "colo"), "other")


def test_each_side_of_each_pair_has_a_station_address_of_its_own():
    macs = {source_mac(pair, side) for pair in ("a", "b") for side in ("primary", "secondary")}
    assert len(macs) == 4
    assert all(mac[0] & 3 == 2 for mac in macs), "locally administered, not a group"


@pytest.mark.parametrize("field", ["incarnation", "count", "fence", "echo_of", "echo"])
def test_numbers_that_could_not_be_answered_are_refused(field):
    """A token is counted on from the highest that was heard: 2^64 - 1 would have no successor on any wire."""
    for number in (2**63, 2**64 - 1):
        with pytest.raises(WireError, match="counted on"):
            read_claim(write_claim(replace(ONE, **{field: number}), "colo"), "colo")
    assert not possible(replace(ONE, **{field: -1}))
    assert possible(replace(ONE, **{field: 2**62 - 1}))
