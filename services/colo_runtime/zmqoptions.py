"""The options of ZeroMQ sockets, the same for all our links.

* `ZMQ_IMMEDIATE`: nothing is queued for a peer that is not connected, so that all queues are ours to bound. It is not
  set on an input that sends nothing: with it a connecting socket discards, when its peer hangs up, what it has received
  and not passed on yet (libzmq 4.3.5), and so would lose the last messages of a peer that drains.
* A routing id on connecting sockets: the id of the process, by which a ROUTER addresses it. With
  `ZMQ_ROUTER_HANDOVER` a restarted peer takes its id over from a connection that is not known to be dead yet.
* Bounds on handshakes (`doors`): their number and their time.
* Heartbeats on TCP: a peer that disappears without a FIN is noticed after three seconds.
* The sockets of a host (`ipc://`) are for their owner and group only, whatever the umask is.
"""

import os
from pathlib import Path

import zmq

from colo_proto.codec import MAX_MESSAGE
from colo_proto.endpoint import Endpoint
from colo_proto.errors import ConfigError, StartError
from colo_proto.topology import HWM_BATCHES
from colo_runtime.dialling import LINGER_MS
from colo_runtime.doors import BACKLOG, HANDSHAKE_MS, LEAST, limit
from colo_runtime.socketfile import is_socket

HEARTBEAT_MS = 1000
HEARTBEAT_TIMEOUT_MS = 3000
RECONNECT_MS = 20
RECONNECT_MAX_MS = 1000
CONNECT_MS = 1500
"""Time for a TCP connection to be made. The kernel repeats its request less and less often; without this limit a port
that was full for a moment would keep us out for as long as these pauses.
"""


def prepare(socket: zmq.Socket[bytes], endpoint: Endpoint, identity: str, *, router: bool, sends: bool) -> None:
    """Set all options. `identity` is the routing id of a connecting socket; `sends` is false for a mere input."""
    socket.linger = LINGER_MS
    socket.immediate = sends
    socket.sndhwm = socket.rcvhwm = HWM_BATCHES
    # A larger message ends the connection inside libzmq, unseen. Up to this size we see, count and refuse it.
    socket.maxmsgsize = MAX_MESSAGE + (1 << 20)
    socket.reconnect_ivl = RECONNECT_MS
    socket.reconnect_ivl_max = RECONNECT_MAX_MS
    socket.handshake_ivl = HANDSHAKE_MS
    socket.backlog = BACKLOG
    if endpoint.scheme == "tcp":
        socket.connect_timeout = CONNECT_MS
        socket.heartbeat_ivl = HEARTBEAT_MS
        socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
        socket.heartbeat_ttl = HEARTBEAT_TIMEOUT_MS
        socket.ipv6 = endpoint.address.startswith("[")
    if router:
        socket.router_mandatory = True
        socket.router_handover = True
    if not endpoint.server:
        socket.routing_id = identity.encode()


def check_bindable(endpoint: Endpoint, what: str) -> None:
    """`ConfigError` or `StartError`, beginning with `what`, when an endpoint must not be bound here."""
    if endpoint.scheme == "ipc":
        # libzmq deletes whatever file is at the path of an ipc endpoint that it binds.
        is_socket(endpoint.address, what)
        directory = Path(endpoint.address).parent
        if not directory.is_dir():
            raise ConfigError(f"{what}: there is no directory {directory}")
    if endpoint.scheme == "tcp" and limit() < LEAST:
        raise StartError(
            f"{what} {endpoint}: a port between hosts needs {LEAST} descriptors, there are {limit()} (ulimit -n)"
        )


def bind(socket: zmq.Socket[bytes], endpoint: Endpoint) -> None:
    """Bind. `zmq.ZMQError` when that fails.

    libzmq makes the file of an ipc endpoint during this call, in this thread. The file is for owner and group only:
    netdev may run as another user, with which we share no more than the group.
    """
    before = os.umask(0o117)
    try:
        socket.bind(endpoint.url)
    finally:
        os.umask(before)


assert zmq.zmq_version_info() >= (4, 2), "heartbeats and handover need libzmq 4.2"
