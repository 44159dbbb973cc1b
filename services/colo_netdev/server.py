"""The socket of netdev: accepts filters, answers their requests, and passes descriptors."""

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from colo_netdev.netdev import Netdev
from colo_netdev.netns import Namespace
from colo_proto.errors import ConfigError, StartError, WireError
from colo_proto.netdev import Request, decode_request, encode_error, encode_ok
from colo_runtime.descriptors import NO_DESCRIPTORS, close_all, receive
from colo_runtime.doors import crowded
from colo_runtime.reactor import READ, Reactor, Timer
from colo_runtime.shell import LogFn
from colo_runtime.socketfile import SocketFile, clear_stale

_CREDENTIALS: Final = Struct("iII")
"""struct ucred: process, user, group."""

_EVENTS: Final = {"get": "tap.get", "return": "tap.return", "netns": "tap.netns"}

ACCEPT_PAUSE: Final = 0.1
"""Seconds without `accept` after there was no descriptor for it."""
MAX_CLIENTS: Final = 256
"""Connections at a time. The filters of one host and a few tools need far fewer; further ones are refused."""


@dataclass(slots=True, eq=False)
class _Client:
    """A connection."""

    socket: socket.socket
    user: int
    """The user at the other end, as the kernel says."""
    id: str = ""
    """What its last request called it."""
    offer: tuple[str, Namespace] | None = None
    """The namespace that it offers, and its name."""


class Server:
    """A bound socket and its clients. `StartError` when the path is taken."""

    def __init__(self, netdev: Netdev, reactor: Reactor, log: LogFn) -> None:
        self.netdev = netdev
        self._reactor = reactor
        self._log = log
        self.clients: set[_Client] = set()
        """Filters (and others) that are connected."""
        self._timer: Timer | None = None
        self._logged: set[str] = set()
        self._listen()
        self._file = SocketFile(netdev.config.listen, reactor, self._bind_again, log, socket.SOCK_SEQPACKET)

    def _listen(self) -> None:
        config = self.netdev.config
        self._socket = _bind(config.listen, config.mode_bits(), config.owner_ids())
        self._reactor.watch(self._socket.fileno(), READ, self._accept)

    def _bind_again(self) -> None:
        """The socket's file is gone. Clients that are connected stay; others find the new file."""
        before = self._socket
        self._listen()
        self._reactor.unwatch(before.fileno())
        before.close()
        self.netdev.counters["bound_again"] += 1

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # There is no descriptor for it. The listener stays readable, so do not look at it for a while.
            self._once("client.refused", "descriptors", error=error.strerror)
            self._reactor.interest(self._socket.fileno(), 0)
            self._timer = self._reactor.call_later(
                ACCEPT_PAUSE, lambda: self._reactor.interest(self._socket.fileno(), READ)
            )
            return
        if len(self.clients) >= MAX_CLIENTS or crowded(sock.fileno()):
            self.netdev.counters["clients_refused"] += 1
            self._once("client.refused", "clients", limit=MAX_CLIENTS)
            sock.close()
            return
        sock.setblocking(False)
        client = _Client(sock, peer_user(sock))
        self.clients.add(client)
        self._reactor.watch(sock.fileno(), READ, lambda _events: self._request(client))

    def _request(self, client: _Client) -> None:
        fds: list[int] = []
        try:
            data, fds = receive(client.socket)
            request = decode_request(data)
        except BlockingIOError:
            return
        except WireError as error:
            close_all(fds)
            self.netdev.counters[f"bad_requests.{error.reason}"] += 1
            self._once("request.refused", error.reason, reason=str(error), client=client.id)
            self._reply(client, encode_error(str(error), retry=error.reason == NO_DESCRIPTORS), None)
            return
        except OSError:
            self._drop(client)
            return
        client.id = request.id
        try:
            if why := self.netdev.allowed.refusal(client.user, request):
                self.netdev.counters["not_allowed"] += 1
                key = f"{request.verb} {client.user}"
                self._once("request.refused", key, reason=why, client=request.id, user=client.user)
                reply, fd = encode_error(why), None
            elif request.verb == "netns":
                reply, fd = self._offer(client, request, fds), None
            else:
                reply, fd = self.netdev.answer(request, fds)
        except OSError as error:
            # Most likely no descriptor is left.
            why = f"{request.verb} {request.tap[:40]}: {error.strerror}"
            reply, fd = self.netdev.refused(why, retry=True), None
        finally:
            close_all(fds)
        self._log("debug", _EVENTS[request.verb], tap=request.tap, client=request.id, ok=fd is not None)
        self._reply(client, reply, fd)

    def _offer(self, client: _Client, request: Request, fds: list[int]) -> bytes:
        """Use a namespace for as long as `client` stays connected."""
        name = request.tap
        if not self.netdev.offerable(name):
            return self.netdev.refused(f"no tap has netns=@{name[:40]} here")
        try:
            namespace = Namespace.offered(fds)
        except (ValueError, OSError) as error:
            return self.netdev.refused(f"netns {name[:40]}: {error}")
        self._withdraw(client)
        client.offer = (name, namespace)
        try:
            for tap in self.netdev.offer(name, namespace, time.monotonic()):
                self._log("info", "tap.opened", tap=tap.spec.name, interface=tap.spec.kernel_name, mac=tap.mac)
        except (ConfigError, OSError) as error:
            self._once("netns.refused", name, netns=name, error=str(error))
            return encode_error(str(error), retry=True)
        self._log("info", "netns.offered", netns=name, client=request.id)
        return encode_ok()

    def _withdraw(self, client: _Client) -> None:
        if client.offer is not None:
            name, namespace = client.offer
            client.offer = None
            self.netdev.withdraw(name, namespace)
            namespace.close()

    def _reply(self, client: _Client, reply: bytes, fd: int | None) -> None:
        try:
            socket.send_fds(client.socket, [reply], [] if fd is None else [fd])
        except OSError:
            # It has gone away, or it asks without ever reading an answer.
            self.netdev.counters["replies_lost"] += 1
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        self._reactor.unwatch(client.socket.fileno())
        self.clients.remove(client)
        self._withdraw(client)
        client.socket.close()

    def _once(self, event: str, key: str, **fields: Any) -> None:
        """Log a warning the first time for this key, and at level debug from then on."""
        level = "debug" if (event + key) in self._logged else "warning"
        self._logged.add(event + key)
        self._log(level, event, **fields)

    def close(self) -> None:
        """Close everything, and remove the socket's file if it is still ours."""
        self._file.close(remove=True)
        for client in list(self.clients):
            self._drop(client)
        if self._timer is not None:
            self._timer.cancel()
        self._reactor.unwatch(self._socket.fileno())
        self._socket.close()


def peer_user(client: socket.socket) -> int:
    """The user at the other end when it connected (SO_PEERCRED)."""
    return int(_CREDENTIALS.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1])


def _bind(path: str, mode: int, owner: tuple[int, int] | None) -> socket.socket:
    """A socket that listens on `path`. A socket file that nobody serves any more is replaced."""
    before = os.umask(0o777 & ~mode)
    try:
        clear_stale(path, "--listen", socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            sock.bind(path)
            if owner is not None:
                os.chown(path, *owner)
            sock.listen(64)
            sock.setblocking(False)
            undo.pop_all()
    except OSError as error:
        raise StartError(f"--listen {path}: {error.strerror}") from None
    finally:
        os.umask(before)
    return sock
