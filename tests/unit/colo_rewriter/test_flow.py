from hypothesis import given
from hypothesis import strategies as st

from colo_rewriter.flow import PLAIN, SHIFT, SLOW, Flow, FlowTable, State, opposite


def flow(number, now=0.0):
    key = number.to_bytes(12, "big")
    return Flow(key, opposite(key), now)


def table(limit=10):
    return FlowTable(limit, half_open=10.0, established=100.0, closed=20.0)


@given(st.sampled_from([12, 14, 16, 36, 38, 40]).flatmap(lambda n: st.binary(min_size=n, max_size=n)))
def test_opposite_twice_is_the_same(key):
    assert opposite(opposite(key)) == key
    assert len(opposite(key)) == len(key)


def test_opposite_swaps_addresses_and_ports_and_keeps_tags():
    assert opposite(b"AAAABBBBppqqtt") == b"BBBBAAAAqqpptt"


def test_offsets_are_differences_modulo_two_to_the_32():
    one = flow(1)
    one.isn_secondary, one.isn_primary, one.ts_secondary, one.ts_primary = 5, 10, 3, 1
    one.compute_offsets()
    assert (one.offset, one.ts_offset) == (2**32 - 5, 2)


def test_timestamps_of_one_side_alone_give_no_offset():
    one = flow(1)
    one.isn_secondary, one.isn_primary, one.ts_secondary = 5, 10, 3
    one.compute_offsets()
    assert one.ts_offset == 0


def test_text_is_from_the_guests_point_of_view():
    key = bytes([10, 0, 0, 9, 10, 0, 0, 2, 0x13, 0x88, 0, 80])
    assert Flow(key, opposite(key), 0.0).text() == "tcp 10.0.0.2:80 > 10.0.0.9:5000"


def test_both_directions_find_the_flow_until_it_is_removed():
    t, one = table(), flow(1)
    assert t.add(one) is None
    assert t.by_client[one.key_client] is t.by_guest[one.key_guest] is one
    t.remove(one)
    assert (len(t), t.by_client, t.by_guest, t.deadline()) == (0, {}, {}, None)


def test_the_fast_path_follows_the_state_and_the_offsets():
    t, one = table(), flow(1)
    t.add(one)
    assert one.fast == SLOW
    t.enter(one, State.OPEN, 1.0)
    assert one.fast == PLAIN
    one.ts_offset = 1
    t.refresh(one)
    assert one.fast == SHIFT
    one.successor = flow(1)
    t.refresh(one)
    assert one.fast == SLOW
    one.successor = None
    for state in (State.CLOSING, State.CLOSED):
        t.enter(one, state, 2.0)
        assert one.fast == SLOW


def test_a_full_table_gives_up_the_least_recently_used_of_its_largest_crowd():
    t = table(limit=6)
    flows = [flow(n) for n in range(6)]
    for one in flows:
        t.add(one)
    for one in flows[:2]:
        t.enter(one, State.OPEN, 1.0)
    t.enter(flows[2], State.CLOSED, 1.0)
    t.touch(flows[3], 2.0)
    assert t.add(flow(100)) is flows[4], "three are half open, one is closed, and 3 was just used"
    assert t.add(flow(101)) is flows[5]
    assert t.count() == {"half_open": 3, "established": 2, "closed": 1}


def test_only_when_nothing_else_is_left_an_established_one_goes():
    t = table(limit=2)
    first, second = flow(1), flow(2)
    for one in (first, second):
        t.add(one)
        t.enter(one, State.OPEN, 1.0)
    t.touch(first, 2.0)
    assert t.add(flow(3)) is second


def test_a_flood_of_handshakes_leaves_what_is_established():
    t = table(limit=100)
    kept = [flow(n) for n in range(50)]
    for one in kept:
        t.add(one)
        t.enter(one, State.OPEN, 1.0)
    for number in range(1000, 6000):
        t.add(flow(number))
    assert len(t) == 100
    assert all(one.key_client in t.by_client for one in kept)


def test_expiry_looks_at_the_time_since_the_last_use():
    t = table()
    half, established, closed = (flow(n) for n in range(3))
    for one in (half, established, closed):
        t.add(one)
    t.enter(established, State.OPEN, 0.0)
    t.enter(closed, State.CLOSED, 0.0)
    assert t.deadline() == 10.0
    assert t.expire(9.9) == []
    assert t.expire(11.0) == [half]
    t.touch(closed, 19.0)
    assert t.expire(38.9) == []
    assert t.expire(39.0) == [closed]
    assert t.deadline() == 100.0
    assert t.expire(100.0) == [established]


def test_sweeps_are_at_least_a_second_apart():
    t = table()
    for number in range(5):
        one = flow(number, now=number / 10)
        t.add(one)
    assert t.expire(10.05) != []
    assert t.deadline() == 11.05
    assert len(t.expire(11.05)) == 4


@given(st.lists(st.tuples(st.sampled_from("atsxe"), st.integers(0, 12), st.sampled_from(list(State))), max_size=80))
def test_the_table_stays_consistent_and_bounded(steps):
    t, now = table(limit=8), 0.0
    for step, number, state in steps:
        now += 1.0
        key = number.to_bytes(12, "big")
        known = t.by_client.get(key)
        if step == "a" and known is None:
            t.add(flow(number, now))
        elif step == "t" and known:
            t.touch(known, now)
        elif step == "s" and known:
            t.enter(known, state, now)
        elif step == "x" and known:
            t.remove(known)
        elif step == "e":
            t.expire(now)
        assert len(t) <= 8
        assert set(t.by_client.values()) == set(t.by_guest.values())
        assert sum(t.count().values()) == len(t)
        for queue in t._queues:
            ages = [one.seen for one in queue]
            assert ages == sorted(ages)
