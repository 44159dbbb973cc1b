"""E1: several workers release what one releases, also while flows move between them."""

from collections import Counter

import pytest

from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_compare.handover.protocol import HANDOVER_TIMEOUT
from colo_proto.core import Log, Tell
from colo_proto.messages import Settled, WorkerTable
from colo_proto.net.flow import SLOTS
from sharing import Sharing, drive, mixture, reset, stream

pytestmark = pytest.mark.slow

SAME = (
    "bytes_compared", "bytes_unverified", "frames_primary", "frames_secondary", "released", "flows_opened",
    "miscompares", "secondary_split", "windows_lowered", "synthesized", "adopted",
)  # fmt: skip


def same_as_one(sharing):
    released, counters = sharing.reference()
    assert dict(sharing.released) == dict(released)
    ours = sharing.counters
    assert {name: ours[name] for name in SAME} == {name: counters[name] for name in SAME}
    for prefix in ("released.", "dropped.", "secondary_dropped.", "checkpoints_wanted."):
        pick = lambda all_, prefix=prefix: {k: n for k, n in all_.items() if k.startswith(prefix) and n}
        assert pick(ours) == pick(counters)


def balanced(sharing):
    """The books of every worker balance, and nothing is lost between them."""
    total = Counter()
    for worker in sharing.workers.values():
        counters, gauges = worker.counters, worker.gauges()
        dropped = sum(n for name, n in counters.items() if name.startswith("dropped."))
        out = counters["released"] - counters["synthesized"] + dropped + gauges["held"] + counters["handed_over"]
        assert counters["frames_primary"] + counters["taken_over"] == out
        dropped = sum(n for name, n in counters.items() if name.startswith("secondary_dropped."))
        kept = dropped + gauges["held_secondary"] + counters["secondary_handed_over"]
        assert counters["frames_secondary"] + counters["secondary_split"] + counters["secondary_taken_over"] == kept
        assert not worker.handovers.busy
    total = sharing.counters
    assert total["handed_over"] == total["taken_over"]
    assert total["secondary_handed_over"] == total["secondary_taken_over"]
    assert total["flows_handed_over"] == total["flows_taken_over"]
    assert total["handovers_given_up"] == total["handovers_malformed"] == 0


def start(*names):
    return lambda sharing: [sharing.start(name) for name in names]


def leave(*names):
    return lambda sharing: [sharing.leave(name) for name in names]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_as_many_as_there_are_release_what_one_releases(workers, seed):
    sharing = Sharing(seed, workers)
    drive(sharing, mixture(sharing.random, 36), [])
    same_as_one(sharing)
    balanced(sharing)
    assert sharing.counters["miscompares"] == 0
    assert sum(bool(worker.ledger.frames_primary) for worker in sharing.workers.values()) == workers


@pytest.mark.parametrize("seed", range(40))
def test_from_one_to_four_to_two_under_load(seed):
    sharing = Sharing(seed)
    random = sharing.random
    grow, shrink = sorted(random.random() for _ in range(2))
    drive(
        sharing,
        mixture(random, 60),
        [(grow, start("comp1", "comp2", "comp3")), (shrink, leave("comp3", "comp1"))],
        pace=random.choice((0.1, 0.3, 0.6)),
    )
    assert sorted(sharing.workers) == ["comp0", "comp2"]
    same_as_one(sharing)
    balanced(sharing)
    counters = sharing.counters
    assert counters["miscompares"] == counters["adopted"] == 0
    assert not any(n for name, n in counters.items() if name.startswith(("dropped.", "checkpoints_wanted.")))
    assert counters["flows_handed_over"] > 0
    released = {name: n for name, n in counters.items() if name.startswith("released.") and n}
    assert set(released) == {"released.compared"}, "no frame was released uncompared"


@pytest.mark.parametrize("seed", range(20))
def test_workers_come_and_go_all_the_time(seed):
    sharing = Sharing(seed, 2)
    random = sharing.random
    alive, number, events = ["comp0", "comp1"], 2, []
    for at in sorted(random.random() * 0.95 for _ in range(8)):
        if len(alive) > 1 and random.random() < 0.5:
            name = alive.pop(random.randrange(len(alive)))
            events.append((at, leave(name)))
        else:
            alive.append(f"comp{number}")
            events.append((at, start(f"comp{number}")))
            number += 1
    drive(sharing, mixture(random, 48), events)
    assert sorted(sharing.workers) == sorted(alive)
    same_as_one(sharing)
    balanced(sharing)
    assert sharing.counters["miscompares"] == sharing.counters["adopted"] == 0


@pytest.mark.parametrize("seed", range(8))
def test_resets_and_masks_of_rules_move_along(seed):
    sharing = Sharing(seed, 1)
    flows = [reset(4000 + n, sharing.random) for n in range(30)]
    drive(sharing, flows, [(0.4, start("comp1")), (0.8, leave("comp0"))])
    assert list(sharing.workers) == ["comp1"]
    same_as_one(sharing)
    balanced(sharing)


@pytest.mark.parametrize("seed", range(8))
def test_flows_that_differ_stay_unprotected_wherever_they_go(seed):
    sharing = Sharing(seed, 1)
    random = sharing.random
    flows = [stream(5000 + n, random, size=3000) for n in range(12)]
    wrong = [stream(6000 + n, random, size=3000, isn=77) for n in range(6)]
    others = [stream(6000 + n, random, size=3000, isn=77) for n in range(6)]
    flows += [(mine, its) for (mine, _), (_, its) in zip(wrong, others, strict=True)]
    drive(sharing, flows, [(0.3, start("comp1", "comp2")), (0.7, leave("comp0", "comp1"))])
    sharing.wait(6)
    assert list(sharing.workers) == ["comp2"]
    counters = sharing.counters
    assert counters["miscompares"] == 6
    assert counters["adopted"] == 0
    sent = Counter(frame for mine, _ in flows for frame in mine)
    got = Counter(frame for frames in sharing.released.values() for frame in frames)
    # Windows may have been lowered; what matters is that each frame of every flow has left.
    assert sum(got.values()) - counters["synthesized"] == sum(sent.values())
    balanced(sharing)


@pytest.mark.parametrize("seed", range(10))
def test_a_worker_that_dies_has_its_slots_taken_over(seed):
    """Frames that it held or was about to get are lost (loss on a wire); what is sent later is compared again."""
    sharing = Sharing(seed, 3)
    random = sharing.random
    streams = [stream(7000 + n, random, size=4000, repeats=False) for n in range(30)]
    halves = [
        [(mine[: len(mine) // 2], its[: len(its) // 2]) for mine, its in streams],
        [(mine[len(mine) // 2 :], its[len(its) // 2 :]) for mine, its in streams],
    ]
    drive(sharing, halves[0], [(random.random(), lambda s: s.kill("comp1"))])
    sharing.wait(7)
    assert sharing.splitters["p"].workers == sharing.splitters["s"].workers == ["comp0", "comp2"]
    frame = sharing.frames["p"]
    assert frame.counters["checkpoints_wanted.worker_lost"] == 1
    assert frame.side.checkpoints.completed >= 1
    drive(sharing, halves[1], [])
    sharing.wait(1)
    counters = sharing.counters
    assert counters["adopted"] > 0
    assert counters["miscompares"] == 0
    # What one guest had sent before the other's first byte was seen waits until both repeat what no client has got.
    drive(sharing, [(mine[1:], its[1:]) for mine, its in streams], [])
    sharing.wait(1)
    assert sharing.counters["miscompares"] == 0
    assert sum(worker.ledger.held for worker in sharing.workers.values()) == 0


@pytest.mark.parametrize("seed", range(10))
def test_a_source_that_dies_in_the_middle_is_not_waited_for(seed):
    sharing = Sharing(seed, 2)
    random = sharing.random
    victim = lambda s: s.kill("comp1")
    drive(sharing, mixture(random, 30), [(0.3, start("comp2")), (0.3 + random.random() * 0.1, victim)])
    sharing.wait(12)
    assert sorted(sharing.workers) == ["comp0", "comp2"]
    assert sharing.splitters["s"].workers == ["comp0", "comp2"]
    assert not any(worker.handovers.busy or worker.handovers.parked for worker in sharing.workers.values())


def test_without_a_mark_on_one_side_a_move_is_given_up():
    sharing = Sharing(1, 1)
    random = sharing.random
    sharing.start("comp1")
    sharing.calm()
    # The secondary's splitter never hears of the table.
    sharing.start("comp2")
    while sharing.queues["table", "s"] or sharing.splitters["p"].version == sharing.splitters["s"].version:
        sharing.queues["table", "s"].clear()
        assert sharing.step()
    sharing.queues["table", "s"].clear()
    kept, sharing.table = sharing.table, lambda side, table: kept(side, table) if side == "p" else None
    drive(sharing, [stream(8000 + n, random) for n in range(12)], [])
    assert sharing.workers["comp2"].handovers.parked > 0
    sharing.wait(3 * HANDOVER_TIMEOUT)
    assert all(not worker.handovers.busy for worker in sharing.workers.values())
    assert sharing.counters["handovers_given_up"] > 0
    assert "table.unsettled" in [one.event for one in sharing.logs if isinstance(one, Log)]


def test_parked_frames_are_bounded():
    sharing = Sharing(1, 1, max_held_mib=1)
    worker = sharing.workers["comp0"]
    worker.barrier("primary_in", 9, sharing.now)
    mine, _ = stream(9000, sharing.random, size=3_000_000)
    worker.handovers._mine.clear()
    worker.receive("primary_in", mine, sharing.now)
    assert worker.handovers.parked_bytes <= 1 << 20
    counters = worker.counters
    assert counters["dropped.parked"] == counters["frames_primary"] == len(mine) - worker.handovers.parked > 0


def test_an_input_that_nobody_distributes_is_not_waited_for():
    """The lean wiring: the primary's frames come from a tap, and only the secondary's rewriter has a worker table."""
    worker = Compare(CompareConfig(id="comp0"))
    worker.barrier("secondary_in", 1, 100.0)
    found = worker.tell(WorkerTable(1, ["comp0"], [0] * SLOTS), 100.0)
    assert Settled("comp0", 1) in [one.message for one in found if isinstance(one, Tell)]
    assert not worker.handovers.busy
    assert worker.counters["handovers_given_up"] == 0
