"""The configuration of a lab, and the addresses that it uses (inside its own namespaces only)."""

from dataclasses import dataclass, field
from typing import Final

from colo_lab.circle import PLANNED
from colo_proto.config import DAY_S, shown
from colo_proto.errors import ConfigError
from colo_proto.messages import Mode
from colo_proto.topology import Wiring, processes

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
    """Shell command for both guests. If it is empty, only the guests' kernel answers (ping)."""
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
    """Start filters again that die, as the restart policy of compose does."""
    logs: str = ""
    """Directory in which the logs are kept. If it is empty, they are removed with the lab."""
    log_level: str = "info"
    failovers: tuple[tuple[str, float], ...] = ()
    """Seconds after the client's start at which the host that leads dies with everything on it (`died`) or is asked to
    yield (`planned`): `("died", 2.0)`. Only the symmetric wiring can have several, or a planned one.
    """
    repair_after: float = 3.0
    """Symmetric wiring: seconds after its death at which a host is started again, with a fresh guest."""
    kills: tuple[tuple[str, float], ...] = ()
    """Which processes are killed, and after how many seconds: `("m0", 2.5)`; `host-s` is everything of that host."""
    scales: tuple[tuple[int, float], ...] = ()
    """Numbers of compare workers, and after how many seconds each applies: `(4, 2.5)`."""
    watch_lan: bool = False
    """Capture on the client LAN from which host's port the guest is heard, also without a failover."""
    loss: float = 0.0
    """Percent of the frames between client and hosts that are lost, each way."""
    reorder: float = 0.0
    """Percent of them that others overtake."""
    seed: int = 1
    """Which frames those are."""
    vote: str = ""
    """The store of a third vote, as the `--store` of `colo vote`; empty: there is none."""
    extra: dict[str, dict[str, str]] = field(default_factory=dict)
    """Further options by role or id, without leading dashes: `{"compare": {"compare-timeout": "500"}}`."""

    @property
    def impaired(self) -> bool:
        """True when frames on the client LAN are to be lost or reordered."""
        return bool(self.loss or self.reorder)

    def __post_init__(self) -> None:
        """Check what the types of the command line's options leave open."""
        within_a_day = f"from 0 to {DAY_S} seconds"
        if not 1 <= self.workers <= 64:
            raise ConfigError(f"--compare {self.workers}: 1 to 64 workers")
        if self.secondary_guest and not self.guest:
            raise ConfigError("--secondary-guest: needs --guest as well")
        if not (0 <= self.loss < 100 and 0 <= self.reorder < 100 and self.loss + self.reorder <= 100):
            raise ConfigError(f"--loss {self.loss:g} --reorder {self.reorder:g}: percentages, together at most 100")
        for n, at in self.scales:
            if not (1 <= n <= 64 and 0 <= at <= DAY_S):
                raise ConfigError(f"--scale {shown(n)}@{at:g}: 1 to 64 workers, {within_a_day}")
        for name, at in self.kills:
            if not 0 <= at <= DAY_S:
                raise ConfigError(f"--kill {name}@{at:g}: {within_a_day}")
        kinds = [kind for kind, _ in self.failovers]
        for _, at in self.failovers:
            if not 0 <= at <= DAY_S:
                raise ConfigError(f"--failover {at:g}: {within_a_day}")
        if self.wiring != "symmetric" and (len(kinds) > 1 or PLANNED in kinds):
            raise ConfigError(
                f"--failover: in the {self.wiring} wiring the primary host can die once, and nothing leads back; "
                "several failovers and planned ones need --wiring symmetric"
            )
        every = processes(self.wiring, max(self.workers, *(n for n, _ in self.scales), 1), vote=bool(self.vote))
        known = list(dict.fromkeys([*(one.role for one in every), *(one.id for one in every)]))
        for who in self.extra:
            if who not in known:
                raise ConfigError(f"--option {who}.…: there is no role or process {who}; {', '.join(known)}")
