"""Checkpoints: many requests, one checkpoint, counted by epochs.

::

             wanted (and the delay over)         driver's verdict            all compares answered,
      IDLE -------------------------------> RUNNING -------------> FLUSHING  lost, or too late
       ^                                       | failed                |
       +---------------------------------------+-----------------------+

The epoch grows by one when the driver has succeeded and `CheckpointDone` is sent. Compare stamps each request with the
last epoch that it knows. A request that arrives while the driver runs, or that carries an older epoch, was made before
`CheckpointDone` arrived at the compare, so that checkpoint covers it. Requests of other processes carry no useful
epoch: if a checkpoint is under way, another one follows it. A failed checkpoint covers nothing, and compare requests
another one.

No client may cause checkpoints as fast as they can be made. There is a shortest time from one to the next
(`interval`), and a request whose causes have had checkpoints before waits longer each time (`causes`). A checkpoint
answers every request that waits, so what differs for the first time waits for the interval at most, whatever others do.
Orders of people (`colo resync`, `colo checkpoint`) do not wait.
"""

from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from typing import Any

from colo_frame.causes import MAX_CAUSE, MAX_FLOW, CauseNames, Causes, causes_of
from colo_frame.drivers import Driver, Step
from colo_frame.peer import PEER
from colo_frame.registry import EVERYBODY
from colo_proto.core import Log, Output, Tell
from colo_proto.messages import CheckpointDone, CheckpointWanted, Flushed, Message, Reason, to_dict

MAX_REMEMBERED = 32
MAX_CAUSES = 1024
"""One checkpoint counts for at most this many causes. A client that makes up more addresses is known by its service."""
ORDERS = frozenset({Reason.REQUEST, Reason.RESYNC})
_REASONS = frozenset(value for name, value in vars(Reason).items() if name.isupper())


class State(Enum):
    IDLE = "idle"
    RUNNING = "running"
    FLUSHING = "flushing"


@dataclass(frozen=True, slots=True)
class Last:
    """A checkpoint that is over, and the request that it was begun for."""

    epoch: int
    reason: str
    flow: str
    at: float
    copied: bool


class Checkpoints:
    """The primary's checkpoint machine. Times are seconds; `backoff` is the longest delay of a repeated cause."""

    def __init__(
        self, driver: Driver, counters: Counter[str], flush_timeout: float, interval: float, backoff: float = 0.0
    ) -> None:
        self.driver = driver
        self.counters = counters
        self.epoch = 0
        """The last epoch that was announced."""
        self.copied_epoch = 0
        """The last epoch that began with equal guests."""
        self.state = State.IDLE
        self.completed = 0
        self.last: Last | None = None
        """The last checkpoint that is over."""
        self.levels = {"causes_repeated": 0, "checkpoint_put_off_ms": 0}
        """Gauges, with the values that they had when the timer last fired."""
        self.wanted: deque[tuple[CheckpointWanted, str, float]] = deque(maxlen=MAX_REMEMBERED)
        """The latest requests, who made each, and when."""
        self._flush_timeout = flush_timeout
        self._interval = interval
        self.causes = Causes(backoff)
        self._pending = False
        """Another checkpoint is wanted."""
        self._due = 0.0
        """When the first of the pending requests may be answered."""
        self._ordered = False
        """Somebody has ordered the checkpoint that is pending, so it does not wait."""
        self._asked = self._begun_for = ("", "")
        """Reason and flow of the request that the next checkpoint, or the one under way, answers first."""
        self._open: set[CauseNames] = set()
        """Causes of the requests that the next checkpoint will answer."""
        self._answering: set[CauseNames] = set()
        """Causes of the requests that the checkpoint under way answers."""
        self._waiting_for: set[str] = set()
        self._since = 0.0
        self._earliest = 0.0
        """When the interval since the last checkpoint will be over."""

    def want(self, message: CheckpointWanted, sender: str, covers: bool, now: float) -> list[Output]:
        """Note a request. `covers`: its epoch tells whether a checkpoint covers it already (see the module)."""
        reason = message.reason if message.reason in _REASONS else "other"
        self.counters["checkpoints_wanted." + reason] += 1
        self.wanted.append((message, message.source or sender, now))
        if covers:
            # A frame that was restarted may know an older epoch than compare does.
            self.epoch = max(self.epoch, message.epoch)
            if message.epoch < self.epoch or self.state is State.RUNNING:
                self.counters["checkpoints_coalesced"] += 1
                if self.state is State.RUNNING and len(self._answering) < MAX_CAUSES:
                    self._answering.add(causes_of(message))
                return []
        if self._pending:
            self.counters["checkpoints_coalesced"] += 1
        return self._pend(message, now)

    def _pend(self, message: CheckpointWanted, now: float) -> list[Output]:
        """Let the next checkpoint answer this request, as soon as its causes may have one."""
        names = causes_of(message)
        due = self.causes.due(names)
        if not self._pending or (message.reason in ORDERS and not self._ordered):
            self._asked = (message.reason[:MAX_CAUSE], message.flow[:MAX_FLOW])
        self._ordered |= message.reason in ORDERS
        self._due = min(self._due, due) if self._pending else due
        self._pending = True
        if len(self._open) < MAX_CAUSES:
            self._open.add(names)
        put_off = self.causes.put_off(names, message, now) if due > now else None
        if put_off is None:
            return []
        cause, delay = put_off
        self.counters["checkpoints_put_off." + self.causes.counter(cause)] += 1
        seen = {"reason": message.reason[:MAX_CAUSE], "flow": message.flow[:MAX_FLOW]}
        return [Log("warning", "checkpoint.put_off", {"cause": cause, "delay_ms": int(delay * 1000), **seen})]

    @property
    def idle(self) -> bool:
        """No checkpoint is under way."""
        return self.state is State.IDLE

    def learn(self, epoch: int) -> None:
        """Somebody has heard of `epoch`, so this frame was restarted and continues to count from there."""
        if epoch > self.epoch and self.state is not State.RUNNING:
            self.epoch = epoch

    def advance(self, compares: list[str], now: float) -> list[Output]:
        """Do what can be done now. `compares` are the live compare processes."""
        if self.state is State.FLUSHING:
            self._waiting_for.intersection_update(compares)
            if not self._waiting_for or now >= self._since + self._flush_timeout:
                return [self._complete(now), *self.advance(compares, now)]
        elif self.state is State.IDLE and self._pending and now >= self._begins():
            self._pending = self._ordered = False
            self._answering, self._open = self._open, set()
            self._begun_for = self._asked
            self.state = State.RUNNING
            self.counters["checkpoints_started"] += 1
            return self._took(self.driver.start(self.epoch + 1, now), compares, now)
        return []

    def driver_heard(self, message: Message, compares: list[str], now: float) -> list[Output]:
        """The driver's shell answered."""
        return self._took(self.driver.hear(message, now), compares, now) if self.state is State.RUNNING else []

    def on_timer(self, compares: list[str], now: float) -> list[Output]:
        """The deadline has passed, or time has."""
        self.levels = {"causes_repeated": self.causes.repeated(now), "checkpoint_put_off_ms": self.put_off_ms(now)}
        if self.state is State.RUNNING:
            due = self.driver.deadline()
            if due is not None and due <= now:
                return self._took(self.driver.on_timer(now), compares, now)
        return self.advance(compares, now)

    def deadline(self) -> float | None:
        """When to call `on_timer`."""
        if self.state is State.RUNNING:
            return self.driver.deadline()
        if self.state is State.FLUSHING:
            return self._since + self._flush_timeout
        return self._begins() if self._pending else None

    def _begins(self) -> float:
        """When the next checkpoint may begin, if one is wanted."""
        return 0.0 if self._ordered else max(self._earliest, self._due)

    def flushed(self, sender: str, message: Flushed) -> None:
        """A compare has dealt with its queues for the checkpoint that was announced."""
        if self.state is State.FLUSHING and message.epoch == self.epoch:
            self._waiting_for.discard(sender)
            self.counters["flush_released"] += message.released
            self.counters["flush_dropped"] += message.dropped

    def reset(self) -> None:
        """Another host leads from now on: no checkpoint is under way or wanted here. The epochs go on."""
        self.state, self._pending, self._ordered, self._due = State.IDLE, False, False, 0.0
        self._waiting_for.clear()
        self._open, self._answering = set(), set()

    def restarted(self, compare: str) -> None:
        """A compare was restarted: it no longer holds anything that it was asked to flush."""
        self._waiting_for.discard(compare)

    def _took(self, step: Step, compares: list[str], now: float) -> list[Output]:
        outputs, verdict = list(step.outputs), step.verdict
        if verdict is None:
            return outputs
        if not verdict.ok:
            self.state = State.IDLE
            self._earliest = now + self._interval
            self.counters["checkpoints_failed"] += 1
            outputs.append(Log("error", "checkpoint.failed", {"epoch": self.epoch + 1, "error": verdict.error}))
            return outputs
        self.causes.answered(self._answering, now)
        self.epoch += 1
        if verdict.state_copied:
            self.copied_epoch = self.epoch
        done = CheckpointDone(self.epoch, verdict.state_copied)
        # The other host hears it first: after a copy the rewriter's offsets are wrong for every frame of the new state.
        outputs += [Tell(done, PEER), Tell(done, EVERYBODY)]
        self.state = State.FLUSHING
        self._waiting_for = set(compares)
        self._since = now
        return [*outputs, *self.advance(compares, now)]

    def _complete(self, now: float) -> Output:
        missing = sorted(self._waiting_for)
        self.state = State.IDLE
        self._waiting_for.clear()
        self._earliest = now + self._interval
        self.completed += 1
        self.counters["checkpoints_done"] += 1
        self.last = Last(self.epoch, *self._begun_for, now, self.copied_epoch == self.epoch)
        if not missing:
            return Log("info", "checkpoint.completed", {"epoch": self.epoch, "copied": self.copied_epoch == self.epoch})
        self.counters["flush_timeouts"] += 1
        return Log("warning", "checkpoint.completed", {"epoch": self.epoch, "unanswered": missing})

    def put_off_ms(self, now: float) -> int:
        """For how long the pending requests still have to wait; 0 when nothing is put off."""
        waits = self._pending and self.state is State.IDLE
        return max(int((self._begins() - now) * 1000), 0) if waits else 0

    def last_status(self, now: float) -> dict[str, Any]:
        """The last checkpoint, for `colo status` of both hosts; empty when there was none."""
        last = self.last
        if last is None:
            return {}
        age = int((now - last.at) * 1000)
        return {"epoch": last.epoch, "reason": last.reason, "flow": last.flow, "age_ms": age, "copied": last.copied}

    def status(self, now: float) -> dict[str, Any]:
        """What `colo status` shows: the newest request comes last, and ages are milliseconds."""
        return {
            "driver": self.driver.name,
            "state": self.state.value,
            "completed": self.completed,
            "last": self.last_status(now),
            "copied_epoch": self.copied_epoch,
            "pending": self._pending,
            "put_off_ms": self.put_off_ms(now),
            "causes": self.causes.status(now),
            "waiting_for": sorted(self._waiting_for),
            "wanted": [
                {**to_dict(message), "source": source, "age_ms": int((now - at) * 1000)}
                for message, source, at in self.wanted
            ],
        }
