"""History over all connections: first in, first out, bounded in bytes and in number."""

from hypothesis import given
from hypothesis import strategies as st

from colo_compare.tcp.history import PIECE_COST, RING_SIZE, History, Piece, cost

SMALL = 1 << 16


def segment(size, start=0):
    return Piece(start, start + size, bytes(size), 0)


def kept(segments):
    return [one for one in segments if one.buffer]


def test_the_oldest_goes_first_whosever_it_is():
    history = History(SMALL)
    added = [segment(1000, at) for at in range(200)]
    saved = sum(history.add(one) for one in added)
    assert history.size <= SMALL
    assert history.size == cost(added) == 200 * (1000 + PIECE_COST) - saved
    left = kept(added)
    assert left == added[-len(left) :], "the newest are left"
    assert cost(left) > SMALL * 3 // 4, "and no more went than had to"


def test_segments_are_bounded_in_number_as_well():
    history = History(1 << 30)
    added = [segment(1, at) for at in range(3 * RING_SIZE)]
    for one in added:
        history.add(one)
        assert len(kept([one])) == 1, "what has just come is there"
    left = kept(added)
    assert RING_SIZE // 2 < len(left) < RING_SIZE
    assert left == added[-len(left) :]


def test_what_is_dropped_is_counted_once():
    history = History(SMALL)
    one, two = segment(100), segment(200)
    history.add(one)
    history.add(two)
    assert history.drop(one) == 100 + PIECE_COST
    assert history.drop(one) == 0
    assert history.clear() == 200 + PIECE_COST
    assert history.size == 0
    assert not kept([one, two])
    history.add(segment(5))
    assert history.size == 5 + PIECE_COST


@given(st.lists(st.one_of(st.integers(1, 70000), st.just(0), st.just(-1)), max_size=60))
def test_the_books_are_right_whatever_happens(steps):
    history = History(1 << 18)
    added, total = [], 0
    for step in steps:
        if step > 0:
            added.append(segment(step))
            total += step + PIECE_COST - history.add(added[-1])
        elif step:
            total -= history.clear()
        elif added:
            total -= history.drop(added[len(added) // 2])
        assert history.size == total == cost(added) <= 1 << 18
