"""etcd: a key with a lease, over the JSON gateway of its v3 interface (`/v3/...`, etcd 3.4 and newer).

::

    hold     nobody holds it: grant a lease, then in one transaction: if the key does not exist, put it with the lease
             we hold it:      renew the lease, then read the key (a member without a quorum cannot answer that)
    look     read the key
    release  revoke the lease, and etcd deletes the key with it

The key is `/colo/PAIR/writer/holder`. Beside it, without a lease, is `/colo/PAIR/writer/alone`: the note that a holder
goes on alone. Whoever takes the key reads both at once, and only the holder writes the note.

The token is the revision that created the key: revisions of a cluster only grow. The members are asked one after the
other, beginning with the one that answered last. Each has a tenth of the time to live to answer.

etcd's gRPC clients for Python bring grpcio, and etcd3gw, which uses this gateway as well, speaks to one member only.
"""

import base64
import json
import ssl
import time
from dataclasses import replace
from typing import Any, Final

import urllib3

from colo_proto.config import host_port
from colo_proto.errors import ConfigError
from colo_runtime.files import read_file
from colo_vote.config import VoteConfig
from colo_vote.store import Holder, Store, StoreError

MAX_ANSWER: Final = 64 << 10
MAX_MEMBERS: Final = 9
MAX_PASSWORD: Final = 1024
ATTEMPT: Final = 0.1
"""The part of the time to live that one member has to answer."""
ALL: Final = 0.4
"""The part of it that all members together have."""
SCHEME: Final = "etcd://"


def open_store(config: VoteConfig) -> "EtcdStore":
    """The store, not connected yet. `ConfigError` names what is wrong."""
    return EtcdStore(config)


class EtcdStore(Store):
    """See the module."""

    def __init__(self, config: VoteConfig) -> None:
        self._members = _members(config)
        self._key, self._note = _text(config.key + "/holder"), _text(config.key + "/alone")
        self._both = {"key": _text(config.key + "/"), "range_end": _text(config.key + "0")}
        """Both keys: what begins with `/colo/PAIR/writer/`."""
        self._ttl = config.ttl
        self._user = config.store_user
        self._password = ""
        if config.store_password:
            self._password = read_file("--store-password", config.store_password, MAX_PASSWORD).strip("\r\n")
        self._token = ""
        """What authenticates us; empty before the first request, and without a user."""
        self._lease = 0
        tls: dict[str, Any] = {"ssl_context": _tls(config)} if config.store_ca else {}
        self._http = urllib3.PoolManager(num_pools=MAX_MEMBERS, maxsize=1, retries=False, **tls)

    # -- the interface -----------------------------------------------------------------------------

    def hold(self, name: str, alone: str = "") -> Holder:
        """Take or renew the key (`Store.hold`)."""
        if self._lease and not self._renewed():
            self._lease = 0
        holder, lease = self._read()
        noted = {"": holder.alone, "yes": name, "no": ""}[alone]
        if holder.name and holder.name != name:
            return holder
        if not holder.name or lease != self._lease or holder.alone != noted:
            # If `name` holds it under another lease, that was an earlier start of this process: the token stays.
            holder, lease = self._put(name, holder.token, noted)
        return replace(holder, ttl=float(self._ttl)) if holder.name == name and lease == self._lease else holder

    def look(self) -> Holder:
        """Who holds the key."""
        return self._read()[0]

    def release(self, name: str) -> None:
        """Give the key up (`Store.release`)."""
        holder, lease = self._read()
        if holder.name == name:
            self._call("/v3/lease/revoke", {"ID": str(lease)})
        self._lease = 0

    def close(self) -> None:
        """Close connections."""
        self._http.clear()

    # -- requests ----------------------------------------------------------------------------------

    def _renewed(self) -> bool:
        """True when our lease was renewed, False when it has ended."""
        answer = self._call("/v3/lease/keepalive", {"ID": str(self._lease)})
        return _number(_map(answer, "result"), "TTL") > 0

    def _read(self) -> tuple[Holder, int]:
        """Who holds the key, and with which lease."""
        return _found(self._call("/v3/kv/range", self._both), self._key)

    def _put(self, name: str, token: int, noted: str) -> tuple[Holder, int]:
        """Put the key with a lease, and the note, in one transaction: if the key still has this token (0: no key)."""
        if not self._lease:
            self._lease = _number(self._call("/v3/lease/grant", {"TTL": str(self._ttl)}), "ID")
        put = {"request_put": {"key": self._key, "value": _text(name), "lease": str(self._lease)}}
        note = {"request_put": {"key": self._note, "value": _text(noted)}}
        answer = self._call("/v3/kv/txn", {
            "compare": [{"key": self._key, "result": "EQUAL", "target": "CREATE", "create_revision": str(token)}],
            "success": [put, note, {"request_range": self._both}],
            "failure": [{"request_range": self._both}],
        })  # fmt: skip
        ranges = [_map(one, "response_range") for one in _list(answer, "responses") if "response_range" in one]
        if not ranges:
            raise StoreError("an answer without response_range")
        return _found(ranges[0], self._key)

    def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request, to the members in turn until one answers. `StoreError` says what the last one did."""
        why, until = "", time.monotonic() + self._ttl * ALL
        for member in list(self._members):
            if why and time.monotonic() >= until:
                break
            try:
                answer = self._ask(member, path, body)
            except (StoreError, urllib3.exceptions.HTTPError, OSError) as error:
                why = f"{member}: {_reason(error)}"
                # The next request begins with another member.
                self._members.remove(member)
                self._members.append(member)
            else:
                return answer
        raise StoreError(why)

    def _ask(self, member: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request to one member."""
        if self._user and not self._token:
            self._log_in(member)
        status, answer = self._post(member, path, body)
        if status == 401 and self._user:
            # The token has ended, or the member was restarted: once more, with another one.
            self._log_in(member)
            status, answer = self._post(member, path, body)
        if status != 200:
            raise StoreError(f"{status} {str(answer.get('error') or answer.get('message') or '')[:120]}".strip())
        if "error" in answer:
            raise StoreError(str(answer["error"])[:120])
        return answer

    def _log_in(self, member: str) -> None:
        """Get a token for our requests. The member hashes the password slowly, on purpose."""
        self._token = ""
        login = {"name": self._user, "password": self._password}
        self._token = _word(self._post(member, "/v3/auth/authenticate", login, ALL)[1], "token")

    def _post(self, member: str, path: str, body: dict[str, Any], part: float = ATTEMPT) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": self._token} if self._token else {})
        timeout = urllib3.Timeout(connect=self._ttl * ATTEMPT, read=self._ttl * part)
        reply = self._http.request(
            "POST", member + path, body=json.dumps(body), headers=headers, timeout=timeout, preload_content=False
        )
        try:
            answer = json.loads(reply.read(MAX_ANSWER))
        except (ValueError, RecursionError):
            raise StoreError(f"{reply.status}: no JSON") from None
        finally:
            reply.release_conn()
        if not isinstance(answer, dict):
            raise StoreError(f"{reply.status}: not an answer of etcd")
        return reply.status, answer


# -- what a store says is checked -------------------------------------------------------------------


def _found(answer: dict[str, Any], key: str) -> tuple[Holder, int]:
    """The holder, with the note, and the lease, in the answer to a range over both keys."""
    name, token, lease, alone = "", 0, 0, ""
    for pair in _list(answer, "kvs"):
        try:
            # etcd leaves an empty value out.
            value = base64.b64decode(_word(pair, "value") if "value" in pair else "", validate=True).decode()
        except ValueError:
            raise StoreError("a key holds no text") from None
        if _word(pair, "key") == key:
            name, token, lease = value, _number(pair, "create_revision"), _number(pair, "lease")
        else:
            alone = value
    return Holder(name, token, alone=alone), lease


def _map(answer: dict[str, Any], name: str) -> dict[str, Any]:
    value = answer.get(name)
    if not isinstance(value, dict):
        raise StoreError(f"an answer without {name}")
    return value


def _list(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = answer.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise StoreError(f"{name} is not a list")
    return value


def _word(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise StoreError(f"an answer without {name}: {str(answer.get('error', ''))[:80]}")
    return value


def _number(answer: dict[str, Any], name: str) -> int:
    """A number of 64 bits, which the gateway writes as text, and leaves out when it is 0."""
    value = answer.get(name, "0")
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise StoreError(f"{name} is no number") from None
    if not 0 <= number < 1 << 63:
        raise StoreError(f"{name} is out of range")
    return number


def _text(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _reason(error: Exception) -> str:
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)
    if isinstance(error, urllib3.exceptions.TimeoutError) and not refused:
        return "no answer in time"
    return str(error).rpartition(": ")[2][:120] or type(error).__name__


# -- options ----------------------------------------------------------------------------------------


def _members(config: VoteConfig) -> list[str]:
    """The URLs of the members."""
    names = config.store.removeprefix(SCHEME).rstrip("/").split(",")
    if not 1 <= len(names) <= MAX_MEMBERS:
        raise ConfigError(f"--store {config.store[:80]}: 1 to {MAX_MEMBERS} members, not {len(names)}")
    scheme = "https" if config.store_ca else "http"
    found = []
    for name in names:
        host, port = host_port(name, "--store")
        if not host:
            raise ConfigError(f"--store {name}: a host is missing")
        found.append(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
    return found


def _tls(config: VoteConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.store_ca)
        if config.store_cert:
            context.load_cert_chain(config.store_cert, config.store_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--store-ca, --store-cert, --store-key: {error.strerror or error}") from None
    return context
