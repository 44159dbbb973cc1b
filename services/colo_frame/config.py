"""Options of `colo frame`."""

from dataclasses import dataclass

from colo_frame.drivers import DRIVERS
from colo_proto.config import DAY_MS, option
from colo_proto.messages import Mode

SIDES = ("primary", "secondary")
TRIGGER = ("manual", "auto")
FAILOVER = ("vote", *TRIGGER)
ON_LOSS = ("bypass", "hold")
ROLES = ("fixed", "change")


@dataclass(frozen=True, slots=True)
class FrameConfig:
    id: str = option("frame", kind="hidden", help="name of this frame")
    side: str = option("primary", choices=SIDES, help="the host that this frame speaks for")
    roles: str = option(
        "fixed",
        choices=ROLES,
        help="fixed: the primary leads for good; change: --side says who leads at the very beginning, the same on both",
    )
    listen: str = option("", kind="endpoint", help="control link of this host's processes")
    peer: str = option("", kind="endpoint", help="link to the other host's frame; empty: there is none")
    driver: str = option("flush", choices=tuple(DRIVERS), help="what a checkpoint does; flush: nothing is copied")
    mode: str = option(Mode.ENFORCE, choices=Mode.ALL, help="mode of compare until another is set")
    rules: str = option(
        "", kind="rules", help="rules of all compares of this host, before any of their own; SIGHUP reads it again"
    )
    workers: str = option("", help="ids of the compare workers of the first table, with commas; others join later")
    heartbeat_interval: int = option(500, unit="ms", least=10, most=60_000, help="time from one heartbeat to the next")
    heartbeat_missed: int = option(
        5, unit="intervals", least=2, most=1000, help="silence after which the other frame is lost"
    )
    failover: str = option(
        "vote",
        choices=FAILOVER,
        help="secondary: take over when the primary is silent on both ways, or when told to; vote: auto with --vote",
    )
    vote: bool = option(
        False, help="write to the client LAN only with a third vote (colo vote); the same on both sides"
    )
    on_loss: str = option(
        "bypass",
        choices=ON_LOSS,
        help="primary without a secondary: release everything, or hold it until there is one",
    )
    resync: str = option(
        "manual", choices=TRIGGER, help="primary: compare again when a lost secondary is back, or when told to"
    )
    pair: str = option("colo", help="name of the pair on the client LAN, the same on both sides; no secret")
    pair_secret: str = option(
        "",
        kind="path",
        help="the pair's secret (colo keygen --pair), one for both sides; needed with keys; SIGHUP reads it again",
    )
    on_change: str = option(
        "",
        help="command that is run at each change of leadership, with COLO_BEFORE, COLO_AFTER, ... in its environment",
    )
    on_change_timeout: int = option(
        30000, unit="ms", least=1, most=DAY_MS, help="how long that command may run before it is killed"
    )
    process_timeout: int = option(5000, unit="ms", least=100, most=DAY_MS, help="silence after which a process is lost")
    flush_timeout: int = option(
        2000, unit="ms", least=1, most=DAY_MS, help="how long a checkpoint waits for compare's answers"
    )
    checkpoint_interval: int = option(
        1000, unit="ms", least=0, most=DAY_MS, help="shortest time from one checkpoint to the next"
    )
    checkpoint_backoff: int = option(
        10000,
        unit="ms",
        least=0,
        most=DAY_MS,
        help="longest that a repeated cause waits for its next checkpoint; 0: it never waits",
    )

    @property
    def automatic(self) -> bool:
        """Whether a secondary takes over by itself."""
        return self.failover == "auto" or (self.failover == "vote" and self.vote)

    @property
    def changing(self) -> bool:
        """Whether roles change: which host leads is a state."""
        return self.roles == "change"

    def expected(self) -> tuple[str, ...]:
        """The ids in `workers`."""
        return tuple(dict.fromkeys(name.strip() for name in self.workers.split(",") if name.strip()))
