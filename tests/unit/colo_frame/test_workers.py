from colo_frame.table import make_table
from colo_frame.workers import FIRST_TABLE_DELAY, HANDOVER_TIMEOUT, REMIND_AFTER, REQUEST_AGAIN, Workers
from colo_proto.messages import Reason


def test_named_workers_have_a_table_from_the_start():
    workers = Workers(("comp1", "comp0"), 5.0, 0.0)
    assert workers.table == make_table(1, ["comp0", "comp1"])
    assert workers.check([], [], [], 0.0) is None
    assert workers.check(["comp0"], ["comp0"], ["comp0"], 1.0) is None, "the other one is on its way"


def test_a_named_worker_that_never_comes_is_given_up():
    workers = Workers(("comp0", "comp1"), 5.0, 0.0)
    assert workers.check(["comp0"], ["comp0"], ["comp0"], 4.9) is None
    assert workers.check(["comp0"], ["comp0"], ["comp0"], 5.0) == Reason.WORKER_LOST
    assert workers.wanted == ["comp0"]


def test_a_named_worker_that_came_and_went_is_lost_at_once():
    workers = Workers(("comp0", "comp1"), 5.0, 0.0)
    assert workers.check(["comp0"], ["comp0", "comp1"], ["comp0"], 1.0) == Reason.WORKER_LOST


def test_who_is_not_named_joins_once_it_is_within_reach():
    workers = Workers(("comp0",), 5.0, 0.0)
    both = ["comp0", "comp1"]
    assert workers.check(both, both, ["comp0"], 9.0) is None
    assert not workers.due(9.0)
    assert workers.check(both, both, both, 10.0) is None, "nobody is lost: no checkpoint"
    assert workers.due(10.0)
    workers.apply(both, 10.0)
    assert workers.table.workers == both


def test_without_names_the_first_table_waits_until_it_is_quiet():
    workers = Workers((), 5.0, 0.0)
    assert workers.deadline() is None
    assert workers.check(["a"], ["a"], ["a"], 1.0) is None
    assert not workers.due(1.0)
    assert workers.deadline() == 1.0 + FIRST_TABLE_DELAY
    assert workers.check(["a", "b"], ["a", "b"], ["a", "b"], 1.2) is None
    assert workers.due(1.0 + FIRST_TABLE_DELAY)
    workers.apply(["a", "b"], 2.0)
    assert workers.table == make_table(1, ["a", "b"])
    assert workers.deadline() is None


def test_a_first_worker_that_goes_again_leaves_no_timer_behind():
    workers = Workers((), 5.0, 0.0)
    workers.check(["a"], ["a"], ["a"], 1.0)
    workers.check([], ["a"], [], 1.1)
    assert workers.deadline() is None


def test_a_lost_worker_asks_for_a_checkpoint_and_asks_again():
    workers = Workers(("a", "b", "c"), 0.0, 0.0)
    assert workers.check(["a", "b"], ["a", "b", "c"], [], 1.0) == Reason.WORKER_LOST
    assert not workers.due(1.0)
    assert workers.check(["a", "b"], ["a", "b", "c"], [], 1.5) is None
    assert workers.deadline() == 1.0 + REQUEST_AGAIN
    assert workers.check(["a", "b"], ["a", "b", "c"], [], 1.0 + REQUEST_AGAIN) == Reason.WORKER_LOST
    workers.apply(["a", "b"], 4.0)
    assert workers.table == make_table(2, ["a", "b"]), "a lost worker hands nothing over, and nobody else's slots move"
    assert not workers.unsettled


class TestMoves:
    def grown(self):
        workers = Workers(("a", "b"), 0.0, 0.0)
        every = ["a", "b", "c"]
        assert workers.check(every, every, every, 1.0) is None
        assert workers.due(1.0)
        workers.apply(every, 1.0)
        return workers, workers.table

    def test_every_slot_that_changes_hands_names_its_source(self):
        workers, table = self.grown()
        before = make_table(1, ["a", "b"])
        assert workers.unsettled == {"a", "b", "c"}
        for slot, index in enumerate(table.slots):
            had, has = before.workers[before.slots[slot]], table.workers[index]
            source = table.sources[table.moved[slot] - 1] if table.moved[slot] else ""
            assert source == (had if had != has else "")

    def test_the_next_change_waits_until_this_one_is_settled(self):
        workers, _ = self.grown()
        workers.leaving.add("a")
        every = ["a", "b", "c"]
        workers.check(every, every, every, 2.0)
        assert workers.wanted == ["b", "c"]
        assert not workers.due(2.0)
        workers.settled("a", 1)
        assert "a" in workers.unsettled, "that was the table before"
        for worker in every:
            workers.settled(worker, 2)
        assert workers.table.sources == [], "whoever hears of it now has nothing to wait for"
        assert workers.due(2.0)
        workers.apply(every, 2.0)
        assert set(workers.table.sources) == {"a"}
        assert workers.may_leave(every) == []
        for worker in every:
            workers.settled(worker, 3)
        assert workers.may_leave(every) == ["a"]

    def test_a_source_that_is_lost_is_not_waited_for(self):
        workers, table = self.grown()
        told = workers.gone("b")
        assert told.sources == ["a"]
        for slot, source in enumerate(table.moved):
            assert told.moved[slot] == (1 if source and table.sources[source - 1] == "a" else 0)
        assert workers.unsettled == {"a", "c"}

    def test_who_does_not_answer_is_told_again_and_then_not_waited_for(self):
        workers, _ = self.grown()
        workers.settled("a", 2)
        assert workers.remind(1.5) == []
        assert workers.remind(1.0 + REMIND_AFTER) == ["b", "c"]
        assert workers.deadline() == 1.0 + HANDOVER_TIMEOUT
        assert workers.remind(1.0 + HANDOVER_TIMEOUT) == []
        assert not workers.unsettled
        assert workers.deadline() is None

    def test_the_last_one_may_leave_at_once(self):
        workers = Workers(("a", "b"), 0.0, 0.0)
        workers.leaving |= {"a", "b"}
        assert workers.check(["a", "b"], ["a", "b"], ["a", "b"], 1.0) is None
        assert workers.may_leave(["a", "b"]) == ["a", "b"]

    def test_one_that_dies_while_it_leaves_is_lost(self):
        workers = Workers(("a", "b"), 0.0, 0.0)
        workers.leaving.add("a")
        assert workers.check(["b"], ["a", "b"], ["a", "b"], 1.0) == Reason.WORKER_LOST


def test_a_worker_that_returns_in_time_cancels_the_change():
    workers = Workers(("a", "b"), 0.0, 0.0)
    assert workers.check(["a"], ["a", "b"], ["a"], 1.0) == Reason.WORKER_LOST
    assert workers.check(["a", "b"], ["a", "b"], ["a", "b"], 1.1) is None
    assert workers.wanted == []


def test_nobody_left_keeps_the_table():
    workers = Workers(("a",), 0.0, 0.0)
    assert workers.check([], ["a"], [], 9.0) is None
    assert workers.table.workers == ["a"]


def test_a_restarted_frame_goes_on_with_the_table_in_use():
    workers = Workers((), 5.0, 0.0)
    used = make_table(12, ["a", "b"])
    assert not workers.learn(12)
    assert workers.learn(12, used)
    assert workers.table == used
    assert workers.check(["a"], ["a"], ["a"], 1.0) is None, "b has not had the time to say hello"
    assert workers.check(["a"], ["a"], ["a"], 5.0) == Reason.WORKER_LOST


def test_a_higher_number_in_use_is_outnumbered():
    workers = Workers(("a",), 0.0, 0.0)
    assert workers.learn(9)
    assert workers.table == make_table(10, ["a"])
    assert not workers.learn(10)
