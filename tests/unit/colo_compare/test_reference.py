"""The secondary's half of a stream: pieces in order, holes, history."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.evidence import first_difference
from colo_compare.tcp.history import History, Piece, cost
from colo_compare.tcp.reference import MIN_FORGOTTEN, Reference

TEXT = bytes(n * 7 & 0xFF for n in range(400))


def put(ref, start, stop, frame=TEXT):
    return len(ref.insert(start, stop, frame, start))


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
    assert put(ref, 0, 30, b"?" * 30) == 2
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
        spans = [(one.start, one.stop) for one in ref.pieces]
        assert spans == sorted(spans)
        assert all(a[1] <= b[0] for a, b in pairwise(spans)), "pieces never overlap"
        assert ref.end == spans[-1][1]
    covered = {n for one in ref.pieces for n in range(one.start, one.stop)}
    assert covered == have
    for one in ref.pieces:
        assert one.buffer[one.offset : one.offset + one.stop - one.start] == TEXT[one.start : one.stop]


def test_confirmed_pieces_are_history_until_that_is_too_long():
    ref, history = Reference(), History(4 * (len(TEXT) + 256))
    for at in range(0, 100, 10):
        put(ref, at, at + 10)
    assert ref.confirm(35, history) == (3, 0)
    assert ref.pending() == 7
    assert read(ref, 0, 30) == (TEXT[:30], 0)
    pieces, saved = ref.confirm(100, history)
    assert pieces == 7
    left = [one for one in ref.pieces if one.buffer]
    assert left == ref.pieces[-len(left) :]
    assert len(left) == 10 - saved // (len(TEXT) + 256)
    assert 2 < len(left) <= 4
    assert read(ref, 0, 100) == (TEXT[left[0].start : 100], left[0].start), "what has no bytes is no part of a slice"


def test_pieces_without_bytes_are_taken_out():
    ref, history = Reference(), History(3 * (len(TEXT) + 256))
    for at in range(300):
        put(ref, at, at + 1)
        ref.confirm(at + 1, history)
        assert len(ref.pieces) <= 3 + MIN_FORGOTTEN + 1
    history.clear()
    ref.sweep()
    assert (ref.pieces, ref.first) == ([], 0)
    put(ref, 300, 301)
    assert ref.pending() == 1
    assert read(ref, 300, 400) == (TEXT[300:301], 300)


def test_a_long_list_is_cut_seldom():
    ref, history = Reference(), History(1 << 30)
    lengths = []
    for at in range(399):
        put(ref, at, at + 1)
        ref.confirm(at + 1, history)
        if at > 200:
            history.drop(ref.pieces[sum(not one.buffer for one in ref.pieces)])
        lengths.append(len(ref.pieces))
    cuts = sum(b < a for a, b in pairwise(lengths))
    assert 2 < cuts < 12
    assert sum(not one.buffer for one in ref.pieces) <= len(ref.pieces) // 4 + MIN_FORGOTTEN


def test_forgetting_gives_everything_back():
    ref, history = Reference(), History(1 << 20)
    put(ref, 0, 10)
    put(ref, 20, 30)
    ref.confirm(10, history)
    assert ref.forget(history) == (1, cost([Piece(0, 10, TEXT, 0)] * 2))
    assert ref.pending() == history.size == 0


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
