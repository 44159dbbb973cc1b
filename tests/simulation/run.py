"""One seed, from its plan to its verdict."""

from .clock import START
from .oracle import Violation
from .pair import Pair
from .plan import FAULTS_END, Plan
from .wire import show

QUIET = 90.0
"""Seconds within which everything must complete after the last fault."""


class Result:
    """The result of a seed. `violation` is None when all invariants held."""

    def __init__(self, seed, pair, violation):
        self.seed, self.pair, self.violation = seed, pair, violation

    @property
    def name(self):
        """The name of the violated invariant."""
        return self.violation.name if isinstance(self.violation, Violation) else "crash" if self.violation else ""

    def summary(self):
        """Numbers that are equal in two runs of a seed only if the runs are equal."""
        pair = self.pair
        return {
            "events": pair.clock.events,
            "now": round(pair.clock.now, 9),
            "released": pair.oracle.released,
            "wanted": dict(sorted(pair.oracle.reasons.items())),
            "dice": pair.dice.getrandbits(32),
        }

    def report(self, command):
        """The failure as text: seed, invariant, plan, the last events, and the command that repeats it."""
        lines = [self.pair.plan.describe(), ""]
        if self.pair.trace is not None:
            lines += [trace_line(*entry) for entry in self.pair.trace.lines]
        lines += ["", f"seed {self.seed}: {self.violation}", f"again: {command}"]
        return "\n".join(lines)


def trace_line(now, who, what, values):
    """One event as a line."""
    shown = [show(v) if isinstance(v, bytes) and len(v) > 24 else str(v) for v in values]
    return f"{now - START:11.6f}  {who:<10} {what} {' '.join(shown)}"


def run(seed, kind=None, trace=0, cores=None, change=None, extras=None):
    """Run a seed. `cores`: broken cores by role. `change(plan)` changes the plan. `extras` replaces the seed's."""
    plan = Plan(seed, kind, extras)
    if change is not None:
        change(plan)
    pair = Pair(plan, trace, cores)
    try:
        pair.begin()
        pair.clock.run(START + FAULTS_END)
        pair.calm_down()
        pair.clock.run(START + FAULTS_END + QUIET, pair.traffic.finished)
        pair.clock.run(pair.clock.now + 0.5)
        pair.oracle.judge()
    except Violation as violation:
        return Result(seed, pair, violation)
    except Exception as error:  # noqa: BLE001  a crash of a core is a finding, with its seed
        error.add_note(f"seed {seed}")
        return Result(seed, pair, error)
    return Result(seed, pair, None)
