"""The share of each connection in what all may have under way."""

from colo_proto.share import AMPLE, LEAST, TICK, Share

MIB = 1 << 20


def active(share, number, now):
    share.advance(now)
    for _ in range(number):
        share.count()


def test_a_few_connections_are_not_bounded():
    share = Share(32 * MIB)
    for step in range(8):
        active(share, 5, step * TICK)
        assert share.bytes >= AMPLE


def test_hundreds_share_the_budget_within_the_tick_in_which_they_come():
    share = Share(32 * MIB)
    active(share, 512, 0.0)
    assert share.bytes == 32 * MIB // 512
    active(share, 100_000, TICK)
    assert share.bytes == LEAST


def test_it_grows_slowly_when_they_are_silent():
    share = Share(32 * MIB)
    active(share, 512, 0.0)
    sizes = []
    for step in range(1, 60):
        share.advance(step * TICK)
        sizes.append(share.bytes)
    assert sizes[0] == 32 * MIB // 512
    assert sizes == sorted(sizes)
    assert sizes[4] < 32 * MIB // 256
    assert sizes[-1] >= AMPLE


def test_time_in_which_nobody_looked_counts_as_well():
    share = Share(32 * MIB)
    active(share, 512, 0.0)
    share.advance(60.0)
    assert (share.active, share.bytes) == (0, 32 * MIB)


def test_several_batches_of_one_tick_count_together():
    share = Share(32 * MIB)
    active(share, 100, 0.0)
    active(share, 100, TICK / 2)
    assert share.bytes == 32 * MIB // 200


def test_workers_divide_the_budget():
    share = Share(32 * MIB)
    share.parts = 4
    active(share, 8, 0.0)
    assert share.bytes == MIB


def test_without_a_budget_there_is_no_bound():
    share = Share(0)
    active(share, 100_000, 0.0)
    active(share, 0, TICK)
    assert share.bytes >= AMPLE
