"""CURVE between hosts: the keys, who is let in, and what happens when the keys change.

::

    connecting end                                       bound end
    our secret, the peer's public key --- handshake ---> our secret; ZAP: is the client's key in the list?
                                                         if not: 400, counted, one log line

The connecting end proves that it has the secret of a listed key. The bound end proves the same for its own key, because
the connecting end encrypts to that key. When several keys are listed, the connecting end tries them in turn.

Key files are ZeroMQ certificates, as zmq.auth and czmq write them: `NAME.key` holds `public-key = "…"` (40 characters
of Z85), `NAME.key_secret` also `secret-key = "…"`. The list of peers is a directory of `*.key` files, or one file
with any number of `public-key` lines.

libzmq asks ZAP (https://rfc.zeromq.org/spec/27) only once for each connection. When a key is removed from the list, or
our own key changes, every socket between hosts is therefore closed and opened again; peers that are still allowed are
connected again a moment later.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq

from colo_proto.endpoint import Endpoint
from colo_proto.errors import ConfigError
from colo_runtime.files import read_file, readable_by_others, write_files
from colo_runtime.reactor import READ, Reactor

_LINE: Final = re.compile(r"""^[ \t]*(public|secret)-key[ \t]*=[ \t]*["']?([^\s"']*)["']?[ \t]*$""", re.MULTILINE)
MAX_FILE: Final = 1 << 20
MAX_PEERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Keys:
    """Our key pair, and the public keys that we know. All keys are Z85 text as bytes."""

    public: bytes
    secret: bytes
    peers: Mapping[bytes, str]
    """The name of the file that each public key is from."""


def load(secret_file: str, peers: str) -> Keys:
    """Read both. `ConfigError` names the option, the file, and what is wrong with it."""
    if not (secret_file and peers):
        raise ConfigError("--curve-secret and --curve-peers: both or neither")
    found = dict(_read(secret_file, "--curve-secret"))
    secret = found.get("secret")
    if secret is None:
        raise ConfigError(f'--curve-secret {secret_file}: no line secret-key = "…" in it (is it the public file?)')
    public = zmq.curve_public(secret)
    if found.get("public", public) != public:
        raise ConfigError(f"--curve-secret {secret_file}: its public key does not belong to its secret key")
    return Keys(public, secret, _peers(peers))


def _peers(path: str) -> dict[bytes, str]:
    where = Path(path)
    try:
        # Not glob: from Python 3.13 on it treats a directory that cannot be read as an empty one.
        files = sorted(one for one in where.iterdir() if one.suffix == ".key") if where.is_dir() else [where]
    except OSError as error:
        raise ConfigError(f"--curve-peers {path}: {error.strerror}") from None
    known: dict[bytes, str] = {}
    for file in files:
        keys = [key for kind, key in _read(str(file), "--curve-peers") if kind == "public"]
        if not keys:
            raise ConfigError(f'--curve-peers {file}: no line public-key = "…" in it')
        known |= dict.fromkeys(keys, file.stem)
    if len(known) > MAX_PEERS:
        raise ConfigError(f"--curve-peers {path}: at most {MAX_PEERS} keys, not {len(known)}")
    return known


def _read(path: str, option: str) -> list[tuple[str, bytes]]:
    found = []
    for kind, key in _LINE.findall(read_file(option, path, MAX_FILE, "not a key file (not text)")):
        try:
            # The simplest way to know that libzmq accepts the key: it decodes it here.
            zmq.curve_public(key.encode())
        except (zmq.ZMQError, ValueError):
            raise ConfigError(f"{option} {path}: {kind}-key is not 40 characters of Z85") from None
        found.append((kind, key.encode()))
    return found


def write_pair(directory: str, name: str) -> tuple[Path, Path, str]:
    """Make a key pair: `NAME.key` (mode 0644) and `NAME.key_secret` (0600) in `directory`.

    Returns both paths and the public key. `ConfigError` when one of the files exists already: a key is never
    overwritten.
    """
    public, secret = (key.decode() for key in zmq.curve_keypair())
    head = f"#   ZeroMQ CURVE certificate of {name}\n"
    keys = f'\n\nmetadata\ncurve\n    public-key = "{public}"\n'
    secret_text = f'{head}#   SECRET: it stays on its host.{keys}    secret-key = "{secret}"\n'
    public_text = f"{head}#   Public: it goes into the --curve-peers of the others.{keys}"
    secret_file, public_file = write_files(
        "key", directory, name, {"key_secret": (0o600, secret_text), "key": (0o644, public_text)}
    )
    return public_file, secret_file, public


def dial(socket: zmq.Socket[bytes], keys: Keys, server_key: bytes) -> None:
    """Make a socket a CURVE client of the holder of `server_key`."""
    socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
    socket.curve_serverkey = server_key


def require_keys(what: str, endpoint: Endpoint, *, keys: bool, insecure: bool) -> None:
    """`ConfigError` for a link between hosts without keys, unless the operator allows it with `--insecure`."""
    if endpoint.exposed and not keys and not insecure:
        raise ConfigError(
            f"{what} {endpoint}: a link between hosts needs keys (--curve-secret, --curve-peers), or --insecure"
        )


class Curve:
    """The keys of one process, and the ZAP handler of its ZeroMQ context."""

    def __init__(
        self, secret_file: str, peers: str, zmq_context: zmq.Context[Any], reactor: Reactor, log: Callable[..., None]
    ) -> None:
        self.keys = load(secret_file, peers)
        self.renewals: set[Callable[[], None]] = set()
        """Called when the present connections must end because the keys have changed."""
        self._files = (secret_file, peers)
        self._zmq = zmq_context
        self._reactor = reactor
        self._log = log
        self.complain: Callable[..., None] = lambda _event, _key, **_fields: None
        """`complain(event, key, **fields)` of the context of the process: logs at most once a minute."""
        self._authenticator: Any = None
        self._address = ""
        """Where the client that ZAP is asking about connects from."""

    def open(self) -> None:
        """Start to answer ZAP requests; must come before any socket is bound."""
        # It imports asyncio, so only a process with keys pays for it. Its coroutine never waits here.
        from zmq.auth.base import Authenticator  # noqa: PLC0415

        # What matters is logged here.
        logging.getLogger("zmq.auth").setLevel(logging.CRITICAL)
        self._authenticator = Authenticator(self._zmq)
        self._authenticator.start()
        self._reactor.watch(self._authenticator.zap_socket, READ, self._answer_zap)
        if readable_by_others(self._files[0]):
            self._log("warning", "key.exposed", path=self._files[0])

    def close(self) -> None:
        """Stop answering."""
        if self._authenticator is not None:
            self._reactor.unwatch(self._authenticator.zap_socket)
            self._authenticator.stop()
            self._authenticator = None

    def attend(self) -> None:
        """Answer a ZAP request outside of the loop, if one waits. Only then does libzmq release the connection."""
        if self._authenticator is not None:
            self._answer_zap(READ)

    def protect(self, socket: zmq.Socket[bytes], endpoint: Endpoint, what: str, turn: int) -> bool:
        """Give a socket its keys, before `bind` or `connect`.

        `turn` counts the attempts to connect and selects the key to try. False when there is no key to connect to.
        """
        keys = self.keys
        if endpoint.server:
            domain = what.removeprefix("--").replace("-", "_")
            self._authenticator.configure_curve_callback(domain, self)
            socket.curve_server = True
            socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
            socket.zap_domain = domain.encode()
            # Without this option libzmq lets everybody in while nobody answers ZAP.
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            return True
        listed = list(keys.peers)
        if listed:
            dial(socket, keys, listed[turn % len(listed)])
        return bool(listed)

    def reload(self) -> None:
        """Read the files again and cut off peers that are not listed any more. Broken files change nothing."""
        before = self.keys
        try:
            now = load(*self._files)
        except ConfigError as error:
            self._log("error", "keys.refused", error=str(error))
            return
        self.keys = now
        added, removed = now.peers.keys() - before.peers.keys(), before.peers.keys() - now.peers.keys()
        self._log("info", "keys.loaded", peers=len(now.peers), added=len(added), removed=len(removed))
        if removed or now.secret != before.secret or not before.peers:
            for renew in list(self.renewals):
                renew()

    # -- ZAP ------------------------------------------------------------------------------------

    def _answer_zap(self, _events: int) -> None:
        try:
            message = self._authenticator.zap_socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        self._address = message[3].decode(errors="replace") if len(message) > 3 else ""
        try:
            self._authenticator.handle_zap_message(message).send(None)
        except StopIteration:
            return
        raise AssertionError("the authenticator waits for something")

    def callback(self, domain: str, key: bytes) -> bool:
        """Called by the authenticator: is the key of this client (Z85) listed?"""
        if key in self.keys.peers:
            return True
        who = {"address": self._address, "key": key.decode()}
        self.complain("peer.refused", f"{domain} {key.decode()}", port=domain, reason="unknown_key", **who)
        return False
