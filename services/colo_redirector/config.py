"""Options of `colo redirector`."""

from dataclasses import dataclass

from colo_proto.config import option
from colo_proto.errors import ConfigError
from colo_proto.lan import CLAIMS


@dataclass(frozen=True, slots=True)
class RedirectorConfig:
    netdev: str = option("", kind="endpoint", help="the chain: a tap, or the link to the next filter")
    indev: str = option("", kind="endpoint", help="frames from here go into the chain")
    outdev: str = option("", kind="endpoint", help="frames of the chain go out here")
    standby: str = option(
        "", kind="endpoint", help="the client tap of this host: takes the place of indev or outdev after a failover"
    )
    claims: str = option("", kind="endpoint", help=CLAIMS.doc)

    def __post_init__(self) -> None:
        if not self.indev and not self.outdev:
            raise ConfigError("redirector needs --indev or --outdev, at least one of them")
        if self.indev and self.indev == self.outdev:
            raise ConfigError(f"--indev and --outdev cannot be the same: {self.indev}")
        if not self.netdev and not (self.indev and self.outdev):
            raise ConfigError("redirector without --netdev is a relay and needs both --indev and --outdev")
        if self.standby and not (self.netdev and bool(self.indev) != bool(self.outdev)):
            raise ConfigError("--standby goes with --netdev and one of --indev and --outdev")
        if self.claims and not (self.standby and self.indev):
            raise ConfigError("--claims goes with --indev and --standby, because claims must be heard there as well")
