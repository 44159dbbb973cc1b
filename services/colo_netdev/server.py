"""The socket of netdev: accepts filters and passes descriptors."""

import contextlib
import os
import socket
import stat
import time
from struct import Struct
from typing import Any

from colo_netdev.netdev import Netdev
from colo_netdev.space import Space
from colo_proto.errors import ConfigError, StartError, WireError
from colo_proto.netdev import Request, decode_request, encode_error, encode_ok
from colo_runtime.descriptors import NO_DESCRIPTORS, close_all, receive
from colo_runtime.doors import crowded
from colo_runtime.reactor import READ, Reactor, Timer
from colo_runtime.shell import LogFn
from colo_runtime.socketfile import SocketFile

_CREDENTIALS = Struct("iII")
"""struct ucred: process, user, group."""

_EVENTS = {"get": "tap.get", "return": "tap.return", "netns": "tap.netns"}

PAUSE = 0.1
"""Seconds without `accept` after there was no descriptor for it."""
MAX_CLIENTS = 256
"""Filters of one host and a few curious tools; beyond that the oldest habit is to refuse."""


class Server:
    """A bound socket and its clients. `StartError` when the path is taken."""

    def __init__(self, netdev: Netdev, reactor: Reactor, log: LogFn) -> None:
        self.netdev = netdev
        self._reactor = reactor
        self._log = log
        self._clients: dict[socket.socket, str] = {}
        self._users: dict[socket.socket, int] = {}
        """Who they are, as the kernel says."""
        self._spaces: dict[socket.socket, tuple[str, Space]] = {}
        """Namespaces, by who offered them."""
        self._timer: Timer | None = None
        self._complained: set[str] = set()
        self._path = netdev.config.listen
        self._socket = _bind(netdev.config.listen, netdev.config.mode_bits(), netdev.config.owner_ids())
        self._inode = os.stat(self._path).st_ino
        reactor.watch(self._socket.fileno(), READ, self._accept)
        self._file = SocketFile(self._path, reactor, self._bind_again, log, socket.SOCK_SEQPACKET)

    def _bind_again(self) -> None:
        """Its file is gone: those who are connected stay, others find a new one."""
        config = self.netdev.config
        new = _bind(config.listen, config.mode_bits(), config.owner_ids())
        self._reactor.unwatch(self._socket.fileno())
        self._socket.close()
        self._socket = new
        self._inode = os.stat(self._path).st_ino
        self._reactor.watch(new.fileno(), READ, self._accept)
        self.netdev.counters["bound_again"] += 1

    @property
    def clients(self) -> int:
        """Filters (and others) that are connected."""
        return len(self._clients)

    def _accept(self, _events: int) -> None:
        try:
            client, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # No descriptor. The listener stays readable: do not look at it for a while.
            self._once("client.refused", "descriptors", error=error.strerror)
            self._reactor.interest(self._socket.fileno(), 0)
            self._timer = self._reactor.call_later(PAUSE, lambda: self._reactor.interest(self._socket.fileno(), READ))
            return
        if len(self._clients) >= MAX_CLIENTS or crowded(client.fileno()):
            self.netdev.counters["clients_refused"] += 1
            self._once("client.refused", "clients", limit=MAX_CLIENTS)
            client.close()
            return
        client.setblocking(False)
        self._clients[client] = ""
        self._users[client] = peer_user(client)
        self._reactor.watch(client.fileno(), READ, lambda _events: self._request(client))

    def _request(self, client: socket.socket) -> None:
        fds: list[int] = []
        try:
            data, fds = receive(client)
            request = decode_request(data)
        except BlockingIOError:
            return
        except WireError as error:
            close_all(fds)
            self.netdev.counters[f"bad_requests.{error.reason}"] += 1
            self._once("request.refused", error.reason, reason=str(error), client=self._clients[client])
            self._reply(client, encode_error(str(error), retry=error.reason == NO_DESCRIPTORS), None)
            return
        except OSError:
            self._drop(client)
            return
        self._clients[client] = request.id
        try:
            if why := self.netdev.allowed.refusal(self._users[client], request):
                reply, fd = self._not_allowed(client, request, why), None
            elif request.verb == "netns":
                reply, fd = self._offer(client, request, fds), None
            else:
                reply, fd = self.netdev.answer(request, fds)
        except OSError as error:
            # Most likely no descriptor is left.
            self.netdev.counters["refused"] += 1
            reply, fd = encode_error(f"{request.verb} {request.tap[:40]}: {error.strerror}", retry=True), None
        finally:
            close_all(fds)
        self._log("debug", _EVENTS[request.verb], tap=request.tap, client=request.id, ok=fd is not None)
        self._reply(client, reply, fd)

    def _not_allowed(self, client: socket.socket, request: Request, why: str) -> bytes:
        user = self._users[client]
        self.netdev.counters["not_allowed"] += 1
        self._once("request.refused", f"{request.verb} {user}", reason=why, client=request.id, user=user)
        return encode_error(why)

    def _offer(self, client: socket.socket, request: Request, fds: list[int]) -> bytes:
        """Take a namespace in, for as long as `client` stays connected."""
        if not self.netdev.offerable(request.tap):
            self.netdev.counters["refused"] += 1
            return encode_error(f"no tap has netns=@{request.tap[:40]} here")
        try:
            space = Space.offered(fds)
        except (ValueError, OSError) as error:
            self.netdev.counters["refused"] += 1
            return encode_error(f"netns {request.tap[:40]}: {error}")
        self._withdraw(client)
        self._spaces[client] = (request.tap, space)
        try:
            for tap in self.netdev.offer(request.tap, space, time.monotonic()):
                self._log("info", "tap.opened", tap=tap.spec.name, interface=tap.spec.kernel_name, mac=tap.mac)
        except (ConfigError, OSError) as error:
            self._once("netns.refused", request.tap, netns=request.tap, error=str(error))
            return encode_error(str(error), retry=True)
        self._log("info", "netns.offered", netns=request.tap, client=request.id)
        return encode_ok()

    def _withdraw(self, client: socket.socket) -> None:
        name, space = self._spaces.pop(client, ("", None))
        if space is not None:
            self.netdev.withdraw(name, space)
            space.close()

    def _reply(self, client: socket.socket, reply: bytes, fd: int | None) -> None:
        try:
            if fd is None:
                client.send(reply)
            else:
                socket.send_fds(client, [reply], [fd])
        except OSError:
            # It went away, or asks without ever reading: its problem, not ours.
            self.netdev.counters["replies_lost"] += 1
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        self._reactor.unwatch(client.fileno())
        del self._clients[client], self._users[client]
        self._withdraw(client)
        client.close()

    def _once(self, event: str, key: str, **fields: Any) -> None:
        level = "debug" if (event + key) in self._complained else "warning"
        self._complained.add(event + key)
        self._log(level, event, **fields)

    def close(self) -> None:
        """Close everything; the socket file goes too, if it is still ours."""
        self._file.close()
        for client in list(self._clients):
            self._drop(client)
        if self._timer is not None:
            self._timer.cancel()
        self._reactor.unwatch(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


def peer_user(client: socket.socket) -> int:
    """The user at the other end when it connected (SO_PEERCRED)."""
    return int(_CREDENTIALS.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1])


def _bind(path: str, mode: int, owner: tuple[int, int] | None) -> socket.socket:
    """Listen on `path`; a socket file that nobody serves any more is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if os.path.lexists(path):
            _clear_stale(path)
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        if owner is not None:
            os.chown(path, *owner)
        sock.listen(64)
    except (ConfigError, StartError):
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise StartError(f"--listen {path}: {error.strerror}") from None
    sock.setblocking(False)
    return sock


def _clear_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        raise ConfigError(f"--listen {path}: exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            raise ConfigError(f"--listen {path}: exists and is not netdev's: {error.strerror}") from None
    raise StartError(f"--listen {path}: another netdev listens there")
