"""What `colo lab` is told, and the addresses it uses (inside its own namespaces only)."""

from dataclasses import dataclass, field
from typing import Final

from colo_proto.config import DAY_S, shown
from colo_proto.errors import ConfigError
from colo_proto.messages import Mode
from colo_proto.topology import WIRINGS, Wiring, processes

CLIENT4: Final = "10.77.0.1"
CLIENT6: Final = "fd77::1"
GUEST4: Final = "10.77.0.2"
GUEST6: Final = "fd77::2"
PREFIX4: Final = 24
PREFIX6: Final = 64
CLIENT_MAC: Final = "02:c0:10:00:00:01"
GUEST_MAC: Final = "02:c0:10:00:00:02"
"""The same in both guests, as for a VM and its replica."""
HOST_P: Final = "169.254.77.1"
HOST_S: Final = "169.254.77.2"
PREFIX_HOST: Final = 30


@dataclass(frozen=True, slots=True)
class LabConfig:
    """One lab."""

    guest: str = ""
    """Shell command for both guests; empty: only the guests' kernel answers (ping)."""
    secondary_guest: str = ""
    """Another command for the secondary guest."""
    wiring: Wiring = "faithful"
    workers: int = 1
    mode: str = Mode.ENFORCE
    guest_wait: float = 5.0
    """Seconds to wait for a guest's listening socket before it is taken not to be a server."""
    start_timeout: float = 30.0
    """Seconds until everything must be up."""
    curve: bool = False
    """Use keys on the links between the hosts, as real hosts need them."""
    restart: bool = True
    """Start a filter again that dies, as the restart policy of compose does."""
    logs: str = ""
    """Directory to keep the logs in; empty: they go with the lab."""
    log_level: str = "info"
    failover: float | None = None
    """Seconds after the client's start at which everything of the primary host dies."""
    kills: tuple[tuple[str, float], ...] = ()
    """Who else dies, and when: `("m0", 2.5)`; `host-s` is everything of that host."""
    scales: tuple[tuple[int, float], ...] = ()
    """How many compares there are to be, and from when: `(4, 2.5)`."""
    watch_lan: bool = False
    """Capture on the client LAN whose port the guest is heard from, also without a failover."""
    loss: float = 0.0
    """Percent of the frames between client and hosts that are lost, each way."""
    reorder: float = 0.0
    """Percent of them that others overtake."""
    seed: int = 1
    """Which frames those are."""
    extra: dict[str, dict[str, str]] = field(default_factory=dict)
    """More options by role or id, without dashes: `{"compare": {"compare-timeout": "500"}}`."""

    @property
    def impaired(self) -> bool:
        """True when the client's LAN is a bad one."""
        return bool(self.loss or self.reorder)

    def _names(self) -> list[str]:
        """Roles and ids of the processes that this lab starts at any time."""
        every = processes(self.wiring, max(self.workers, *(number for number, _ in self.scales), 1))
        return list(dict.fromkeys([*(one.role for one in every), *(one.id for one in every)]))

    def __post_init__(self) -> None:
        if self.wiring not in WIRINGS:
            raise ConfigError(f"--wiring {self.wiring}: one of {', '.join(WIRINGS)}")
        if not 1 <= self.workers <= 64:
            raise ConfigError(f"--compare {self.workers}: 1 to 64 workers")
        if self.mode not in Mode.ALL:
            raise ConfigError(f"--mode {self.mode}: one of {', '.join(Mode.ALL)}")
        if self.secondary_guest and not self.guest:
            raise ConfigError("--secondary-guest: needs --guest as well")
        if not (0 <= self.loss < 100 and 0 <= self.reorder < 100 and self.loss + self.reorder <= 100):
            raise ConfigError(f"--loss {self.loss:g} --reorder {self.reorder:g}: percentages, together at most 100")
        if self.failover is not None and not 0 <= self.failover <= DAY_S:
            raise ConfigError(f"--failover {self.failover:g}: from 0 to {DAY_S} seconds")
        for workers, at in self.scales:
            if not 1 <= workers <= 64 or not 0 <= at <= DAY_S:
                raise ConfigError(f"--scale {shown(workers)}@{at:g}: 1 to 64 workers, from 0 to {DAY_S} seconds")
        for name, at in self.kills:
            if not 0 <= at <= DAY_S:
                raise ConfigError(f"--kill {name}@{at:g}: from 0 to {DAY_S} seconds")
        known = self._names()
        for who in self.extra:
            if who not in known:
                raise ConfigError(f"--option {who}.…: there is no role or process {who}; {', '.join(known)}")
        for name in ("guest_wait", "start_timeout"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name.replace('_', '-')}: not negative")
