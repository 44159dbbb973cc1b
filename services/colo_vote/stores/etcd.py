"""etcd: a key with a lease, over the JSON gateway of its v3 interface (`/v3/...`, etcd 3.4 and newer).

::

    hold     nobody holds it: grant a lease, then in one transaction: if the key does not exist, put it with the lease
             we hold it:      renew the lease, then read the key (a member without a quorum cannot answer that)
    look     read the key
    release  revoke the lease, and etcd deletes the key with it

The token is the revision that created the key: revisions of a cluster only grow. The members are asked one after the
other, beginning with the one that answered last. Each has a tenth of the time to live to answer.

etcd's gRPC clients for Python bring grpcio, and etcd3gw, which uses this gateway as well, speaks to one member only.
"""

import base64
import json
import ssl
import time
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
        self._key = _text(config.key)
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

    def hold(self, name: str) -> Holder | None:
        """Take or renew the key (`Store.hold`)."""
        if self._lease and not self._renewed():
            self._lease = 0
        found = self._read()
        if found is not None:
            holder, lease = found
            if lease == self._lease != 0 and holder.name == name:
                return Holder(name, holder.token, float(self._ttl))
            # An earlier start of this process: the key goes on under a lease of ours, with the same token.
            return self._put(name, "value", holder) if holder.name == name else holder
        return self._put(name, "create", None)

    def look(self) -> Holder | None:
        """Who holds the key."""
        found = self._read()
        return found[0] if found is not None else None

    def release(self, name: str) -> None:
        """Give the key up (`Store.release`)."""
        found = self._read()
        if found is not None and found[0].name == name:
            self._call("/v3/lease/revoke", {"ID": str(found[1])})
        self._lease = 0

    def close(self) -> None:
        """Close connections."""
        self._http.clear()

    # -- requests ----------------------------------------------------------------------------------

    def _renewed(self) -> bool:
        """True when our lease was renewed, False when it has ended."""
        answer = self._call("/v3/lease/keepalive", {"ID": str(self._lease)})
        return _number(_map(answer, "result"), "TTL") > 0

    def _read(self) -> tuple[Holder, int] | None:
        """Who holds the key, and with which lease."""
        return _first(self._call("/v3/kv/range", {"key": self._key}))

    def _put(self, name: str, compare: str, former: Holder | None) -> Holder | None:
        """Put the key with a lease, in a transaction: if it does not exist (`create`), or is what `former` says."""
        if not self._lease:
            self._lease = _number(self._call("/v3/lease/grant", {"TTL": str(self._ttl)}), "ID")
        condition = {"key": self._key, "result": "EQUAL", "target": "CREATE", "create_revision": "0"}
        if former is not None:
            condition |= {"create_revision": str(former.token)}
        put = {"key": self._key, "value": _text(name), "lease": str(self._lease)}
        answer = self._call("/v3/kv/txn", {
            "compare": [condition],
            "success": [{"request_put": put}, {"request_range": {"key": self._key}}],
            "failure": [{"request_range": {"key": self._key}}],
        })  # fmt: skip
        ranges = [_map(one, "response_range") for one in _list(answer, "responses") if "response_range" in one]
        found = _first(ranges[0]) if ranges else None
        if found is None:
            return None
        holder, lease = found
        if lease == self._lease and holder.name == name:
            return Holder(name, holder.token, float(self._ttl))
        return holder

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


def _first(answer: dict[str, Any]) -> tuple[Holder, int] | None:
    """The holder and the lease in the answer to a range; None when there is no key."""
    pairs = _list(answer, "kvs")
    if not pairs:
        return None
    try:
        name = base64.b64decode(_word(pairs[0], "value"), validate=True).decode()
    except ValueError:
        raise StoreError("the key holds no text") from None
    return Holder(name, _number(pairs[0], "create_revision")), _number(pairs[0], "lease")


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
