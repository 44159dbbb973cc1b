"""What `colo vote` needs of a store: a key that one client at a time holds, and that it loses when it is not renewed.

Another kind of store is one more file in `stores`, named after its scheme, with a function
`open_store(config: VoteConfig) -> Store`. Stores that can do this are etcd (a key with a lease), Consul (a key with a
session), ZooKeeper (an ephemeral node) and Kubernetes (a Lease object).

A store is used by one thread, one call at a time. Each call may block, but no longer than a fifth of the time to live.
"""

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

from colo_proto.errors import ConfigError
from colo_vote.config import VoteConfig


class StoreError(Exception):
    """The store did not answer, or not as it should; the text says what happened."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the key."""

    name: str
    token: int
    """A number that is higher for each holder than for all before: the fencing token."""
    ttl: float = 0.0
    """Seconds for which the store keeps the key for us from the request on; 0 for another holder, or none."""
    alone: str = ""
    """Who has noted that it goes on alone. The note outlives the key: then `name` is empty, because nobody holds it."""


class Store(ABC):
    """See the module. Each method raises `StoreError`."""

    @abstractmethod
    def hold(self, name: str, alone: str = "") -> Holder:
        """Take the key for `name` if nobody holds it, renew it if `name` does. Returns who holds it then: with a `ttl`
        if we do. While we hold it, `alone` makes (`yes`) or removes (`no`) the note that the holder goes on alone.
        """

    @abstractmethod
    def look(self) -> Holder:
        """Who holds the key."""

    @abstractmethod
    def release(self, name: str) -> None:
        """Give the key up if `name` holds it."""

    @abstractmethod
    def close(self) -> None:
        """Close connections. The key is not given up: it ends with its time to live."""


def open_store(config: VoteConfig) -> Store:
    """The store that `--store` names, not connected yet. `ConfigError` when there is no such kind, or it is wrong."""
    scheme, separator, _ = config.store.partition("://")
    if not separator or not (scheme.isalnum() and scheme.isascii()):
        raise ConfigError(f"--store {config.store[:80]}: SCHEME://HOST:PORT expected, as in etcd://10.0.0.3:2379")
    name = f"colo_vote.stores.{scheme}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise ConfigError(f"--store {config.store[:80]}: no store is called {scheme!r}; etcd is") from None
        raise ConfigError(f"--store {scheme}: {error.name} is missing; pip install 'colo-proxy[vote]'") from None
    made: Store = module.open_store(config)
    return made
