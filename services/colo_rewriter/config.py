"""Options of `colo rewriter`; the ports have QEMU's names."""

from dataclasses import dataclass
from typing import Any, Final

from colo_proto.config import DAY_MS, MAX_FLOWS, MAX_IDLE, option
from colo_proto.errors import ConfigError

_IDLE: Final[dict[str, Any]] = {"unit": "s", "least": 1, "most": MAX_IDLE}


@dataclass(frozen=True, slots=True)
class RewriterConfig:
    indev: str = option("", kind="endpoint", help="frames of the clients, mirrored from the primary host")
    netdev: str = option("", kind="endpoint", help="the secondary guest's tap, both ways")
    outdev: str = option("", kind="endpoint", help="frames of the guest, rewritten; split=on shares them out")
    standby: str = option(
        "", kind="endpoint", help="the client tap of this host: takes the place of indev and outdev after a failover"
    )
    lead_in: str = option(
        "", kind="endpoint", help="frames of the clients, from the mirror of this host, while this host leads"
    )
    lead_out: str = option(
        "", kind="endpoint", help="frames of the guest to the compares of this host, while this host leads"
    )
    claims: str = option(
        "",
        kind="endpoint",
        help="the client tap: the COLO frame's claims go out here, and it is told of those that are heard",
    )
    max_flows: int = option(
        65536, unit="flows", least=1, most=MAX_FLOWS,
        help="connections tracked at once; half-open and closed ones make room first",
    )  # fmt: skip
    established_timeout: int = option(
        7440, **_IDLE, help="idle time after which an open connection is forgotten (RFC 5382: 2 h 4 min)"
    )
    half_open_timeout: int = option(60, **_IDLE, help="the same for a handshake that does not complete")
    closed_timeout: int = option(60, **_IDLE, help="how long a closed connection is kept for late segments")
    hold_frames: int = option(
        64, unit="frames", least=0, most=65536,
        help="early client frames held per connection until the guest's SYN or SYN/ACK",
    )  # fmt: skip
    hold_ms: int = option(
        1000, unit="ms", least=0, most=DAY_MS, help="how long they are held before they pass unchanged"
    )
    answer_neighbours: bool = option(
        True, help="answer the guest's ARP and IPv6 neighbour requests for addresses seen on the LAN"
    )
    revive: bool = option(
        True, help="after a failover, end the retransmission pauses of both ends of each connection (RFC 6069)"
    )

    def __post_init__(self) -> None:
        if self.claims and not self.standby:
            raise ConfigError("--claims goes with --standby, because claims must be heard there as well")
        if bool(self.lead_in) != bool(self.lead_out):
            raise ConfigError("--lead-in and --lead-out go together")
        if self.lead_in and self.standby:
            raise ConfigError("--standby and --lead-in are two ways to lead: only one of them")
