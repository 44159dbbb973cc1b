"""A separate ZeroMQ context for each link that connects to a host by name.

libzmq resolves names in the thread that serves all sockets of a context, and that thread waits until the resolver has
an answer (`tcp_address.cpp`, libzmq 4.3.5). With a name server that does not answer this takes twenty seconds, and as
long again for each new attempt to connect. During that time no other link of the process could complete a handshake.
A link that connects to a name therefore has its own context, and with it its own thread.
"""

import threading
from ipaddress import ip_address
from typing import Any, Final

import zmq

from colo_proto.endpoint import Endpoint

LINGER_MS: Final = 1000
"""How long a closed socket may continue to send what it has accepted."""
GRACE: Final = 0.2
"""Seconds that libzmq has after that to end a context."""


def looks_up(endpoint: Endpoint) -> bool:
    """True when libzmq needs a resolver to connect to this endpoint."""
    if endpoint.server or endpoint.scheme != "tcp":
        return False
    try:
        ip_address(endpoint.host_port()[0])
    except ValueError:
        return True
    return False


class Endings:
    """Contexts that are being ended. A resolver that does not answer delays them, but not the process."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def add(self, context: zmq.Context[Any]) -> None:
        """End a context whose sockets are closed, in a thread for which nobody has to wait."""
        thread = threading.Thread(target=context.term, name="end of a ZeroMQ context", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The system has no thread left. The context ends with the process.
            return
        self._threads.append(thread)

    def wait(self) -> None:
        """Return when all contexts have ended, or when each has had the time to send what was queued."""
        for thread in self._threads:
            thread.join(LINGER_MS / 1000 + GRACE)
        self._threads.clear()
