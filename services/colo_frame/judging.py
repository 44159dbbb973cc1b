"""Collects what this frame knows, and has it judged: the verdict of now, and what follows from it.

`verdict` says what the pair is, and `chain` and `guests` what is broken. This module knows where the facts are, and
remembers since when connections have been unprotected.
"""

from collections.abc import Collection
from typing import Any, Final

from colo_frame.chain import broken, crossing
from colo_frame.checkpoints import Checkpoints
from colo_frame.guests import LONG_DEAF, Guests
from colo_frame.modes import Modes
from colo_frame.outbox import Outbox
from colo_frame.ownership import Ownership
from colo_frame.peer import Peer
from colo_frame.registry import Registry
from colo_frame.verdict import (
    DEGRADED,
    HERE,
    UNPROTECTED,
    Cause,
    Flows,
    Other,
    Verdict,
    View,
    Why,
    by_role,
    cause_status,
    judge,
)
from colo_frame.workers import Workers

CHAIN: Final = frozenset({Why.PROCESS, Why.LINK, Why.TAP, Why.NO_FILTERS, Why.GUEST})
"""Causes for which a primary does not wait for its secondary for longer than for one that is silent."""
CURABLE: Final = frozenset({Why.MODE, Why.RESYNC_RUNNING, Why.RESYNC_NEEDED, Why.JOINING, Why.FLOWS})
"""Causes that a resync removes, or that are over in a moment."""
REPORTED: Final = 1.5
"""Seconds for which a link may have been whole again before a report says so."""
_LOG: Final = {"protected": "info", DEGRADED: "warning", UNPROTECTED: "warning"}


class Judging:
    """See the module. `now` is when this frame was started."""

    def __init__(
        self, registry: Registry, peer: Peer, ownership: Ownership, modes: Modes, workers: Workers,
        checkpoints: Checkpoints, out: Outbox, now: float,
    ) -> None:  # fmt: skip
        self.verdict = Verdict(UNPROTECTED)
        """The last one."""
        self.guests = Guests()
        self.flows = Flows()
        self.resyncing = False
        """A checkpoint was requested that brings the secondary back."""
        self._resynced: float | None = None
        """When that was over; the compares report afterwards which connections it left unprotected."""
        self._registry = registry
        self._peer = peer
        self._ownership = ownership
        self._modes = modes
        self._workers = workers
        self._checkpoints = checkpoints
        self._out = out
        self._began = now
        self._host = ""
        """The name of this host where roles change, else empty."""
        self._expected: Collection[str] = ()
        """Compares of this host that must be there although the other one leads."""
        self._logged: tuple[object, ...] = ()

    def follow_roles(self, host: str, expected: Collection[str]) -> None:
        """Roles change, and this is the host `host` with the compares `expected`."""
        self._host, self._expected = host, expected
        self.guests = Guests(host)

    def forget(self) -> None:
        """Another host leads from now on: what was found out in the other role is over."""
        self.resyncing, self._resynced = False, None
        self.guests = Guests(self._host)

    # -- judging ------------------------------------------------------------------------------------

    def judge(self, now: float) -> Verdict:
        """The verdict now. A change is logged."""
        self.flows = self._count(now)
        self.verdict = found = judge(self._view(now))
        seen = (found.level, found.lan, *sorted({one.reason for one in found.causes}))
        if self._logged and seen != self._logged:
            causes = [one.reason for one in found.causes]
            fields = {"verdict": found.level, "causes": causes, "text": found.text, "lan": found.lan}
            self._out.log(_LOG[found.level], "verdict.changed", **fields)
        self._logged = seen
        return found

    def _view(self, now: float) -> View:
        leadership, modes, primary = self._ownership.leadership, self._modes, self._ownership.leadership.primary
        workers = self._workers.table.workers
        return View(
            primary=primary,
            host=self._host,
            state=leadership.state,
            other=self._other(now),
            mode=modes.mode,
            left_alone=modes.left_alone,
            resyncing=self._resync_runs(),
            flows=self.flows,
            broken=tuple(self.broken(now)),
            crossing=tuple(crossing(self._registry, workers)) if primary else (),
            deaf=tuple(self.guests.causes(now)) if primary else (),
        )

    def _other(self, now: float) -> Other:
        peer, leadership = self._peer, self._ownership.leadership
        last, stand = peer.last, leadership.other
        promotable = last.body.get("promotable") if last is not None else None
        return Other(
            alive=peer.alive,
            heard=peer.heard if last is not None else None,
            present=peer.alive or (stand is not None and now < leadership.heard + leadership.timeout),
            conflict=last is not None and last.role == leadership.side,
            state=stand.state if stand is not None else last.state if last is not None else "",
            promotable=promotable if isinstance(promotable, bool) else None,
            broken=peer.broken,
            told=peer.told,
        )

    def broken(self, now: float) -> list[Cause]:
        """What is broken on this host now."""
        leadership = self._ownership.leadership
        workers = self._workers.table.workers if leadership.primary or not self._host else self._expected
        causes = broken(self._registry, workers, self._began, primary=leadership.primary)
        # Without a filter that sends claims there has never been a LAN heartbeat.
        if leadership.lan_sent >= 0 and not leadership.lan_works(now) and not causes:
            text = f"the LAN heartbeat of the {HERE[leadership.primary]} has failed: nobody takes over without an order"
            causes.append(Cause(Why.LAN, DEGRADED, text, leadership.lan_sent))
        return by_role(causes) if self._host else causes

    def _resync_runs(self) -> bool:
        """True until each compare has reported what the resync has left unprotected."""
        done = self._resynced
        if self.resyncing or done is None:
            return self.resyncing
        live = [one for one in self._registry.processes.values() if one.role == "compare" and not one.lost]
        reports = [(one.reported, one.report.status.get("mode")) for one in live if one.report is not None]
        # A report may have been under way when the mode was set again; it still names the one before.
        if all(at >= done and mode in (None, self._modes.mode) for at, mode in reports):
            self._resynced = None
        return self._resynced is not None

    def resynced(self, now: float) -> None:
        """The secondary was brought back."""
        self.resyncing, self._resynced = False, now

    def _count(self, now: float) -> Flows:
        """The flows of all compares, and since when and why some of them have been unprotected."""
        reports = [one.report for one in self._registry.processes.values() if one.role == "compare" and not one.lost]
        gauges = [one.gauges for one in reports if one is not None]
        total, unprotected, ended = (
            sum(one.get(name, 0) for one in gauges) for name in ("flows", "flows_unprotected", "flows_ended")
        )
        # Compare remembers a connection for a minute after its end.
        total, unprotected = total - ended, unprotected - ended
        before, last = self.flows, self._checkpoints.last
        if not unprotected:
            return Flows(total)
        rose = unprotected > before.unprotected and last is not None
        reason = last.reason if rose and last is not None else before.reason
        return Flows(total, unprotected, now if before.since is None else before.since, reason)

    # -- what follows ---------------------------------------------------------------------------------

    @property
    def grave(self) -> list[Cause]:
        """Primary: why its secondary is none although its frame is alive."""
        return [one for one in self.verdict.causes if one.level == UNPROTECTED and one.reason in CHAIN]

    @property
    def whole(self) -> bool:
        """Primary: there is a secondary of which nothing is broken. It may need a resync."""
        return all(one.level != UNPROTECTED or one.reason in CURABLE for one in self.verdict.causes)

    def given_up(self, now: float, timeout: float) -> Cause | None:
        """Primary: the cause for which it waits no longer for its secondary; None while it waits, or need not."""
        for one in self.grave:
            patience = LONG_DEAF if one.reason == Why.GUEST else timeout
            patience += REPORTED if one.reason in (Why.LINK, Why.TAP) else 0.0
            if one.since is not None and now >= one.since + patience:
                return one
        return None

    def unfit(self, now: float) -> list[Cause]:
        """Secondary: what is broken here, for which it must not take over by itself."""
        return [one for one in self.broken(now) if one.level == UNPROTECTED]

    def refusal(self, now: float) -> str:
        """Secondary: why its guest is no replica; empty when it is one."""
        own, leadership = self.unfit(now), self._ownership.leadership
        if leadership.other is None:
            return f"no {'leader' if self._host else 'primary'} was ever heard"
        if own:
            return own[0].text
        if leadership.promotable:
            return ""
        told = self._peer.told
        grave = [one.text for one in told.causes if one.level == UNPROTECTED] if told is not None else []
        leader = "leader" if self._host else "primary"
        return "; ".join(grave) or f"the {leader} goes on in mode {self._modes.mode}"

    # -- what is shown --------------------------------------------------------------------------------

    def gauges(self) -> dict[str, int]:
        """The verdict as a number, and its causes."""
        reasons = [one.reason for one in self.verdict.causes]
        return {"verdict": self.verdict.number, **{f"verdict_causes.{one}": reasons.count(one) for one in reasons}}

    def status(self, now: float) -> dict[str, Any]:
        """The verdict, for `colo status`."""
        return {**self.verdict.status(now), "number": self.verdict.number, "text": self.verdict.text}

    def told(self, now: float) -> list[dict[str, Any]]:
        """What is broken on this host, for the other one."""
        return [cause_status(one, now) for one in self.broken(now)]

    def flows_status(self, now: float) -> dict[str, Any]:
        """How many connections there are, for `colo status`. Ages are milliseconds."""
        flows = self.flows
        age = None if flows.since is None else int((now - flows.since) * 1000)
        return {"open": flows.open, "unprotected": flows.unprotected, "since_ms": age, "reason": flows.reason}
