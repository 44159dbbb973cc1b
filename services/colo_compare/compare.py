"""`colo-compare`: releases a primary frame only if the secondary could carry on after it.

::

    primary_in   ---> +----------------+
                      |  table:        |      one TcpFlow or DatagramFlow per guest-to-client flow
    secondary_in ---> |  by flow key   | ---> flows ---> outdev
                      +----------------+         |
    notify_dev   <----- checkpoint wanted -------+      (secondary frames are never sent)
                 -----> checkpoint done, mode
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from colo_compare.config import CompareConfig
from colo_compare.exempt import already_sent
from colo_compare.handover.protocol import Handovers
from colo_compare.ledger import Ledger
from colo_compare.table import Table
from colo_compare.unit import frames_of
from colo_proto import messages
from colo_proto.core import Log, Output, Port, Send, Tell, Way
from colo_proto.errors import ConfigError
from colo_proto.frame import Buffer
from colo_proto.messages import Message, Mode
from colo_proto.rules import COMPARE, PASS, parse_rules


class Compare:
    """The core. Ports `primary_in`, `secondary_in`, `outdev`; control by `tell`."""

    ports: ClassVar[tuple[Port, ...]] = (
        Port("primary_in", Way.IN, required=True, doc="frames of the primary guest", barriers=True),
        Port("secondary_in", Way.IN, required=True, doc="frames of the secondary guest, rewritten", barriers=True),
        Port("outdev", Way.OUT, required=True, doc="released frames of the primary guest"),
    )

    def __init__(self, config: CompareConfig) -> None:
        self.config = config
        self.mode = config.mode
        self.cycle = config.expired_scan_cycle / 1000
        self.ledger = Ledger(config)
        self.ledger.shadow = config.mode == Mode.SHADOW
        self.table = Table(config, self.ledger)
        self.handovers = Handovers(config.id, self.table, self.handle)
        self.next_scan: float | None = None
        self.oldest = 0.0
        self.ended = 0
        """Unprotected connections that have ended: nobody needs to protect them."""
        """Age of the oldest held frame at the last scan."""
        self._frame_rules: messages.SetRules | None = None
        """Rules that the COLO frame has set; they come before our own."""
        self._frame_incarnation = 0
        self._leftovers = 0
        """Flows of which the secondary had sent more than the primary when the inputs ended."""

    @property
    def counters(self) -> Counter[str]:
        """All counters, for people who look in; they are kept in `ledger`."""
        return self.ledger.folded()

    # -- frames --------------------------------------------------------------------------------------

    def receive(self, port: str, frames: Sequence[bytes], now: float) -> list[Output]:
        """Frames of one guest arrived. What may leave is in the outputs."""
        if self.handovers.busy and self.mode != Mode.BYPASS:
            frames = self.handovers.sift(port, frames)
        self.handle(port, frames, now)
        return self._out()

    def handle(self, port: str, frames: Sequence[bytes], now: float) -> None:
        """Handle frames whose flows are here."""
        if self.next_scan is None:
            self.next_scan = now + self.cycle
        ledger = self.ledger
        if port == "primary_in":
            ledger.share.advance(now)
            ledger.frames_primary += len(frames)
            if self.mode == Mode.ENFORCE:
                self.table.receive(frames, now, primary=True)
                return
            if self.mode == Mode.SHADOW:
                with already_sent(ledger):
                    self.table.receive(frames, now, primary=True)
            ledger.sink.extend(frames)
            ledger.counters["released.mode"] += len(frames)
        else:
            ledger.frames_secondary += len(frames)
            if self.mode == Mode.BYPASS:
                ledger.secondary_gone(len(frames), "mode")
                return
            self.table.receive(frames, now, primary=False)
            if ledger.secondary_bytes > ledger.max_secondary_bytes:
                ledger.squeeze()

    def _out(self) -> list[Output]:
        ledger = self.ledger
        # Before the frames leave that make a connection unprotected.
        ledger.telling.flush()
        outputs = ledger.outputs[:]
        ledger.outputs.clear()
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
        """The next scan, or earlier when a flow is suspect or stuck, or a handover waits for something."""
        suspects, stuck, handover = self.ledger.suspects, self.ledger.stuck, self.handovers.deadline()
        if not suspects and not stuck and handover is None:
            return self.next_scan
        # All that are stuck wait equally long, so the first in the dictionary is the first that is due.
        due = (self.next_scan, handover, min(suspects.values(), default=None), next(iter(stuck.values()), None))
        return min(when for when in due if when is not None)

    def barrier(self, port: str, version: int, now: float) -> list[Output]:
        """A barrier: from here on the frames of `port` are shared out by the worker table `version`."""
        self.handovers.barrier(port, version, now)
        return self._out()

    def leave(self, now: float) -> list[Output]:
        """Before the process stops: ask for our flows to be handed over. Nothing when no input is shared out."""
        self.handovers.leave()
        return self._out()

    def on_timer(self, now: float) -> list[Output]:
        """Judge the flows that are due. Every `expired_scan_cycle` look for frames older than `compare_timeout`."""
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
        self.handovers.on_timer(now)
        return self._out()

    def _scan(self, now: float) -> None:
        ledger = self.ledger
        self.next_scan = now + self.cycle if self.table.flows or ledger.held or ledger.held_secondary else None
        ledger.lag.measure(now)
        limit = now - ledger.timeout
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
        self.ended = sum(self.table.ended(key, now - self.cycle) for key in ledger.unprotected)
        # In shadow mode a frame counts from when the secondary has come to where the primary was when it sent it.
        limit -= ledger.lag.shadow
        for flow in list(ledger.lingering):
            flow.expire(limit, now)
            if not flow.lingers():
                ledger.lingering.pop(flow, None)
        self.table.expire_fragments(now)
        ledger.requests.repeat(now)
        ledger.relax()
        self.table.forget_idle(now)

    # -- control -------------------------------------------------------------------------------------

    def tell(self, message: Message, now: float) -> list[Output]:
        """A message of the COLO frame."""
        ledger = self.ledger
        if isinstance(message, messages.CheckpointDone):
            self._checkpoint(message)
        elif isinstance(message, messages.SetMode):
            self._set_mode(message.mode)
            if message.resync:
                self._resync(now)
        elif isinstance(message, messages.SetRules):
            self._frame_rules = message
            self._rules(message.rules, "the frame's rules")
        elif isinstance(message, messages.WorkerTable):
            ledger.share.parts = max(len(message.workers), 1)
            self.handovers.table_changed(message, now)
        elif isinstance(message, messages.Handover):
            self.handovers.part_arrived(message, now)
            if self.table.flows and self.next_scan is None:
                self.next_scan = now + self.cycle
        elif isinstance(message, messages.HandoverTaken):
            self.handovers.part_taken(message, now)
        elif isinstance(message, messages.Welcome):
            requests = ledger.requests
            requests.epoch = max(requests.epoch, message.epoch)
            self._set_mode(message.mode)
            if message.incarnation != self._frame_incarnation and self._frame_rules is not None:
                # The COLO frame was restarted. It accepts its rules back unless it has others by now.
                ledger.outputs.append(Tell(self._frame_rules))
            self._frame_incarnation = message.incarnation
            self._tell_again(now)
        return self._out()

    def _tell_again(self, now: float) -> None:
        """Tell the secondary's rewriter everything that is unprotected."""
        ledger = self.ledger
        passed = [key for key, flow in self.table.flows.items() if flow.rule.action == PASS]
        waiting = [flow.key for flow in ledger.requests.waiting]
        ledger.telling.again([*ledger.unprotected, *ledger.unjudged, *passed], waiting, now)

    def load_rules(self, text: str, where: str) -> list[Output]:
        """Rules of our own file. Once the COLO frame has set rules, those come before them."""
        if self._frame_rules is not None:
            self.ledger.outputs.append(Log("warning", "rules.overruled", {"where": where}))
        else:
            self._rules(text, where)
        return self._out()

    def _rules(self, text: str, where: str) -> None:
        """Put other rules into force, for open flows as well. The old ones stay when there is a mistake in these."""
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
        for flow in list(self.table.flows.values()):
            rule = rules.find(flow.key)
            if rule.action == flow.rule.action:
                flow.rule = rule
                continue
            # What follows starts from the middle. What is held was not found equal, so it leaves only if now exempt.
            if rule.action != COMPARE:
                flow.let_out("rule")
                flow.unbound()
            self.table.forget(flow, "rule")

    def _checkpoint(self, done: messages.CheckpointDone) -> None:
        """Release what the checkpoint covers.

        If state was copied, everything held leaves, because the secondary is a copy of the primary now. Otherwise only
        the flows that asked for a checkpoint are released, and they are unprotected from then on. The others are still
        equal and are compared further, so their queues stay.
        """
        ledger = self.ledger
        held, before, made = ledger.held, len(ledger.sink), ledger.counters["synthesized"]
        if done.state_copied:
            for key in (*ledger.unprotected, *ledger.unjudged, *(flow.key for flow in ledger.requests.waiting)):
                ledger.telling.kept(key)
            for flow in self.table.flows.values():
                flow.flush(copied=True)
            ledger.unprotected.clear()
            ledger.unjudged.clear()
            ledger.strangers = False
            self.table.release_fragments("checkpoint")
        else:
            for flow in ledger.requests.waiting:
                ledger.unprotect(flow)
        ledger.requests.waiting.clear()
        ledger.requests.epoch = max(ledger.requests.epoch, done.epoch)
        ledger.counters["checkpoints_done"] += 1
        released = sum(frames_of(unit) for unit in ledger.sink[before:]) - ledger.counters["synthesized"] + made
        ledger.outputs.append(
            Tell(messages.Flushed(done.epoch, self.config.id, released, held - ledger.held - released))
        )
        ledger.outputs.append(
            Log("info", "checkpoint.flushed", {"epoch": done.epoch, "copied": done.state_copied, "released": released})
        )

    def _set_mode(self, mode: str) -> None:
        if mode == self.mode or mode not in Mode.ALL:
            return
        ledger = self.ledger
        if mode != Mode.ENFORCE:
            for flow in list(ledger.holding):
                flow.let_out("mode")
        self.table.release_fragments("mode")
        for flow in list(self.table.flows.values()):
            if self.mode == Mode.ENFORCE:
                flow.unbound()
            # What was compared before says nothing about what comes after, so flows start from the middle. So do those
            # that differed in shadow mode and were left alone, because no checkpoint came since.
            if Mode.BYPASS in {mode, self.mode} or (mode == Mode.ENFORCE and flow.unprotected):
                self.table.forget(flow, "mode")
        ledger.outputs.append(Log("info", "mode.changed", {"before": self.mode, "after": mode}))
        ledger.counters["mode_changes"] += 1
        self.mode = mode
        ledger.shadow = mode == Mode.SHADOW

    def _resync(self, now: float) -> None:
        """There is another secondary, which got no state: it has none of the connections that are open now, and all
        that open from now on.
        """
        self.ledger.strangers = True
        self.ledger.telling.joined(now)
        for flow in self.table.flows.values():
            self.ledger.unprotect(flow)
        self.ledger.requests.waiting.clear()

    def finish(self, now: float) -> list[Output]:
        """The inputs have ended for good (captures): what still waits for its equal is a difference."""
        ledger = self.ledger
        for flow in list(ledger.suspects):
            flow.judge(now)
        ledger.suspects.clear()
        # As late as any of it can become.
        late = now + self.ledger.timeout + self.cycle
        for flow in list(ledger.holding):
            oldest = flow.oldest()
            if oldest is not None and not flow.wanted:
                flow.timed_out(late)
        self._leftovers = sum(flow.leftover() for flow in self.table.flows.values())
        for flow in list(ledger.lingering):
            flow.expire(late, late)
        mine, its = self.table.drop_fragments("fragments")
        self._leftovers += bool(mine) != bool(its)
        return self._out()

    def differences(self) -> int:
        """How many differences were found, including what had no counterpart at the end."""
        asked = sum(n for name, n in self.ledger.counters.items() if name.startswith("checkpoints_wanted."))
        return asked + self._leftovers

    def drain(self, now: float) -> list[Output]:
        """The process stops. What is held was not found equal, so it may not leave: the guests will send it again."""
        for flow in list(self.table.flows.values()):
            self.table.forget(flow, "shutdown")
        self.table.drop_fragments("shutdown")
        return self._out()

    # -- looking in ----------------------------------------------------------------------------------

    def gauges(self) -> dict[str, int]:
        """Levels: queue depths, flows, flows that are not protected."""
        ledger, handovers = self.ledger, self.handovers
        return {
            "held": ledger.held,
            "held_bytes": ledger.held_bytes,
            "held_secondary": ledger.held_secondary,
            "secondary_bytes": ledger.secondary_bytes,
            "flows": len(self.table.flows),
            "flows_unprotected": len(ledger.unprotected),
            "flows_ended": min(self.ended, len(ledger.unprotected)),
            "flows_unjudged": len(ledger.unjudged),
            "held_oldest_ms": int(self.oldest * 1000) if ledger.held else 0,
            "behind_ms": int(max(ledger.lag.shadow, ledger.lag.seconds) * 1000),
            "epoch": ledger.requests.epoch,
            "parked": handovers.parked,
            "linked": int(handovers.linked),
            "table_version": handovers.finished,
        }

    def status(self) -> dict[str, Any]:
        """Mode and the last differences, explained."""
        ledger = self.ledger
        return {
            "mode": self.mode,
            "epoch": ledger.requests.epoch,
            "rules": [rule.text for rule in ledger.rules.rules],
            "workers": self.handovers.workers,
            "rules_from": "frame" if self._frame_rules is not None else "file" if self.config.rules else "",
            "asks_after_ms": int((self.ledger.timeout + self.cycle) * 1000),
            "last": ledger.requests.last,
        }
