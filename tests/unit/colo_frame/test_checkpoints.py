from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from colo_frame.checkpoints import MAX_REMEMBERED, Checkpoints, State
from colo_frame.drivers import Flush, Step, Verdict
from colo_proto.core import Log, Tell
from colo_proto.messages import Answer, CheckpointDone, CheckpointWanted, Flushed, Query, Reason


class Slow:
    """A driver that asks its shell and waits, as one that copies state does."""

    name = "slow"
    copies_state = True

    def __init__(self, patience=9.0):
        self.started = []
        self.until = None
        self.patience = patience

    def start(self, epoch, now):
        self.started.append(epoch)
        self.until = now + self.patience
        return Step([Tell(Query("run", {"epoch": epoch}), "driver")])

    def hear(self, message, now):
        self.until = None
        return Step([], Verdict(ok=message.ok, state_copied=message.ok, error=message.error))

    def deadline(self):
        return self.until

    def on_timer(self, now):
        self.until = None
        return Step([], Verdict(ok=False, state_copied=False, error="took too long"))


def request(epoch=0, reason=Reason.PAYLOAD, source="comp0", flow=""):
    return CheckpointWanted(reason, flow, epoch=epoch, source=source)


def machine(driver=None, interval=0.0, backoff=0.0):
    return Checkpoints(driver or Flush(), Counter(), flush_timeout=2.0, interval=interval, backoff=backoff)


def dones(outputs):
    return [(o.message.epoch, o.to) for o in outputs if isinstance(o, Tell) and isinstance(o.message, CheckpointDone)]


def ask(m, now=0.0, compares=("comp0",), covers=True, **more):
    m.want(request(**more), "comp0", covers, now)
    return m.advance(list(compares), now)


def test_one_request_one_checkpoint():
    m = machine()
    outputs = ask(m)
    assert dones(outputs) == [(1, "peer"), (1, "*")]
    assert m.state is State.FLUSHING
    m.flushed("comp0", Flushed(1, "comp0", released=3, dropped=2))
    outputs = m.advance(["comp0"], 0.1)
    assert [o.event for o in outputs] == ["checkpoint.completed"]
    assert (m.state, m.completed, m.epoch) == (State.IDLE, 1, 1)
    assert m.counters["flush_released"] == 3
    assert m.counters["flush_dropped"] == 2


def test_requests_of_the_old_epoch_are_covered_by_the_checkpoint_that_ended_it():
    m = machine()
    ask(m, epoch=0)
    assert dones(ask(m, epoch=0)) == []
    m.flushed("comp0", Flushed(1, "comp0"))
    m.advance(["comp0"], 0.1)
    assert dones(ask(m, epoch=0)) == []
    assert m.counters["checkpoints_coalesced"] == 2
    assert m.counters["checkpoints_wanted.payload"] == 3


def test_a_request_of_the_new_epoch_is_followed_up_when_the_flush_is_over():
    m = machine()
    ask(m, epoch=0)
    assert dones(ask(m, epoch=1)) == []
    m.flushed("comp0", Flushed(1, "comp0"))
    assert dones(m.advance(["comp0"], 0.1)) == [(2, "peer"), (2, "*")]


def test_while_the_driver_runs_compares_requests_are_covered_and_others_lead_to_one_more():
    m = machine(Slow())
    assert dones(ask(m, epoch=0)) == []
    assert m.state is State.RUNNING
    ask(m, epoch=0)
    outputs = m.driver_heard(Answer(ok=True), [], 1.0)
    assert dones(outputs) == [(1, "peer"), (1, "*")]
    assert m.state is State.IDLE
    ask(m, epoch=1, now=1.0)
    m.want(request(reason=Reason.MIRROR_GAP), "peer", covers=False, now=1.5)
    m.driver_heard(Answer(ok=True), [], 2.0)
    assert m.driver.started == [1, 2, 3]


def test_copied_state_is_remembered():
    m = machine(Slow())
    ask(m)
    assert m.copied_epoch == 0
    m.driver_heard(Answer(ok=True), [], 1.0)
    assert m.copied_epoch == 1


def test_a_failed_checkpoint_announces_nothing_and_covers_nothing():
    m = machine(Slow())
    ask(m)
    outputs = m.driver_heard(Answer(ok=False, error="no space"), ["comp0"], 1.0)
    assert dones(outputs) == []
    assert [(o.event, o.fields["error"]) for o in outputs if isinstance(o, Log)] == [("checkpoint.failed", "no space")]
    assert (m.epoch, m.state, m.counters["checkpoints_failed"]) == (0, State.IDLE, 1)
    ask(m, epoch=0, now=3.0)
    assert m.state is State.RUNNING


def test_a_driver_may_run_out_of_time():
    m = machine(Slow(patience=4.0))
    ask(m, now=1.0)
    assert m.deadline() == 5.0
    m.on_timer(["comp0"], 4.0)
    assert m.state is State.RUNNING
    m.on_timer(["comp0"], 5.0)
    assert m.state is State.IDLE


def test_an_answer_after_the_end_is_ignored():
    m = machine(Slow())
    assert m.driver_heard(Answer(ok=True), [], 0.0) == []
    assert m.epoch == 0


def test_a_compare_that_does_not_answer_is_waited_for_only_so_long():
    m = machine()
    ask(m, now=1.0, compares=("comp0", "comp1"))
    m.flushed("comp0", Flushed(1, "comp0"))
    assert m.advance(["comp0", "comp1"], 2.9) == []
    assert m.deadline() == 3.0
    outputs = m.on_timer(["comp0", "comp1"], 3.0)
    assert outputs[0].fields == {"epoch": 1, "unanswered": ["comp1"]}
    assert (m.completed, m.counters["flush_timeouts"]) == (1, 1)


def test_a_compare_that_is_lost_or_restarted_is_not_waited_for():
    m = machine()
    ask(m, compares=("comp0", "comp1", "comp2"))
    m.flushed("comp0", Flushed(1, "comp0"))
    m.restarted("comp1")
    assert m.completed == 0
    m.advance(["comp0", "comp1"], 0.1)
    assert m.completed == 1


def test_answers_to_another_epoch_do_not_count():
    m = machine()
    ask(m)
    m.flushed("comp0", Flushed(7, "comp0"))
    m.advance(["comp0"], 0.1)
    assert m.completed == 0


def test_without_a_compare_there_is_nobody_to_wait_for():
    m = machine()
    ask(m, compares=())
    assert m.completed == 1


def test_the_interval_keeps_checkpoints_apart():
    m = machine(interval=5.0)
    ask(m, now=10.0, compares=())
    assert dones(ask(m, now=11.0, compares=(), epoch=1)) == []
    assert m.deadline() == 15.0
    assert m.on_timer([], 14.9) == []
    assert dones(m.on_timer([], 15.0)) == [(2, "peer"), (2, "*")]
    assert m.deadline() is None


def test_a_restarted_frame_counts_on_from_what_compare_knows():
    m = machine()
    assert dones(ask(m, epoch=41)) == [(42, "peer"), (42, "*")]


def test_the_last_requests_are_kept_with_their_details():
    m = machine()
    for number in range(MAX_REMEMBERED + 5):
        ask(m, now=float(number), compares=(), epoch=number)
    kept = m.status(100.0)["wanted"]
    assert len(kept) == MAX_REMEMBERED
    assert kept[-1]["epoch"] == MAX_REMEMBERED + 4
    assert kept[-1]["age_ms"] == (100 - MAX_REMEMBERED - 4) * 1000
    assert kept[-1]["source"] == "comp0"


def test_unknown_reasons_share_one_counter():
    m = machine()
    for number in range(50):
        m.want(request(reason=f"made-up-{number}"), "comp0", covers=True, now=0.0)
    assert [name for name in m.counters if name.startswith("checkpoints_wanted")] == ["checkpoints_wanted.other"]


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.integers(-2, 1)),
        st.tuples(st.just("other"), st.just(0)),
        st.tuples(st.just("answer"), st.booleans()),
        st.tuples(st.just("flushed"), st.sampled_from(["a", "b"])),
        st.tuples(st.just("time"), st.floats(0.01, 3)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_epochs_grow_by_one_and_no_request_is_forgotten(events):
    m = machine(Slow(patience=4.0))
    now, seen, open_request = 0.0, [], False
    for kind, value in events:
        outputs = []
        if kind == "want":
            epoch = max(m.epoch + min(value, 0), 0)
            m.want(request(epoch=epoch), "a", covers=True, now=now)
            open_request |= epoch == m.epoch and m.state is not State.RUNNING
        elif kind == "other":
            m.want(request(reason=Reason.MIRROR_GAP), "peer", covers=False, now=now)
            open_request = True
        elif kind == "answer":
            outputs = m.driver_heard(Answer(ok=value), ["a", "b"], now)
        elif kind == "flushed":
            m.flushed(value, Flushed(m.epoch, value))
        else:
            now += value
            outputs = m.on_timer(["a", "b"], now)
        before = m.counters["checkpoints_started"]
        outputs += m.advance(["a", "b"], now)
        seen += [epoch for epoch, to in dones(outputs) if to == "*"]
        if m.counters["checkpoints_started"] > before or m.state is State.RUNNING:
            open_request = open_request and m.status(now)["pending"]
        if open_request and m.state is State.IDLE:
            raise AssertionError("a request is open and nothing is under way")
    assert seen == list(range(1, len(seen) + 1))
    assert m.epoch == len(seen)
