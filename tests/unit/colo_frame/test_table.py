from hypothesis import given, settings
from hypothesis import strategies as st

from colo_frame.table import MAX_WORKERS, assign, make_table, read_table, shares
from colo_proto.messages import WorkerTable, to_dict
from colo_proto.net.flow import SLOTS

names = st.text("abcdefgh0123456789-", min_size=1, max_size=8)
groups = st.lists(names, min_size=1, max_size=6, unique=True)


def owners(table):
    return [table.workers[index] for index in table.slots]


@settings(max_examples=40, deadline=None)
@given(groups, names)
def test_a_worker_that_joins_only_takes(workers, newcomer):
    if newcomer in workers:
        return
    before, after = owners(make_table(1, workers)), owners(make_table(2, [*workers, newcomer]))
    moved = [slot for slot in range(SLOTS) if before[slot] != after[slot]]
    assert moved
    assert all(after[slot] == newcomer for slot in moved)


@settings(max_examples=40, deadline=None)
@given(groups, st.data())
def test_a_worker_that_leaves_moves_only_its_own(workers, data):
    if len(workers) < 2:
        return
    gone = data.draw(st.sampled_from(workers))
    before = owners(make_table(1, workers))
    after = owners(make_table(2, [w for w in workers if w != gone]))
    assert all(before[slot] in (after[slot], gone) for slot in range(SLOTS))


@settings(max_examples=20, deadline=None)
@given(groups)
def test_every_slot_has_a_worker_and_order_does_not_matter(workers):
    table = make_table(1, workers)
    assert len(table.slots) == SLOTS
    assert table == make_table(1, workers[::-1])
    assert sum(shares(table).values()) == SLOTS


def test_shares_are_even():
    for count in (2, 3, 4, 8):
        share = shares(make_table(1, [f"comp{i}" for i in range(count)]))
        fair = SLOTS / count
        assert all(0.75 * fair < slots < 1.25 * fair for slots in share.values())


def test_the_assignment_is_the_same_for_ever():
    """Two hosts, or two versions, must agree: these numbers may not change."""
    assert assign(["comp0", "comp1"])[:16] == [0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1]


def test_a_table_without_workers_assigns_nothing():
    assert make_table(3, []) == WorkerTable(3, [], [])


def test_a_table_survives_the_heartbeat():
    table = make_table(7, ["a", "b", "c"])
    assert read_table(to_dict(table)) == table


def test_an_improper_table_of_a_peer_is_no_table():
    good = to_dict(make_table(7, ["a", "b"]))
    assert read_table(good) is not None
    for bad in (
        {},
        good | {"version": 0},
        good | {"version": "7"},
        good | {"version": True},
        good | {"workers": []},
        good | {"workers": ["a", 2]},
        good | {"workers": ["a", ""]},
        good | {"workers": [f"w{i}" for i in range(MAX_WORKERS + 1)]},
        good | {"slots": good["slots"][:-1]},
        good | {"slots": [2, *good["slots"][1:]]},
        good | {"slots": [-1, *good["slots"][1:]]},
        good | {"slots": [0.0, *good["slots"][1:]]},
        good | {"slots": None},
    ):
        assert read_table(bad) is None, bad
