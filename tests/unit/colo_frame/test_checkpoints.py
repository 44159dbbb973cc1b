from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from colo_frame.checkpoints import MAX_OPEN, MAX_REMEMBERED, Checkpoints, State
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


def wish(epoch=0, reason=Reason.PAYLOAD, source="comp0", flow=""):
    return CheckpointWanted(reason, flow, epoch=epoch, source=source)


def machine(driver=None, interval=0.0, backoff=0.0):
    return Checkpoints(driver or Flush(), Counter(), flush_timeout=2.0, interval=interval, backoff=backoff)


def dones(outputs):
    return [(o.message.epoch, o.to) for o in outputs if isinstance(o, Tell) and isinstance(o.message, CheckpointDone)]


def ask(m, now=0.0, compares=("comp0",), covers=True, **more):
    m.want(wish(**more), "comp0", covers, now)
    return m.advance(list(compares), now)


def test_one_wish_one_checkpoint():
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


def test_wishes_of_the_old_epoch_are_covered_by_the_checkpoint_that_ended_it():
    m = machine()
    ask(m, epoch=0)
    assert dones(ask(m, epoch=0)) == []
    m.flushed("comp0", Flushed(1, "comp0"))
    m.advance(["comp0"], 0.1)
    assert dones(ask(m, epoch=0)) == []
    assert m.counters["checkpoints_coalesced"] == 2
    assert m.counters["checkpoints_wanted.payload"] == 3


def test_a_wish_of_the_new_epoch_is_followed_up_when_the_flush_is_over():
    m = machine()
    ask(m, epoch=0)
    assert dones(ask(m, epoch=1)) == []
    m.flushed("comp0", Flushed(1, "comp0"))
    assert dones(m.advance(["comp0"], 0.1)) == [(2, "peer"), (2, "*")]


def test_while_the_driver_runs_compares_wishes_are_covered_and_others_lead_to_one_more():
    m = machine(Slow())
    assert dones(ask(m, epoch=0)) == []
    assert m.state is State.RUNNING
    ask(m, epoch=0)
    outputs = m.driver_heard(Answer(ok=True), [], 1.0)
    assert dones(outputs) == [(1, "peer"), (1, "*")]
    assert m.state is State.IDLE
    ask(m, epoch=1, now=1.0)
    m.want(wish(reason=Reason.MIRROR_GAP), "peer", covers=False, now=1.5)
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


# -- repeated causes ---------------------------------------------------------------------------------


class Clock:
    """A machine whose wishes come from somebody who never stops; `began` is when its checkpoints did."""

    def __init__(self, **more):
        self.machine = machine(**more)
        self.now = 100.0
        self.began = []
        self.logs = []

    def ask(self, flow, reason=Reason.PAYLOAD):
        m = self.machine
        self.take(m.want(wish(m.epoch, reason, flow=flow), "comp0", covers=True, now=self.now))
        self.take(m.advance([], self.now))

    def take(self, outputs):
        self.began += [self.now for epoch, to in dones(outputs) if to == "*"]
        self.logs += [o for o in outputs if isinstance(o, Log)]

    def until(self, end):
        while (due := self.machine.deadline()) is not None and due <= end:
            self.now = max(due, self.now)
            self.take(self.machine.on_timer([], self.now))
        self.now = end


def flow(client, port=53, sport=6000):
    return f"udp 10.0.0.2:{port} > {client}:{sport}"


def test_a_client_that_never_stops_gets_ever_fewer_checkpoints():
    """17 wishes a second from made-up addresses, for a minute."""
    clock = Clock(interval=1.0, backoff=10.0)
    for number in range(60 * 17):
        clock.ask(flow(f"10.{number >> 8}.{number & 255}.1", sport=number))
        clock.until(clock.now + 1 / 17)
    gaps = [round(b - a, 6) for a, b in zip(clock.began, clock.began[1:], strict=False)]
    assert clock.began[0] == 100.0
    assert gaps == [1, 2, 4, 8, 10, 10, 10, 10]
    assert clock.machine.counters["checkpoints_put_off.udp port 53"] == 9
    assert [log.fields["cause"] for log in clock.logs if log.event == "checkpoint.put_off"] == ["udp port 53"] * 9


def test_nor_when_it_changes_what_it_attacks():
    """A hundred services that differ: each is new, and the interval is what remains. Its address gives it away."""
    clock = Clock(interval=1.0, backoff=10.0)
    for number in range(60 * 17):
        clock.ask(flow("10.0.0.66", port=1 + number % 100))
        clock.until(clock.now + 1 / 17)
    assert len(clock.began) == 9
    spoofed = Clock(interval=1.0, backoff=10.0)
    for number in range(60 * 17):
        spoofed.ask(flow(f"10.{number >> 8}.{number & 255}.1", port=number))
        spoofed.until(spoofed.now + 1 / 17)
    assert len(spoofed.began) <= 61


def test_a_flow_that_differs_for_the_first_time_does_not_wait_for_others():
    clock = Clock(interval=1.0, backoff=10.0)
    for number in range(30 * 17):
        clock.ask(flow("10.0.0.66", sport=number))
        clock.until(clock.now + 1 / 17)
    before = list(clock.began)
    assert clock.now < before[-1] + 10, "the next one of the attack is far"
    clock.until(max(clock.now, before[-1] + 1))
    clock.ask("tcp 10.0.0.2:22 > 10.0.0.9:5000")
    assert clock.began == [*before, clock.now]
    assert not clock.machine.status(clock.now)["pending"], "it answered all that waited"


def test_what_was_answered_on_the_way_is_held_against_it():
    """While others have new differences all the time, a repeated cause is answered with them and not besides."""
    clock = Clock(interval=1.0, backoff=10.0)
    for number in range(41):
        clock.ask(flow("10.0.0.66", sport=number))
        clock.ask(f"tcp 10.0.0.2:{number + 1000} > 10.1.0.{number}:5000")
        clock.until(clock.now + 1)
    assert clock.began == [100.0 + second for second in range(42)], "the interval is kept"
    repeated = clock.machine.status(clock.now)["causes"]
    assert {one["cause"] for one in repeated if one["delay_ms"] == 10000} == {"udp port 53", "10.0.0.66"}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 7), st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=80),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 3.0, 10.0]),
)
def test_every_wish_is_answered_in_bounded_time_and_checkpoints_keep_their_distance(wishes, interval, backoff):
    """What waits is covered by a demanded checkpoint, and that one comes: whoever asks, and however often."""
    clock = Clock(interval=interval, backoff=backoff)
    asked = []
    for pause, port, client in wishes:
        clock.until(clock.now + pause)
        clock.ask(flow(f"10.0.0.{client}", port=port))
        asked.append(clock.now)
    clock.until(clock.now + 100)
    for at in asked:
        assert any(at <= began <= at + max(interval, backoff) + 1e-6 for began in clock.began), (at, clock.began)
    assert all(b - a >= interval - 1e-6 for a, b in zip(clock.began, clock.began[1:], strict=False))
    assert not clock.machine.status(clock.now)["pending"]


def test_what_one_checkpoint_is_held_against_is_bounded():
    m = machine(Slow(), backoff=10.0)
    for number in range(2 * MAX_OPEN):
        m.want(wish(flow=flow(f"10.{number >> 8}.{number & 255}.1")), "comp0", covers=True, now=1.0)
    m.advance([], 1.0)
    for number in range(2 * MAX_OPEN):
        m.want(wish(flow=flow(f"10.{number >> 8}.{number & 255}.2")), "comp0", covers=True, now=1.0)
    assert len(m._open) + len(m._answering) == MAX_OPEN


def test_an_order_does_not_wait():
    clock = Clock(interval=60.0, backoff=600.0)
    clock.ask(flow("10.0.0.9"))
    clock.until(101.0)
    clock.ask(flow("10.0.0.9"))
    assert len(clock.began) == 1
    clock.ask("", Reason.REQUEST)
    assert clock.began == [100.0, 101.0]
    clock.ask(flow("10.0.0.9"))
    assert len(clock.began) == 2


def test_a_failed_checkpoint_is_nobodys_fault():
    m = machine(Slow(), backoff=10.0)
    for now in (1.0, 2.0, 3.0):
        m.want(wish(flow=flow("10.0.0.9")), "comp0", covers=True, now=now)
        m.advance([], now)
        assert m.state is State.RUNNING
        m.driver_heard(Answer(ok=False), [], now)
    assert m.status(3.0)["causes"] == []


def test_who_asks_while_the_driver_runs_was_answered_too():
    m = machine(Slow(), backoff=10.0)
    m.want(wish(flow=flow("10.0.0.9")), "comp0", covers=True, now=1.0)
    m.advance([], 1.0)
    m.want(wish(flow=flow("10.0.0.8", port=99)), "comp0", covers=True, now=1.1)
    m.driver_heard(Answer(ok=True), [], 1.2)
    assert {one["cause"] for one in m.status(1.2)["causes"]} == {"udp port 53", "udp port 99", "10.0.0.9", "10.0.0.8"}


def test_what_waits_and_what_is_repeated_are_gauges():
    clock = Clock(interval=1.0, backoff=10.0)
    for number in range(10 * 17):
        clock.ask(flow("10.0.0.66", sport=number))
        clock.until(clock.now + 1 / 17)
    m = clock.machine
    clock.take(m.on_timer([], clock.now))
    assert m.levels["causes_repeated"] == 2
    assert 0 < m.levels["checkpoint_put_off_ms"] <= 8000
    clock.until(clock.now + 60)
    clock.take(m.on_timer([], clock.now))
    assert m.levels == {"causes_repeated": 0, "checkpoint_put_off_ms": 0}


def test_a_restarted_frame_counts_on_from_what_compare_knows():
    m = machine()
    assert dones(ask(m, epoch=41)) == [(42, "peer"), (42, "*")]


def test_the_last_wishes_are_kept_with_their_details():
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
        m.want(wish(reason=f"made-up-{number}"), "comp0", covers=True, now=0.0)
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
def test_epochs_grow_by_one_and_no_wish_is_forgotten(events):
    m = machine(Slow(patience=4.0))
    now, seen, open_wish = 0.0, [], False
    for kind, value in events:
        outputs = []
        if kind == "want":
            epoch = max(m.epoch + min(value, 0), 0)
            m.want(wish(epoch=epoch), "a", covers=True, now=now)
            open_wish |= epoch == m.epoch and m.state is not State.RUNNING
        elif kind == "other":
            m.want(wish(reason=Reason.MIRROR_GAP), "peer", covers=False, now=now)
            open_wish = True
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
            open_wish = open_wish and m.status(now)["pending"]
        if open_wish and m.state is State.IDLE:
            raise AssertionError("a wish is open and nothing is under way")
    assert seen == list(range(1, len(seen) + 1))
    assert m.epoch == len(seen)
