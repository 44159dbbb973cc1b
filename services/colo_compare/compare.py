"""`colo-compare`: releases a primary frame only if the secondary could carry on after it.

::

    primary_in   ---> +----------------+
                      |  dispatch      |      one TcpFlow or DatagramFlow per guest-to-client flow
    secondary_in ---> |  by flow key   | ---> flows ---> outdev
                      +----------------+         |
    notify_dev   <----- checkpoint wanted -------+      (secondary frames are never sent)
                 -----> checkpoint done, mode
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from colo_compare.config import CompareConfig
from colo_compare.dispatch import Dispatch
from colo_compare.exempt import aside
from colo_compare.flow import frames_of
from colo_compare.moving import Moving
from colo_proto.core import Log, Output, Port, Send, Tell, Way
from colo_proto.errors import ConfigError
from colo_proto.frame import Buffer
from colo_proto.messages import (
    CheckpointDone,
    Flushed,
    Handover,
    HandoverTaken,
    Message,
    Mode,
    SetMode,
    SetRules,
    Welcome,
    WorkerTable,
)
from colo_proto.rules import COMPARE, parse_rules


class Compare(Dispatch):
    """The core. Ports `primary_in`, `secondary_in`, `outdev`; control by `tell`."""

    ports: ClassVar[tuple[Port, ...]] = (
        Port("primary_in", Way.IN, required=True, doc="frames of the primary guest", marks=True),
        Port("secondary_in", Way.IN, required=True, doc="frames of the secondary guest, rewritten", marks=True),
        Port("outdev", Way.OUT, required=True, doc="released frames of the primary guest"),
    )

    def __init__(self, config: CompareConfig) -> None:
        super().__init__(config)
        self.mode = config.mode
        self.ledger.shadow = config.mode == Mode.SHADOW
        self._frames_rules: SetRules | None = None
        """What the COLO frame has said; it comes before our own."""
        self._frame = 0
        self.oldest = 0.0
        """Age of the oldest held frame at the last scan."""
        self._reached = 0.0
        self._progress = -math.inf
        """`ledger.reached` at the last scan, and when it had last changed by then."""
        self.behind = 0.0
        """How far the secondary was behind the primary then, in seconds (shadow mode)."""
        self.moving = Moving(self, self.handle)
        self._leftovers = 0
        """Flows of which the secondary sent more than the primary, when the inputs had ended."""

    @property
    def counters(self) -> Counter[str]:
        """All counters; the books they keep are in `ledger`."""
        return self.ledger.folded()

    # -- frames --------------------------------------------------------------------------------------

    def receive(self, port: str, frames: Sequence[bytes], now: float) -> list[Output]:
        """Frames of one guest arrived; what may go is in the outputs."""
        if self.moving.busy and self.mode != Mode.BYPASS:
            frames = self.moving.sift(port, frames)
        self.handle(port, frames, now)
        return self._out()

    def handle(self, port: str, frames: Sequence[bytes], now: float) -> None:
        """Frames whose flows are here."""
        if self.next_scan is None:
            self.next_scan = now + self.cycle
        ledger = self.ledger
        if port == "primary_in":
            ledger.frames_primary += len(frames)
            if self.mode == Mode.ENFORCE:
                self._take(frames, now, primary=True)
            elif self.mode == Mode.SHADOW:
                with aside(ledger):
                    self._take(frames, now, primary=True)
                ledger.sink.extend(frames)
                ledger.counters["released.mode"] += len(frames)
            else:
                ledger.counters["released.mode"] += len(frames)
                ledger.sink.extend(frames)
        else:
            ledger.frames_secondary += len(frames)
            if self.mode == Mode.BYPASS:
                ledger.secondary_gone(len(frames), "mode")
            else:
                self._take(frames, now, primary=False)
                if ledger.secondary_bytes > ledger.max_secondary_bytes:
                    ledger.squeeze()

    def _out(self) -> list[Output]:
        ledger = self.ledger
        outputs, ledger.outputs = ledger.outputs, []
        if ledger.sink:
            sink, ledger.sink = ledger.sink, []
            frames: list[Buffer] = []
            for unit in sink:
                if type(unit) is tuple:
                    frames.extend(unit)
                else:
                    frames.append(unit)  # type: ignore[arg-type]
            ledger.released = ledger.released + len(frames)
            outputs.append(Send("outdev", frames))
        return outputs

    # -- time ----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """The next scan, or sooner when something is suspected, seems stuck, or is on its way to or from a worker."""
        suspects, stuck, moves = self.ledger.suspects, self.ledger.stuck, self.moving.deadline()
        if not suspects and not stuck and moves is None:
            return self.next_scan
        due = [self.next_scan, moves]
        if suspects:
            due.append(min(suspects.values()))
        if stuck:
            # All wait equally long, so the first that came is the first that is due.
            due.append(next(iter(stuck.values())))
        return min(when for when in due if when is not None)

    def mark(self, port: str, version: int, now: float) -> list[Output]:
        """From here on `port` is shared out by the worker table `version`."""
        self.moving.mark(port, version, now)
        return self._out()

    def leave(self, now: float) -> list[Output]:
        """Before the process stops: ask for our flows to be moved. Nothing when no input is shared out."""
        return self._out() if self.moving.leave() else []

    def on_timer(self, now: float) -> list[Output]:
        """Judge what is due; every `expired_scan_cycle` look for frames older than `compare_timeout`."""
        suspects, stuck = self.ledger.suspects, self.ledger.stuck
        for flow in [flow for flow, due in suspects.items() if due <= now]:
            del suspects[flow]
            flow.judge(now)
        while stuck and next(iter(stuck.values())) <= now:
            flow = next(iter(stuck))
            del stuck[flow]
            flow.judge(now)
        if self.next_scan is not None and now >= self.next_scan:
            self._scan(now)
        self.moving.on_timer(now)
        return self._out()

    def _scan(self, now: float) -> None:
        ledger = self.ledger
        self.next_scan = now + self.cycle if self.flows or ledger.held or ledger.held_secondary else None
        limit = now - self.timeout
        first = now
        for flow in list(ledger.holding):
            oldest = flow.oldest()
            if oldest is None:
                del ledger.holding[flow]
                continue
            first = min(first, oldest)
            if oldest < limit and not flow.wanted:
                flow.timed_out(now)
        self.oldest = now - first
        limit = self._late_before(limit, now)
        for flow in list(ledger.lingering):
            flow.expire(limit, now)
            if not flow.lingers():
                ledger.lingering.pop(flow, None)
        for side, assembler in enumerate(self.fragments):
            assembler.expire(now)
            self._collect(assembler.dropped(), "fragments", primary=side == 0)
        ledger.ask_again(now)
        ledger.relax()
        self._forget_idle(now)

    def _late_before(self, limit: float, now: float) -> float:
        """When a primary frame that has left must have been sent, so that an equal one is overdue by now (shadow mode).

        A secondary host that is slower than the primary's falls behind, for nothing makes the primary wait. While it
        still catches up with newer frames of the primary, in any flow, it is late and not different, so that a frame
        counts from when the secondary has come that far. One that makes no progress at all gets no such respite.
        """
        reached = self.ledger.reached
        if reached > self._reached:
            self._reached, self._progress = reached, now
        self.behind = now - reached if now - self._progress < self.timeout else 0.0
        return limit - self.behind

    # -- control -------------------------------------------------------------------------------------

    def tell(self, message: Message, now: float) -> list[Output]:
        """`CheckpointDone`, `SetMode`, `Welcome` of the COLO frame."""
        if isinstance(message, CheckpointDone):
            self._checkpoint(message)
        elif isinstance(message, SetMode):
            self._set_mode(message.mode)
            if message.resync:
                self._resync()
        elif isinstance(message, SetRules):
            self._frames_rules = message
            self._rules(message.rules, "the frame's rules")
        elif isinstance(message, WorkerTable):
            self.moving.table(message, now)
        elif isinstance(message, Handover):
            self.moving.handed(message, now)
        elif isinstance(message, HandoverTaken):
            self.moving.taken(message, now)
        elif isinstance(message, Welcome):
            self.ledger.epoch = max(self.ledger.epoch, message.epoch)
            self._set_mode(message.mode)
            if message.incarnation != self._frame and self._frames_rules is not None:
                # The frame was restarted: it takes this back unless it has rules of its own.
                self.ledger.outputs.append(Tell(self._frames_rules))
            self._frame = message.incarnation
        return self._out()

    def load_rules(self, text: str, where: str) -> list[Output]:
        """Rules of our own file. Those of the COLO frame, once it has said some, come before them."""
        if self._frames_rules is not None:
            self.ledger.outputs.append(Log("warning", "rules.overruled", {"where": where}))
            return self._out()
        self._rules(text, where)
        return self._out()

    def _rules(self, text: str, where: str) -> None:
        """Put other rules into force, for open flows as well; the old ones stay when these are wrong."""
        ledger = self.ledger
        try:
            rules = parse_rules(text, where)
        except ConfigError as error:
            ledger.counters["rules_refused"] += 1
            ledger.outputs.append(Log("error", "rules.refused", {"error": str(error)}))
            return
        ledger.rules = rules
        ledger.counters["rules_loaded"] += 1
        ledger.outputs.append(Log("info", "rules.loaded", {"where": where, "rules": len(rules.rules)}))
        for flow in list(self.flows.values()):
            rule = rules.find(flow.key)
            if rule.action == flow.rule.action:
                flow.rule = rule
                continue
            # What follows starts from the middle; what is held was not found equal, and may go only if exempt.
            if rule.action != COMPARE:
                flow.let_out("rule")
                flow.unbound()
            self.forget(flow, "rule")

    def _checkpoint(self, done: CheckpointDone) -> None:
        """Release what the checkpoint covers.

        With the state copied everything held may go: the secondary now is the primary's copy. Without,
        only the flows that asked are let go, and are unprotected from then on; the others are still
        equal and go on being compared, so their queues stay.
        """
        ledger = self.ledger
        held, before, made = ledger.held, len(ledger.sink), ledger.counters["synthesized"]
        if done.state_copied:
            for flow in self.flows.values():
                flow.flush(copied=True)
            ledger.unprotected.clear()
            ledger.unjudged.clear()
            ledger.strangers = False
            self._clear_fragments("checkpoint")
        else:
            for flow in ledger.asked:
                flow.flush(copied=False)
                ledger.unprotected.add(flow.key)
        ledger.asked.clear()
        ledger.epoch = max(ledger.epoch, done.epoch)
        ledger.counters["checkpoints_done"] += 1
        released = sum(frames_of(unit) for unit in ledger.sink[before:]) - ledger.counters["synthesized"] + made
        ledger.outputs.append(Tell(Flushed(done.epoch, self.config.id, released, held - ledger.held - released)))
        ledger.outputs.append(
            Log("info", "checkpoint.flushed", {"epoch": done.epoch, "copied": done.state_copied, "released": released})
        )

    def _clear_fragments(self, cause: str) -> None:
        """Datagrams that are not whole yet: the primary's fragments go, the secondary's are dropped."""
        ledger = self.ledger
        mine, its = (assembler.clear() for assembler in self.fragments)
        if not ledger.shadow:
            ledger.held -= len(mine)
            for frame in mine:
                ledger.passed(frame, cause)
        ledger.secondary_gone(len(its), cause, stored=True)

    def _set_mode(self, mode: str) -> None:
        if mode == self.mode or mode not in Mode.ALL:
            return
        ledger = self.ledger
        if mode != Mode.ENFORCE:
            for flow in list(ledger.holding):
                flow.let_out("mode")
        self._clear_fragments("mode")
        for flow in list(self.flows.values()):
            if self.mode == Mode.ENFORCE:
                flow.unbound()
            # What was compared before says nothing of what comes after: flows start from the middle. So do those that
            # differed in shadow mode and were left alone, for no checkpoint has passed them.
            if Mode.BYPASS in {mode, self.mode} or (mode == Mode.ENFORCE and flow.unprotected):
                self.forget(flow, "mode")
        ledger.outputs.append(Log("info", "mode.changed", {"before": self.mode, "after": mode}))
        ledger.counters["mode_changes"] += 1
        self.mode = mode
        ledger.shadow = mode == Mode.SHADOW

    def _resync(self) -> None:
        """Another secondary, which got no state: what is open now it does not have, what opens from now on it has."""
        ledger = self.ledger
        ledger.strangers = True
        for flow in self.flows.values():
            flow.flush(copied=False)
            ledger.unprotected.add(flow.key)
        ledger.asked.clear()

    def finish(self, now: float) -> list[Output]:
        """The inputs have ended for good (captures): what waits for its equal has none, and is a difference."""
        ledger = self.ledger
        for flow in list(ledger.suspects):
            flow.judge(now)
        ledger.suspects.clear()
        # Just as late as any of it can be.
        late = now + self.timeout + self.cycle
        for flow in list(ledger.holding):
            oldest = flow.oldest()
            if oldest is not None and not flow.wanted:
                flow.timed_out(late)
        self._leftovers = sum(flow.leftover() for flow in self.flows.values())
        for flow in list(ledger.lingering):
            flow.expire(late, late)
        unfinished = [assembler.clear() for assembler in self.fragments]
        self._leftovers += bool(unfinished[0]) != bool(unfinished[1])
        for side, frames in enumerate(unfinished):
            self._collect(frames, "fragments", primary=side == 0)
        return self._out()

    def differences(self) -> int:
        """How many differences were found, at the end those included that nothing came to match with."""
        asked = sum(n for name, n in self.ledger.counters.items() if name.startswith("checkpoints_wanted."))
        return asked + self._leftovers

    def drain(self, now: float) -> list[Output]:
        """The process stops. What is held was not found equal, so it may not go: the guests send again."""
        for flow in list(self.flows.values()):
            self.forget(flow, "shutdown")
        for side, assembler in enumerate(self.fragments):
            self._collect(assembler.clear(), "shutdown", primary=side == 0)
        return self._out()

    # -- looking in ----------------------------------------------------------------------------------

    def gauges(self) -> dict[str, int]:
        """Levels: queue depths, flows, flows that are no longer protected."""
        ledger = self.ledger
        return {
            "held": ledger.held,
            "held_bytes": ledger.held_bytes,
            "held_secondary": ledger.held_secondary,
            "secondary_bytes": ledger.secondary_bytes,
            "flows": len(self.flows),
            "flows_unprotected": len(ledger.unprotected),
            "flows_unjudged": len(ledger.unjudged),
            "held_oldest_ms": int(self.oldest * 1000) if ledger.held else 0,
            "behind_ms": int(self.behind * 1000),
            "epoch": ledger.epoch,
            "parked": self.moving.parked,
            "linked": int(self.moving.linked),
            "table_version": self.moving.settled,
        }

    def status(self) -> dict[str, Any]:
        """Mode and the last differences, explained."""
        ledger = self.ledger
        return {
            "mode": self.mode,
            "epoch": ledger.epoch,
            "rules": [rule.text for rule in ledger.rules.rules],
            "workers": self.moving.workers,
            "rules_from": "frame" if self._frames_rules is not None else "file" if self.config.rules else "",
            "asks_after_ms": int((self.timeout + self.cycle) * 1000),
            "last": ledger.last,
        }
