"""A bad LAN: what it loses and reorders, from a seed."""

from colo_lab.impair import HELD_AT_MOST, PASSED_BY, Direction


def through(way, count, step=0.0):
    out = []
    for n in range(count):
        out += way.pass_on(n.to_bytes(4, "big"), n * step)
    return [int.from_bytes(frame, "big") for frame in out + way.on_timer(count * step + 1)]


def test_a_good_one_changes_nothing():
    assert through(Direction(0, 0, 1), 100) == list(range(100))


def test_loss():
    way = Direction(1, 0, 1)
    got = through(way, 20_000)
    assert got == sorted(got)
    assert way.lost == 20_000 - len(got)
    assert 150 < way.lost < 250


def test_reordering_loses_nothing_and_moves_nothing_far():
    way = Direction(0, 5, 1)
    got = through(way, 20_000)
    assert sorted(got) == list(range(20_000))
    assert got != sorted(got)
    assert 900 < way.reordered < 1100
    assert max(at - n for at, n in enumerate(got)) <= PASSED_BY


def test_nothing_is_held_for_long():
    way = Direction(0, 100, 1)
    assert way.pass_on(b"x", 5.0) == []
    assert way.deadline() == 5.0 + HELD_AT_MOST
    assert way.on_timer(5.0 + HELD_AT_MOST / 2) == []
    assert way.on_timer(5.0 + HELD_AT_MOST) == [b"x"]
    assert way.deadline() is None


def test_a_seed_says_it_all():
    assert through(Direction(2, 2, 7), 1000) == through(Direction(2, 2, 7), 1000) != through(Direction(2, 2, 8), 1000)
