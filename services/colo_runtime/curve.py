"""CURVE between hosts: the keys, who is let in, and what happens when that changes.

::

    connecting end                                       bound end
    our secret, the peer's public key --- handshake ---> our secret; ZAP: is the client's key in the list?
                                                         if not: 400, counted, one log line

Who connects proves that it has the secret of a listed key; who is connected to proves the same, for its public
key is what the connecting end encrypts to. With several listed keys a connecting end tries one after the other.

Key files are ZeroMQ certificates, as zmq.auth and czmq write them: `NAME.key` holds `public-key = "…"` (40 characters
of Z85), `NAME.key_secret` also `secret-key = "…"`. The list of peers is a directory of `*.key` files or one file
with any number of `public-key` lines.

libzmq asks ZAP (https://rfc.zeromq.org/spec/27) once per connection. When a key is taken from the list, or ours
changes, every socket between hosts is therefore closed and opened anew: whoever is still allowed is back in a moment.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq

from colo_proto.endpoint import Endpoint
from colo_proto.errors import ConfigError
from colo_runtime.reactor import READ, Reactor
from colo_runtime.secretfile import exposed

_LINE: Final = re.compile(r"""^[ \t]*(public|secret)-key[ \t]*=[ \t]*["']?([^\s"']*)["']?[ \t]*$""", re.MULTILINE)
MAX_FILE: Final = 1 << 20
MAX_PEERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Keys:
    """Ours, and whom we know. Keys are Z85 text as bytes."""

    public: bytes
    secret: bytes
    peers: Mapping[bytes, str]
    """Name (of the file) by public key."""


def load(secret_file: str, peers: str) -> Keys:
    """Read everything; `ConfigError` names the option, the file, and what is wrong with it."""
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
        # Not glob: from Python 3.13 on it takes a directory that cannot be read for an empty one.
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
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_FILE)
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{option} {path}: not a key file (not text)") from None
    found = []
    for kind, key in _LINE.findall(text):
        try:
            # The simplest check that libzmq will take it: it decodes the key.
            zmq.curve_public(key.encode())
        except (zmq.ZMQError, ValueError):
            raise ConfigError(f"{option} {path}: {kind}-key is not 40 characters of Z85") from None
        found.append((kind, key.encode()))
    return found


def write_pair(directory: str, name: str) -> tuple[Path, Path, str]:
    """Make a key pair: `NAME.key` (0644) and `NAME.key_secret` (0600) in `directory`, and the public key.

    `ConfigError` when one of the files is there already: a key is never overwritten.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise ConfigError(f"--name {name}: letters, digits, '_', '.', '-', at most 64")
    public, secret = (key.decode() for key in zmq.curve_keypair())
    folder = Path(directory)
    public_file, secret_file = folder / f"{name}.key", folder / f"{name}.key_secret"
    for path in (public_file, secret_file):
        if path.exists():
            raise ConfigError(f"{path}: exists; a key is not overwritten")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        head = f"#   ZeroMQ CURVE certificate of {name}\n"
        secret_lines = f'curve\n    public-key = "{public}"\n    secret-key = "{secret}"\n'
        _write(secret_file, 0o600, f"{head}#   SECRET: it stays on its host.\n\nmetadata\n{secret_lines}")
        shown = f'curve\n    public-key = "{public}"\n'
        _write(
            public_file, 0o644, f"{head}#   Public: it goes into the --curve-peers of the others.\n\nmetadata\n{shown}"
        )
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    return public_file, secret_file, public


def _write(path: Path, mode: int, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)


def dial(socket: zmq.Socket[bytes], keys: Keys, server_key: bytes) -> None:
    """Make a socket a CURVE client of the holder of `server_key`."""
    socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
    socket.curve_serverkey = server_key


class Curve:
    """The keys of one process, and the ZAP handler of its ZeroMQ context."""

    def __init__(
        self, secret_file: str, peers: str, zmq_context: zmq.Context[Any], reactor: Reactor, log: Callable[..., None]
    ) -> None:
        self.keys = load(secret_file, peers)
        self.renewals: set[Callable[[], None]] = set()
        """Called when connections must not go on as they are."""
        self._files = (secret_file, peers)
        self._zmq = zmq_context
        self._reactor = reactor
        self._log = log
        self.complain: Callable[..., None] = lambda _event, _key, **_fields: None
        """`complain(event, key, **fields)` of the process's context: at most once a minute."""
        self._authenticator: Any = None
        self._asking = ""

    def open(self) -> None:
        """Begin to answer ZAP's questions; before any socket is bound."""
        # It imports asyncio, so only who has keys pays for it. Its coroutine awaits nothing here.
        from zmq.auth.base import Authenticator  # noqa: PLC0415

        self._authenticator = Authenticator(self._zmq, log=_Quiet())
        self._authenticator.start()
        self._reactor.watch(self._authenticator.zap_socket, READ, self._question)
        if exposed(self._files[0]):
            self._log("warning", "key.exposed", path=self._files[0])

    def close(self) -> None:
        """Stop answering."""
        if self._authenticator is not None:
            self._reactor.unwatch(self._authenticator.zap_socket)
            self._authenticator.stop()
            self._authenticator = None

    def attend(self) -> None:
        """Answer a question, if there is one, outside of the loop. libzmq also lets go of who asked then."""
        if self._authenticator is not None:
            self._question(READ)

    def protect(self, socket: zmq.Socket[bytes], endpoint: Endpoint, what: str, turn: int) -> bool:
        """Before `bind` or `connect`. `turn` counts attempts to connect. False when nobody is listed to connect to."""
        keys = self.keys
        if endpoint.server:
            domain = what.removeprefix("--").replace("-", "_")
            self._authenticator.configure_curve_callback(domain, self)
            socket.curve_server = True
            socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
            socket.zap_domain = domain.encode()
            # Without this libzmq lets everybody in while nobody answers ZAP.
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            return True
        listed = list(keys.peers)
        if listed:
            dial(socket, keys, listed[turn % len(listed)])
        return bool(listed)

    def reload(self) -> None:
        """Read the files again. Whoever is not listed any more is cut off; broken files change nothing."""
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

    def _question(self, _events: int) -> None:
        try:
            message = self._authenticator.zap_socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        self._asking = message[3].decode(errors="replace") if len(message) > 3 else ""
        try:
            self._authenticator.handle_zap_message(message).send(None)
        except StopIteration:
            return
        raise AssertionError("the authenticator waits for something")

    def callback(self, domain: str, key: bytes) -> bool:
        """For the authenticator: is this client's key (Z85) listed?"""
        if key in self.keys.peers:
            return True
        who = {"address": self._asking, "key": key.decode()}
        self.complain("peer.refused", f"{domain} {key.decode()}", port=domain, reason="unknown_key", **who)
        return False


class _Quiet:
    """The authenticator's log: what matters of it is said by us."""

    def debug(self, *_: object) -> None:
        pass

    error = debug
