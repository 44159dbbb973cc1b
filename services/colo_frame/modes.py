"""What the compares and rewriters of this host are told: the mode that they work in, and the rules for chosen flows.

A primary that has lost its secondary goes into mode `bypass` by itself. It remembers that this was the reason, because
only then it may return to `enforce` by itself once the secondary is back.

Where frames of the primary guest leave before they are compared (mode `shadow`, or a `shadow` rule), a client is ahead
of the secondary guest, and the rewriter has to pace it (`colo_rewriter.pace`). In both cases the frame tells the
rewriter the mode `shadow`.
"""

from colo_frame.outbox import Outbox
from colo_frame.registry import Process, Registry
from colo_proto.messages import Mode, Report, SetMode, SetRules


class Modes:
    """See the module."""

    def __init__(self, mode: str, registry: Registry, out: Outbox, *, primary: bool) -> None:
        self.mode = mode
        self.rules: SetRules | None = None
        """Rules for chosen flows that all compares follow; None: each compare follows its own file."""
        self.shadow_rules = False
        """A rule of some compare releases flows before they are compared. The secondary hears of it in heartbeats."""
        self.left_alone = False
        """The mode is `bypass` because there is no secondary."""
        self._registry = registry
        self._out = out
        self.primary = primary
        """This host leads."""
        self._set = False
        """The mode was changed since this start, so what processes remember of an earlier frame no longer counts."""

    @property
    def for_rewriters(self) -> str:
        """The mode that the rewriters are told."""
        return Mode.SHADOW if self.shadow_rules and self.mode == Mode.ENFORCE else self.mode

    def set(self, mode: str, *, resync: bool = False) -> None:
        """Change the mode of this host. `resync`: the secondary got no state, so open flows stay unprotected."""
        if mode != self.mode:
            self._out.log("info", "mode.set", before=self.mode, after=mode)
            self._out.counters["mode_changes"] += 1
        self.mode, self._set, self.left_alone = mode, True, False
        self._out.tell(SetMode(mode, resync), *self._registry.live("compare"))
        self._tell_rewriters()

    def go_alone(self) -> None:
        """There is no secondary any more: release everything without comparing it until there is one again."""
        self.set(Mode.BYPASS)
        self.left_alone = True

    def follow_other(self) -> None:
        """The other host leads: the compares of this one forget what they know of connections, and the mode is that of
        the other host.
        """
        self.left_alone = False
        self._out.tell(SetMode(Mode.BYPASS), *self._registry.live("compare"))

    def restore(self, mode: str) -> None:
        """A compare says which mode it had before this frame was started: an earlier start of it was left alone."""
        if mode == Mode.BYPASS and not self._set:
            self.mode, self.left_alone = Mode.BYPASS, True

    def follow(self, mode: str, *, shadow_rules: bool) -> None:
        """Secondary: take over what the primary says in its heartbeat."""
        if mode in Mode.ALL:
            before = self.for_rewriters
            self.mode, self.shadow_rules = mode, shadow_rules
            if self.for_rewriters != before:
                self._tell_rewriters()

    def set_rules(self, text: str, where: str) -> None:
        """Give every compare other rules. `where` says where they come from."""
        self.rules = SetRules(text)
        self._out.counters["rules_changes"] += 1
        self._out.log("info", "rules.set", where=where)
        self._out.tell(self.rules, *self._registry.live("compare"))

    def hear_report(self, process: Process, report: Report) -> None:
        """Learn from a compare's report which rules it follows. Tell a rewriter its mode again if its report shows that
        it has another one, because messages may get lost.
        """
        status = report.status
        if process.role == "compare" and self.primary:
            rules = [p.report.status.get("rules") for p in self._registry.processes.values() if p.report and not p.lost]
            self.shadow_rules = any(_has_shadow_rule(one) for one in [*rules, status.get("rules")])
        if process.role == "rewriter" and status.get("promoted") is False and type(status.get("paced")) is bool:
            wanted = self.for_rewriters
            if status["paced"] is not (wanted == Mode.SHADOW):
                self._out.tell(SetMode(wanted), process.id)

    def _tell_rewriters(self) -> None:
        self._out.tell(SetMode(self.for_rewriters), *self._registry.live("rewriter"))


def _has_shadow_rule(rules: object) -> bool:
    return isinstance(rules, list) and any(isinstance(one, str) and one.split()[:1] == ["shadow"] for one in rules)
