"""ZeroMQ contexts of their own for links that connect to a host by its name.

libzmq looks names up in the thread that serves every socket of a context, and that thread stands still until the
resolver has an answer (`tcp_address.cpp`, libzmq 4.3.5). A name server that does not answer takes twenty seconds, and
each new attempt to connect takes as long again. Meanwhile no other link of the process would get through a handshake.
So a link that connects to a name has a context, and with it a thread, of its own.
"""

import threading
from ipaddress import ip_address
from typing import Any, Final

import zmq

from colo_proto.endpoint import Endpoint

LINGER_MS: Final = 1000
"""How long a closed socket may go on sending what it had accepted."""
GRACE: Final = 0.2
"""Seconds that libzmq has beyond that to end a context."""


def looks_up(endpoint: Endpoint) -> bool:
    """Does libzmq ask a resolver when it connects to this endpoint?"""
    if endpoint.server or endpoint.scheme != "tcp":
        return False
    try:
        ip_address(endpoint.host_port()[0])
    except ValueError:
        return True
    return False


class Endings:
    """The contexts that are being ended. A resolver that does not answer holds them up, but not the process."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def add(self, context: zmq.Context[Any]) -> None:
        """End a context whose sockets are closed, in a thread that nobody has to wait for."""
        thread = threading.Thread(target=context.term, name="end of a ZeroMQ context", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # There is no thread to be had. The context ends with the process.
            return
        self._threads.append(thread)

    def wait(self) -> None:
        """Return when all have ended, or when what they had to send has had its time."""
        for thread in self._threads:
            thread.join(LINGER_MS / 1000 + GRACE)
        self._threads.clear()
