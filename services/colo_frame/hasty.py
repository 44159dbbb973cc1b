"""Telling the rewriters of this host whether they have to hold clients back.

Where frames of the primary leave before they are compared (shadow mode, or a `shadow` rule), a client is ahead of the
secondary, and the rewriter has to hold it back (`colo_rewriter.pace`). The rewriter hears of both in the same way: its
frame tells it the mode `shadow`.
"""

from colo_frame.registry import Process, Registry
from colo_proto.core import Output, Tell
from colo_proto.messages import Mode, Report, SetMode


class Hasty:
    """The mode that the rewriters of this host work in."""

    def __init__(self, registry: Registry, *, primary: bool) -> None:
        self._registry = registry
        self._primary = primary
        self.ruled = False
        """A rule of some compare releases flows before they are compared. The secondary hears of it from the primary.
        """

    def learn(self, process: Process, report: Report) -> None:
        """Primary: a compare says which rules it follows."""
        if self._primary and process.role == "compare":
            rules = [p.report.status.get("rules") for p in self._registry.processes.values() if p.report and not p.lost]
            rules.append(report.status.get("rules"))
            self.ruled = any(_shadows(one) for one in rules)

    def mode(self, mode: str) -> str:
        """What a rewriter is told in `mode`."""
        return Mode.SHADOW if self.ruled and mode == Mode.ENFORCE else mode

    def tell(self, mode: str) -> list[Output]:
        """Tell all rewriters the mode."""
        return [Tell(SetMode(self.mode(mode)), one) for one in self._registry.live("rewriter")]

    def correct(self, process: Process, report: Report, mode: str) -> list[Output]:
        """Tell a rewriter the mode whose report shows that it has not heard of it. Messages may get lost."""
        status = report.status
        if process.role != "rewriter" or status.get("promoted") is not False or type(status.get("paced")) is not bool:
            return []
        wanted = self.mode(mode)
        return [Tell(SetMode(wanted), process.id)] if status["paced"] is not (wanted == Mode.SHADOW) else []


def _shadows(rules: object) -> bool:
    return isinstance(rules, list) and any(isinstance(one, str) and one.split()[:1] == ["shadow"] for one in rules)
