"""The secondary's half of a stream: pieces in order, holes, history."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.stream import STRIDE, Reference, Segment, cost, first_difference

TEXT = bytes(n * 7 & 0xFF for n in range(400))


def put(ref, start, stop, frame=TEXT):
    return ref.insert(start, stop, frame, start)


def read(ref, start, stop):
    return ref.slice(start, stop)


def test_in_order_is_appended():
    ref = Reference()
    assert put(ref, 0, 10) == 1
    assert put(ref, 10, 30) == 1
    assert read(ref, 0, 30) == (TEXT[:30], 0)


def test_only_holes_are_filled_and_what_came_first_wins():
    ref = Reference()
    put(ref, 10, 20)
    assert ref.insert(0, 30, b"?" * 30, 0) == 2
    assert read(ref, 0, 30) == (b"?" * 10 + TEXT[10:20] + b"?" * 10, 0)
    assert put(ref, 5, 25) == 0


@given(st.lists(st.tuples(st.integers(0, 380), st.integers(1, 60)), max_size=40))
def test_any_pieces_make_the_text(pieces):
    ref = Reference()
    have = set()
    for start, size in pieces:
        stop = min(start + size, len(TEXT))
        added = put(ref, start, stop)
        assert (added == 0) == (set(range(start, stop)) <= have)
        have |= set(range(start, stop))
        spans = [(one.start, one.stop) for one in ref.segments]
        assert spans == sorted(spans)
        assert all(a[1] <= b[0] for a, b in pairwise(spans)), "pieces never overlap"
        assert (ref.begin, ref.end) == (spans[0][0], spans[-1][1])
    covered = {n for one in ref.segments for n in range(one.start, one.stop)}
    assert covered == have
    for one in ref.segments:
        assert one.buffer[one.offset : one.offset + one.stop - one.start] == TEXT[one.start : one.stop]


def test_confirmed_pieces_are_history_until_it_is_too_long():
    ref = Reference()
    for at in range(0, 100, 10):
        put(ref, at, at + 10)
    assert ref.confirm(45, 1000) == (4, 0)
    assert ref.pending() == 6
    assert ref.history() == 40
    pieces, saved = ref.confirm(100, 20)
    assert pieces == 6
    assert saved == 8 * (len(TEXT) + 256)
    assert ref.history() == 20
    assert read(ref, 80, 100) == (TEXT[80:100], 80)


def test_many_tiny_pieces_are_cut_by_number():
    ref = Reference()
    for at in range(STRIDE + 10):
        put(ref, at, at + 1)
        ref.confirm(at + 1, 1 << 20)
    assert len(ref.segments) <= STRIDE
    assert (ref.begin, ref.end) == (ref.segments[0].start, ref.segments[-1].stop)


def test_forgetting_gives_everything_back():
    ref = Reference()
    put(ref, 0, 10)
    put(ref, 20, 30)
    ref.confirm(10, 1000)
    assert ref.forget() == (1, cost([Segment(0, 10, TEXT, 0)] * 2))
    assert ref.pending() == 0


def test_a_slice_ends_at_a_hole():
    ref = Reference()
    put(ref, 10, 20)
    put(ref, 30, 40)
    assert read(ref, 0, 100) == (TEXT[10:20], 10)
    assert read(ref, 25, 100) == (TEXT[30:40], 30)
    assert read(ref, 50, 60) == (b"", 50)


@pytest.mark.parametrize(
    ("a", "b", "at"), [(b"abc", b"abd", 2), (b"abc", b"xbc", 0), (b"abc", b"abcd", 3), (b"", b"x", 0)]
)
def test_first_difference(a, b, at):
    assert first_difference(a, b) == at
