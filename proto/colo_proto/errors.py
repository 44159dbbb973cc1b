"""Errors by who has to act on them: the operator, the machine, a peer, or us.

`ConfigError` is for the operator: one line that names the wrong thing, exit status 2. `StartError` says that the
process cannot run on this machine at the moment: one line, exit status 1. `WireError` is the fault of a peer: the
runtime counts it, drops the message, logs it at most once a minute and continues. Any other exception is a bug of this
program and ends the process with a traceback; a supervisor then starts it again.
"""


class ConfigError(Exception):
    """A wrong option, key or file, or a missing device. The message names it and says what is accepted."""


class StartError(Exception):
    """The process cannot run here at the moment, for instance because an address is taken. The message says why."""


class WireError(Exception):
    """Bytes from a peer that cannot be decoded. `reason` is a short label for a counter."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
