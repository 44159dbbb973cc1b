"""The one table of processes and links, and what follows from it.

Two wirings share it. *Faithful* draws QEMU's figure: a redirector at each end. *Lean* joins the
ports directly and runs no process that is not needed. Everything that says who is joined to whom
is derived from `links`: the command lines of `plan` (used by the lab, checked against the compose
files) and the tables of `markdown` (checked against the documents)::

    links(wiring, workers) --> plan(side, wiring, workers, site) --> [ProcessSpec(role, id, options)]
            |
            +----------------> markdown() --> ARCHITECTURE.md

A port that several links share (`netdev` reads and writes one tap) has the same endpoint in each.
No I/O here; addresses and paths come in with a `Site`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from colo_proto.errors import ConfigError

Wiring = Literal["faithful", "lean"]
Side = Literal["primary", "secondary"]
WIRINGS: Final[tuple[Wiring, ...]] = ("faithful", "lean")
SIDES: Final[tuple[Side, ...]] = ("primary", "secondary")

TAP_LAN: Final = "lan"
TAP_GUEST: Final = "guest"

HWM_BATCHES: Final = 64
"""ZeroMQ high-water mark of a link, in batches, on each side."""
PENDING_BYTES: Final = 8 * 1024 * 1024
"""Above the high-water mark a sender keeps at most this much, then drops with a counted reason."""
REPLAY_BYTES: Final = 64 * 1024 * 1024
"""Replay ring of a reliable link."""
TAP_QUEUE: Final = 49152
"""Frames the kernel keeps for a tap that nobody reads; netdev counts what it drops. With hundreds of connections
frames are short (two or three segments), and all that is under way stands in the queue of the slowest filter."""

TCP_PORTS: Final[Mapping[str, int]] = {"mirror0": 9003, "compare1": 9004, "peer": 9005}
"""Default ports of the links that cross hosts; the first two are those of QEMU's document."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of one side. `many` marks the one that is scaled out (`compare`)."""

    role: str
    id: str
    side: Side
    many: bool = False
    stands_for: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: a process and its port, or a tap (`process` empty, `port` the tap's name)."""

    process: str
    port: str
    side: Side

    @property
    def is_tap(self) -> bool:
        """True when this end is the kernel's, not a process's."""
        return not self.process


@dataclass(frozen=True, slots=True)
class Link:
    """Who sends to whom, over what, and what happens when it is full."""

    name: str
    source: End
    target: End
    scheme: Literal["tap", "ipc", "tcp"]
    bound: Literal["source", "target", "-"] = "-"
    """Which end binds; the other connects. A tap has none."""
    pattern: str = "one to one"
    sockets: str = "DEALER, DEALER"
    reliable: bool = False
    split: bool = False
    leased: bool = False
    """Written to only while the frame permits it: a way to the client LAN."""
    optional: bool = False
    """Left out where a side has no such tap."""

    @property
    def cross_host(self) -> bool:
        """True when the two ends are on different hosts."""
        return self.source.side != self.target.side

    @property
    def bound_text(self) -> str:
        """The bound, in batches and bytes."""
        if self.scheme == "tap":
            return f"{TAP_QUEUE} frames in the kernel"
        if self.name in ("control", "peer"):
            return f"{HWM_BATCHES} messages"
        text = f"{HWM_BATCHES} batches, then {PENDING_BYTES >> 20} MiB"
        return text + (f", replay {REPLAY_BYTES >> 20} MiB" if self.reliable else "")

    @property
    def at_bound(self) -> str:
        """What happens at the bound."""
        if self.scheme == "tap":
            return "the kernel drops (`tap_dropped`): loss on a wire"
        if self.name in ("control", "peer"):
            return "dropped and said again a second later"
        if self.reliable:
            return "oldest leave the ring; a gap demands a checkpoint"
        return "dropped, counted `queue_full`; the guest retransmits"


@dataclass(frozen=True, slots=True)
class Site:
    """What differs from one installation to the next, for one side.

    `directory` holds the Unix sockets; `bind` is the address that cross-host links bind on here,
    `peer` the other host's. `taps` gives netdev's `--tap` values by tap name (`lan`, `guest`);
    their part before the first comma is the tap's own name. `extra` adds options by role. `users` says
    whom each process runs as, by id or role, and by `@NAME` who offers the namespace NAME; netdev then gives
    each its own taps alone. Without it they are one user, and netdev cannot tell them apart.
    """

    directory: str
    bind: str
    peer: str
    taps: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=lambda: dict(TCP_PORTS))
    extra: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    users: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process with its command line. An option may be given several times (`--tap`)."""

    role: str
    id: str
    side: Side
    options: dict[str, str | tuple[str, ...]]

    @property
    def argv(self) -> list[str]:
        """Arguments behind `colo`: the sub-command and its options."""
        out = [self.role]
        for name, value in self.options.items():
            for one in (value,) if isinstance(value, str) else value:
                out += [f"--{name}", one]
        return out


def processes(wiring: Wiring, workers: int = 1) -> tuple[Process, ...]:
    """All processes of both sides. A lean primary splits only when there is somebody to split for."""
    if wiring not in WIRINGS:
        raise ConfigError(f"wiring {wiring!r}: one of {', '.join(WIRINGS)}")
    if workers < 1:
        raise ConfigError(f"compare workers: at least 1, not {workers}")
    faithful = wiring == "faithful"
    out = [
        Process("netdev", "netdev-p", "primary", stands_for="-netdev tap"),
        Process("frame", "frame-p", "primary", stands_for="the COLO frame"),
        Process("mirror", "m0", "primary", stands_for="filter-mirror"),
    ]
    if faithful or workers > 1:
        out.append(Process("redirector", "redire1", "primary", stands_for="filter-redirector"))
    out += [Process("compare", f"comp{i}", "primary", many=True, stands_for="colo-compare") for i in range(workers)]
    if faithful:
        out.append(Process("redirector", "redire0", "primary", stands_for="filter-redirector"))
    out += [
        Process("netdev", "netdev-s", "secondary", stands_for="-netdev tap"),
        Process("frame", "frame-s", "secondary", stands_for="the COLO frame"),
    ]
    if faithful:
        out += [
            Process("redirector", "f1", "secondary", stands_for="filter-redirector"),
            Process("redirector", "f2", "secondary", stands_for="filter-redirector"),
        ]
    out.append(Process("rewriter", "rew0", "secondary", stands_for="filter-rewriter"))
    return tuple(out)


def links(wiring: Wiring, workers: int = 1) -> tuple[Link, ...]:
    """All frame and control links, in the order a client's frame and its answer travel."""
    present = {p.id for p in processes(wiring, workers)}
    faithful = wiring == "faithful"
    comps = [p.id for p in processes(wiring, workers) if p.many]
    p: Side = "primary"
    s: Side = "secondary"
    lan, guest_p, guest_s = End("", TAP_LAN, p), End("", TAP_GUEST, p), End("", TAP_GUEST, s)
    out = [
        Link("client tap", lan, End("m0", "netdev", p), "tap"),
        Link("guest tap", End("m0", "next", p), guest_p, "tap"),
    ]
    # Towards the secondary guest.
    mirror_to = End("f1", "indev", s) if faithful else End("rew0", "indev", s)
    out.append(Link("mirror0", End("m0", "outdev", p), mirror_to, "tcp", "source", reliable=True))
    if faithful:
        out.append(Link("red0", End("f1", "netdev", s), End("rew0", "indev", s), "ipc", "source", reliable=True))
    out += [
        Link("secondary guest tap", End("rew0", "netdev", s), guest_s, "tap"),
        Link("secondary guest tap", guest_s, End("rew0", "netdev", s), "tap"),
    ]
    # Back to compare.
    if faithful:
        out.append(Link("red1", End("rew0", "outdev", s), End("f2", "netdev", s), "ipc", "target"))
    from_secondary = End("f2", "outdev", s) if faithful else End("rew0", "outdev", s)
    split = {"pattern": "split by flow", "sockets": "ROUTER, DEALER", "split": True}
    out += [
        Link("compare1", from_secondary, End(comp, "secondary-in", p), "tcp", "source", **split)  # type: ignore[arg-type]
        for comp in comps
    ]
    if "redire1" in present:
        out.append(Link("primary guest tap", guest_p, End("redire1", "netdev", p), "tap"))
        out += [
            Link("compare0", End("redire1", "outdev", p), End(comp, "primary-in", p), "ipc", "source", **split)  # type: ignore[arg-type]
            for comp in comps
        ]
    else:
        out += [Link("primary guest tap", guest_p, End(comp, "primary-in", p), "tap") for comp in comps]
    # To the client.
    if faithful:
        out += [
            Link("compare_out", End(comp, "outdev", p), End("redire0", "indev", p), "ipc", "target", "many to one")
            for comp in comps
        ]
        out.append(Link("client tap", End("redire0", "netdev", p), lan, "tap", leased=True))
    else:
        out += [Link("client tap", End(comp, "outdev", p), lan, "tap", leased=True) for comp in comps]
    # The secondary's own way to the client, after a failover; and what the frames say there meanwhile.
    lan_s = End("", TAP_LAN, s)
    ear = "f1" if faithful else "rew0"
    if faithful:
        out += [
            Link("standby tap", lan_s, End("f1", "standby", s), "tap", optional=True),
            Link("standby tap", End("f2", "standby", s), lan_s, "tap", leased=True, optional=True),
        ]
    else:
        out += [
            Link("standby tap", lan_s, End("rew0", "standby", s), "tap", leased=True, optional=True),
            Link("standby tap", End("rew0", "standby", s), lan_s, "tap", leased=True, optional=True),
        ]
    out += [
        Link("claims", End("m0", "claims", p), lan, "tap"),
        Link("claims", End(ear, "claims", s), lan_s, "tap", optional=True),
    ]
    out += [
        Link(
            "control",
            End(one.id, control_port(one.role), one.side),
            End(f"frame-{one.side[0]}", "listen", one.side),
            "ipc",
            "target",
            "many to one",
            "DEALER, ROUTER",
        )
        for one in processes(wiring, workers)
        if one.role != "frame"
    ]
    out.append(Link("peer", End("frame-s", "peer", s), End("frame-p", "peer", p), "tcp", "target"))
    return tuple(out)


def control_port(role: str) -> str:
    """The option that names the control link: QEMU's `notify_dev` where QEMU has it."""
    return "notify-dev" if role == "compare" else "frame"


def plan(side: Side, wiring: Wiring, workers: int, site: Site) -> list[ProcessSpec]:
    """The processes of one side with their options, netdev and the frame first.

    Start order does not matter; this one is merely quick (taps exist before somebody asks).
    """
    ports: dict[str, dict[str, str]] = {}
    for link in links(wiring, workers):
        for end, other in ((link.source, link.target), (link.target, link.source)):
            if end.is_tap or end.side != side or (link.optional and TAP_LAN not in site.taps):
                continue
            name = other.port if other.is_tap else link.name
            endpoint = _endpoint(link, end, name, site)
            had = ports.setdefault(end.process, {}).setdefault(end.port, endpoint)
            if had != endpoint:
                raise AssertionError(f"{end.process}.{end.port} would be both {had} and {endpoint}")
    out = []
    for process in processes(wiring, workers):
        if process.side != side:
            continue
        options: dict[str, str | tuple[str, ...]] = {"id": process.id}
        if process.role == "netdev":
            options["listen"] = netdev_socket(site)
            options["tap"] = tuple(site.taps.values())
            if site.users:
                options["allow"] = allow(side, wiring, workers, site)
        elif process.role == "frame":
            options["side"] = side
            if side == "primary":
                # So that the table of workers is whole before the first frame comes.
                options["workers"] = ",".join(p.id for p in processes(wiring, workers) if p.many)
        options.update(ports.get(process.id, {}))
        options.update(site.extra.get(process.role, {}))
        options.update(site.extra.get(process.id, {}))
        out.append(ProcessSpec(process.role, process.id, side, options))
    return out


def taps_of(side: Side, wiring: Wiring, workers: int = 1) -> dict[str, dict[str, bool]]:
    """By process, the taps that netdev gives it; True for one that it only writes to, and with a lease only."""
    found: dict[str, dict[str, bool]] = {}
    for link in links(wiring, workers):
        for tap, end in ((link.source, link.target), (link.target, link.source)):
            if tap.is_tap and tap.side == side:
                taps = found.setdefault(end.process, {})
                taps[tap.port] = link.leased and taps.get(tap.port, True)
    return found


def allow(side: Side, wiring: Wiring, workers: int, site: Site) -> tuple[str, ...]:
    """For netdev: each user has the taps of its processes, and offers the namespaces that it holds."""
    users: dict[int, dict[str, bool]] = {}
    for process, taps in taps_of(side, wiring, workers).items():
        role = next(one.role for one in processes(wiring, workers) if one.id == process)
        user = site.users.get(process, site.users.get(role))
        if user is None:
            raise ConfigError(f"process {process}: no user is named for it")
        had = users.setdefault(user, {})
        for tap, leased in taps.items():
            if tap in site.taps:
                name = site.taps[tap].partition(",")[0]
                had[name] = leased and had.get(name, True)
    out = []
    for user, rights in users.items():
        for lease, words in ((False, ""), (True, ",lease=on")):
            names = [name for name, leased in rights.items() if leased == lease]
            if names:
                out.append(f"user={user},tap={'+'.join(names)}{words}")
    return (*out, *(f"user={user},netns={name[1:]}" for name, user in site.users.items() if name.startswith("@")))


def netdev_socket(site: Site) -> str:
    """Path of the Unix socket on which a side's netdev hands out descriptors."""
    return f"{site.directory}/netdev.sock"


def _endpoint(link: Link, end: End, name: str, site: Site) -> str:
    if link.scheme == "tap":
        lease = "&lease=on" if link.leased else ""
        return f"tap://{site.taps[name].partition(',')[0]}?netdev={netdev_socket(site)}{lease}"
    binds = (link.bound == "source") == (end == link.source)
    if link.scheme == "ipc":
        address = f"ipc://{site.directory}/{link.name}.sock"
    else:
        address = f"tcp://{site.bind if binds else site.peer}:{site.ports[link.name]}"
    options = ["server=on"] if binds else []
    if link.split and end == link.source:
        options.append("split=on")
    if link.reliable:
        options.append("reliable=on")
    return address + ("?" + "&".join(options) if options else "")


def markdown(wiring: Wiring, workers: int = 1) -> str:
    """The table of links of one wiring, for the documents. Workers beyond the first look like it."""
    rows = ["| link | from | to | over | bound by | pattern | at most | then |", "|---|---|---|---|---|---|---|---|"]
    seen = set()
    for link in links(wiring, workers):
        if link.name == "control":
            if link.name in seen:
                continue
            source, target = "every process `frame` (compare: `notify-dev`)", "frame `listen`"
        else:
            source, target = _end_text(link.source), _end_text(link.target)
        key = (link.name, source, target)
        if key in seen:
            continue
        seen |= {key, link.name}
        over = link.scheme + (", cross-host" if link.cross_host else "") + (", reliable" if link.reliable else "")
        over += ", leased" if link.leased else ""
        binder = {"source": source, "target": target, "-": "-"}[link.bound].split(" `")[0]
        pattern = "-" if link.scheme == "tap" else f"{link.pattern} ({link.sockets})"
        cells = (link.name, source, target, over, binder, pattern, link.bound_text, link.at_bound)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _end_text(end: End) -> str:
    if end.is_tap:
        return f"tap `{end.port}` ({end.side})"
    name = "comp*" if end.process.startswith("comp") else end.process
    return f"{name} `{end.port}`"
