"""Sequence arithmetic against plain integers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_proto.seq import HALF, MOD, add, diff, leq, lt, unwrap

wire = st.integers(0, MOD - 1)
near = st.integers(0, 10 * MOD)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (0, 0, 0), (1, 0, 1), (0, 1, -1), (0, MOD - 1, 1), (MOD - 1, 0, -1), (5, MOD - 5, 10),
        (HALF - 1, 0, HALF - 1), (HALF, 0, -HALF), (0, HALF, -HALF), (HALF + 1, 0, -HALF + 1),
    ],
)  # fmt: skip
def test_distances_across_the_wrap(a, b, distance):
    assert diff(a, b) == distance
    assert lt(a, b) == (distance < 0)
    assert leq(a, b) == (distance <= 0)


@given(wire, st.integers(-(HALF - 1), HALF - 1))
def test_add_and_diff_are_opposites(a, step):
    b = add(a, step)
    assert 0 <= b < MOD
    assert diff(b, a) == step
    assert lt(a, b) == (step > 0)
    assert leq(a, b) == (step >= 0)


@given(wire, wire)
def test_one_comes_first_unless_they_are_half_apart(a, b):
    if diff(a, b) != -HALF:
        assert lt(a, b) + lt(b, a) + (a == b) == 1
        assert diff(a, b) == -diff(b, a)


@given(near, st.integers(-HALF, HALF - 1))
def test_unwrap_finds_the_number_again(position, step):
    there = position + step
    assert unwrap(there % MOD, position) == there


@given(wire, near)
def test_unwrap_is_congruent_and_closest(number, position):
    found = unwrap(number, position)
    assert found % MOD == number
    assert abs(found - position) <= HALF
    assert abs(found - position) <= abs(found + MOD - position)
    assert abs(found - position) <= abs(found - MOD - position)


def test_a_stream_of_many_gigabytes_never_goes_back():
    position, isn = 4_000_000_000, 4_000_000_000
    for step in range(1, 200):
        nxt = unwrap(add(isn, step * 65535 * 1000), position)
        assert nxt == isn + step * 65_535_000
        position = nxt
