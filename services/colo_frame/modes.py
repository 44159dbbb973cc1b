"""What the compares and rewriters of this host are told: the mode that they work in, and the rules for chosen flows.

A primary that has lost its secondary goes into mode `bypass` by itself. It remembers that this was the reason, because
only then it may return to `enforce` by itself once the secondary is back.

Where frames of the primary guest leave before they are compared (mode `shadow`, or a `shadow` rule), a client is ahead
of the secondary guest, and the rewriter has to pace it (`colo_rewriter.pace`). In both cases the frame tells the
rewriter the mode `shadow`.
"""

from collections import Counter

from colo_frame.registry import Process, Registry
from colo_proto.core import Log, Output, Tell
from colo_proto.messages import Mode, Report, SetMode, SetRules


class Modes:
    """See the module."""

    def __init__(self, mode: str, registry: Registry, counters: Counter[str], *, primary: bool) -> None:
        self.mode = mode
        self.rules: SetRules | None = None
        """Rules for chosen flows that all compares follow; None: each compare follows its own file."""
        self.shadow_rules = False
        """A rule of some compare releases flows before they are compared. The secondary hears of it in heartbeats."""
        self.left_alone = False
        """The mode is `bypass` because there is no secondary."""
        self._registry = registry
        self._counters = counters
        self._primary = primary
        self._set = False
        """The mode was changed since this start, so what processes remember of an earlier frame no longer counts."""

    @property
    def for_rewriters(self) -> str:
        """The mode that the rewriters are told."""
        return Mode.SHADOW if self.shadow_rules and self.mode == Mode.ENFORCE else self.mode

    def set(self, mode: str, *, resync: bool = False) -> list[Output]:
        """Change the mode of this host. `resync`: the secondary got no state, so open flows stay unprotected."""
        outputs: list[Output] = []
        if mode != self.mode:
            outputs.append(Log("info", "mode.set", {"before": self.mode, "after": mode}))
            self._counters["mode_changes"] += 1
        self.mode, self._set, self.left_alone = mode, True, False
        outputs += [Tell(SetMode(mode, resync), compare) for compare in self._registry.live("compare")]
        return outputs + self._tell_rewriters()

    def go_alone(self) -> list[Output]:
        """There is no secondary any more: release everything without comparing it until there is one again."""
        outputs = self.set(Mode.BYPASS)
        self.left_alone = True
        return outputs

    def restore(self, mode: str) -> None:
        """A compare says which mode it had before this frame was started: an earlier start of it was left alone."""
        if mode == Mode.BYPASS and not self._set:
            self.mode, self.left_alone = Mode.BYPASS, True

    def follow(self, mode: str, *, shadow_rules: bool) -> list[Output]:
        """Secondary: take over what the primary says in its heartbeat."""
        if mode not in Mode.ALL:
            return []
        before = self.for_rewriters
        self.mode, self.shadow_rules = mode, shadow_rules
        return self._tell_rewriters() if self.for_rewriters != before else []

    def set_rules(self, text: str, where: str) -> list[Output]:
        """Give every compare other rules. `where` says where they come from."""
        rules = self.rules = SetRules(text)
        self._counters["rules_changes"] += 1
        told = [Tell(rules, compare) for compare in self._registry.live("compare")]
        return [Log("info", "rules.set", {"where": where}), *told]

    def hear_report(self, process: Process, report: Report) -> list[Output]:
        """Learn from a compare's report which rules it follows. Tell a rewriter its mode again if its report shows that
        it has another one, because messages may get lost.
        """
        status = report.status
        if process.role == "compare" and self._primary:
            rules = [p.report.status.get("rules") for p in self._registry.processes.values() if p.report and not p.lost]
            self.shadow_rules = any(_has_shadow_rule(one) for one in [*rules, status.get("rules")])
        if process.role == "rewriter" and status.get("promoted") is False and type(status.get("paced")) is bool:
            wanted = self.for_rewriters
            return [Tell(SetMode(wanted), process.id)] if status["paced"] is not (wanted == Mode.SHADOW) else []
        return []

    def _tell_rewriters(self) -> list[Output]:
        return [Tell(SetMode(self.for_rewriters), one) for one in self._registry.live("rewriter")]


def _has_shadow_rule(rules: object) -> bool:
    return isinstance(rules, list) and any(isinstance(one, str) and one.split()[:1] == ["shadow"] for one in rules)
