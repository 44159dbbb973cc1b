"""What a core may have beside `colo_proto.core.Core`. A shell asks by `isinstance` whether its core has it.

They stand here and not beside `Core`, because that is compiled, and compiled protocols cannot be asked for at run time.
"""

from typing import Protocol, runtime_checkable

from colo_proto.core import Output


@runtime_checkable
class Leaves(Protocol):
    """What a core has beside the rest when others can take over what it holds."""

    def leave(self, now: float) -> list[Output]:
        """The process is asked to end: begin to hand over. No outputs when there is nobody to take it."""
        ...


@runtime_checkable
class Judges(Protocol):
    """What a core has beside the rest when it can say whether captures differ (an offline comparison)."""

    def finish(self, now: float) -> list[Output]:
        """All inputs have ended: whatever still waits for a counterpart has none."""
        ...

    def differences(self) -> int:
        """How many differences were found."""
        ...


@runtime_checkable
class TakesRules(Protocol):
    """A core that has rules: compare, or the frame on behalf of its compares."""

    def load_rules(self, text: str, where: str) -> list[Output]:
        """Take over the text of a file; wrong rules are logged, and the old ones stay."""
        ...
