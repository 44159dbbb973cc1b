"""Errors by blame: the operator's, the machine's, a peer's, or ours.

`ConfigError` is the operator's: one line that names the thing, exit status 2. `StartError` is the machine's: the
process cannot run here at the moment, one line, exit status 1. `WireError` is a peer's: the runtime counts it, drops
the message, logs it once and goes on. Any other exception is a bug of ours and ends the process, loudly; a supervisor
restarts it.
"""


class ConfigError(Exception):
    """A wrong option, key, file or missing device. The message names it and says what is accepted."""


class StartError(Exception):
    """The process cannot run here at the moment, for instance because an address is taken. The message says why."""


class WireError(Exception):
    """Bytes from a peer that do not decode. `reason` is a short counter label."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
