"""Checkpoints when the same causes repeat: how long each has to wait, and that none waits for ever."""

from hypothesis import given, settings
from hypothesis import strategies as st

from colo_frame.checkpoints import MAX_CAUSES, State
from colo_proto.core import Log
from colo_proto.messages import Answer, Reason

from .test_checkpoints import Slow, dones, machine, request


class Clock:
    """A machine that gets requests without an end; `began` holds the times at which its checkpoints began."""

    def __init__(self, **more):
        self.machine = machine(**more)
        self.now = 100.0
        self.began = []
        self.logs = []

    def ask(self, flow, reason=Reason.PAYLOAD):
        m = self.machine
        self.take(m.want(request(m.epoch, reason, flow=flow), "comp0", covers=True, now=self.now))
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
    """17 requests a second from made-up addresses, for a minute."""
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
    """A hundred services that differ: each of them is new, so only the interval and the client's address limit them."""
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
    """While others have new differences all the time, a repeated cause is answered by their checkpoints alone."""
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
def test_every_request_is_answered_in_bounded_time_and_checkpoints_keep_their_distance(requests, interval, backoff):
    """What waits is covered by a requested checkpoint, and that checkpoint comes, whoever requests how often."""
    clock = Clock(interval=interval, backoff=backoff)
    asked = []
    for pause, port, client in requests:
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
    for number in range(2 * MAX_CAUSES):
        m.want(request(flow=flow(f"10.{number >> 8}.{number & 255}.1")), "comp0", covers=True, now=1.0)
    m.advance([], 1.0)
    for number in range(2 * MAX_CAUSES):
        m.want(request(flow=flow(f"10.{number >> 8}.{number & 255}.2")), "comp0", covers=True, now=1.0)
    assert len(m._open) + len(m._answering) == MAX_CAUSES


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
        m.want(request(flow=flow("10.0.0.9")), "comp0", covers=True, now=now)
        m.advance([], now)
        assert m.state is State.RUNNING
        m.driver_heard(Answer(ok=False), [], now)
    assert m.status(3.0)["causes"] == []


def test_who_asks_while_the_driver_runs_was_answered_too():
    m = machine(Slow(), backoff=10.0)
    m.want(request(flow=flow("10.0.0.9")), "comp0", covers=True, now=1.0)
    m.advance([], 1.0)
    m.want(request(flow=flow("10.0.0.8", port=99)), "comp0", covers=True, now=1.1)
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
