"""What all compares of this host are told to do: the mode they work in, and the rules for chosen flows.

A primary that has lost its secondary goes into mode `bypass` by itself. It remembers that this was the reason, because
only then it may go back to comparing by itself once the secondary has returned.
"""

from colo_frame.standing import Standing
from colo_proto.core import Log, Output, Tell
from colo_proto.messages import Mode, SetMode, SetRules


class Modes:
    """See the module."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._set = False
        """The mode was changed since the start, so what processes remember of an earlier frame no longer counts."""
        self.left_alone = False
        """The mode is `bypass` because there is no secondary."""

    def set(self, mode: str, now: float, *, resync: bool = False) -> list[Output]:
        """Change the mode of every compare. `resync`: the secondary got no state, so open flows stay unprotected."""
        standing = self._standing
        outputs: list[Output] = []
        self._set = True
        self.left_alone = False
        if mode != standing.mode:
            outputs.append(Log("info", "mode.set", {"before": standing.mode, "after": mode}))
            standing.counters["mode_changes"] += 1
        standing.mode = mode
        told = [Tell(SetMode(mode, resync), compare) for compare in standing.compares()]
        return [*outputs, *told, *standing.hasty.tell(mode), *standing.beat(now)]

    def go_alone(self, now: float) -> list[Output]:
        """There is no secondary any more: everything is released uncompared until there is one again."""
        outputs = self.set(Mode.BYPASS, now)
        self.left_alone = True
        return outputs

    def learn(self, mode: str) -> None:
        """A compare says which mode it was in before this frame was started: an earlier start of it was left alone."""
        if mode == Mode.BYPASS and not self._set:
            self._standing.mode, self.left_alone = Mode.BYPASS, True

    def set_rules(self, text: str, where: str) -> list[Output]:
        """Other rules for every compare; `where` says where they come from."""
        standing = self._standing
        rules = standing.rules = SetRules(text)
        standing.counters["rules_changes"] += 1
        told = [Tell(rules, compare) for compare in standing.compares()]
        return [Log("info", "rules.set", {"where": where}), *told]
