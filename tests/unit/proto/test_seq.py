"""Sequence arithmetic against plain integers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_proto.seq import HALF, MASK, MOD, diff

wire = st.integers(0, MOD - 1)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (0, 0, 0), (1, 0, 1), (0, 1, -1), (0, MOD - 1, 1), (MOD - 1, 0, -1), (5, MOD - 5, 10),
        (HALF - 1, 0, HALF - 1), (HALF, 0, -HALF), (0, HALF, -HALF), (HALF + 1, 0, -HALF + 1),
    ],
)  # fmt: skip
def test_distances_across_the_wrap(a, b, distance):
    assert diff(a, b) == distance


@given(wire, st.integers(-(HALF - 1), HALF - 1))
def test_the_distance_is_the_step_that_was_made(a, step):
    assert diff((a + step) & MASK, a) == step


@given(wire, wire)
def test_one_comes_first_unless_they_are_half_apart(a, b):
    if diff(a, b) != -HALF:
        assert diff(a, b) == -diff(b, a)
