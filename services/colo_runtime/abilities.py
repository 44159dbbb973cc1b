"""What a core may have beyond `colo_proto.core.Core`. A shell asks by `isinstance` whether its core has it.

These protocols are not beside `Core`, because that module is compiled, and `isinstance` does not work with compiled
protocols.
"""

from typing import Protocol, runtime_checkable

from colo_proto.core import Output


@runtime_checkable
class Leaves(Protocol):
    """A core whose work other processes can take over."""

    def leave(self, now: float) -> list[Output]:
        """The process was asked to end: start to hand over. Returns no outputs when no other process can take over."""
        ...


@runtime_checkable
class Judges(Protocol):
    """A core that can say whether captures differ (an offline comparison)."""

    def finish(self, now: float) -> list[Output]:
        """All inputs have ended: whatever still waits for a counterpart will not get one."""
        ...

    def differences(self) -> int:
        """The number of differences that were found."""
        ...


@runtime_checkable
class TakesRules(Protocol):
    """A core that has rules: compare, or the COLO frame on behalf of its compares."""

    def load_rules(self, text: str, where: str) -> list[Output]:
        """Use the text of a file from now on. Wrong rules are logged, and the old ones stay."""
        ...
