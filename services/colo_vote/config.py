"""Options of `colo vote`."""

from dataclasses import dataclass
from typing import Final

from colo_proto.config import option
from colo_proto.errors import ConfigError

MAX_PAIR: Final = 64


@dataclass(frozen=True, slots=True)
class VoteConfig:
    store: str = option(help="the store: etcd://HOST:PORT[,HOST:PORT...]")
    pair: str = option("colo", help="name of the pair, as for the frame: the key is /colo/PAIR/writer/holder")
    ttl: int = option(
        5, unit="s", least=2, most=300, help="the key's time to live: after it, a dead holder has lost it"
    )
    holder: str = option("{hostname}", help="what the key holds, behind the side: the name of this host, no other's")
    store_ca: str = option("", kind="path", help="CA certificates (PEM) of the store: the connection is TLS with them")
    store_cert: str = option("", kind="path", help="our certificate (PEM) for the store")
    store_key: str = option("", kind="path", help="its key (PEM)")
    store_user: str = option("", help="user of the store")
    store_password: str = option("", kind="path", help="file with the password of that user")
    id: str = option("vote", kind="hidden", help="name of this process")

    def __post_init__(self) -> None:
        """Check what the types leave open."""
        if not self.store:
            raise ConfigError("--store: required (etcd://HOST:PORT)")
        if not self.pair or len(self.pair) > MAX_PAIR or "/" in self.pair or not self.pair.isprintable():
            raise ConfigError(f"--pair {self.pair[:40]!r}: 1 to {MAX_PAIR} characters without '/'")
        if bool(self.store_cert) != bool(self.store_key):
            raise ConfigError("--store-cert and --store-key: both or neither")
        if self.store_cert and not self.store_ca:
            raise ConfigError("--store-cert: needs --store-ca")
        if bool(self.store_user) != bool(self.store_password):
            raise ConfigError("--store-user and --store-password: both or neither")

    @property
    def key(self) -> str:
        """The name of the key in the store."""
        return f"/colo/{self.pair}/writer"
