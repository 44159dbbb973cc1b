"""The one table of processes and links, and everything that is derived from it.

Three wirings share it. *Faithful* is QEMU's figure, with a redirector at each end. *Lean* connects the ports directly
and runs no process that is not needed. In these two a side is a role, and the pair lives through one failover.
*Symmetric* has the same processes on both hosts, wired for both roles. A side is a host there, and says only who leads
at the very beginning. The command lines are derived from `links`; the lab uses them, and the compose files are checked
against them. So is the table in ARCHITECTURE.md, by `tests/unit/proto/test_topology.py`::

    links(wiring, workers) --> plan(side, wiring, workers, site) --> [ProcessSpec(role, id, options)]

A port that several links share (`netdev` reads and writes one tap) has the same endpoint in each of them. There is no
I/O here; addresses and paths come from a `Site`. The bounds of queues are defined here as well, because they belong to
the links; the options of the processes have them as defaults.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from colo_proto.errors import ConfigError

Wiring = Literal["faithful", "lean", "symmetric"]
Side = Literal["primary", "secondary"]
WIRINGS: Final[tuple[Wiring, ...]] = ("faithful", "lean", "symmetric")
SIDES: Final[tuple[Side, ...]] = ("primary", "secondary")

TAP_LAN: Final = "lan"
TAP_GUEST: Final = "guest"

HWM_BATCHES: Final = 64
"""The high-water mark of ZeroMQ on each side of a link, in batches."""
PENDING_BYTES: Final = 8 * 1024 * 1024
"""Bytes that a sender keeps above the high-water mark. What does not fit is dropped, and counted with its reason."""
REPLAY_BYTES: Final = 64 * 1024 * 1024
"""Bytes in the replay ring of a reliable link."""
TAP_QUEUE: Final = 49152
"""Frames that the kernel keeps for a tap that nobody reads; netdev counts those that it drops. With hundreds of
connections frames are short (two or three segments), and all of them wait in the queue of the slowest filter."""
WINDOWS_BYTES: Final = 32 * 1024 * 1024
"""Bytes that all connections together may have under way in one direction, so that they fit into the queues above:
half of the replay ring, and in short frames two thirds of the queue of a tap."""

TCP_PORTS: Final[Mapping[str, int]] = {"mirror0": 9003, "compare1": 9004, "peer": 9005}
"""Default ports of the links between hosts; the first two are those in QEMU's document."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of one side."""

    role: str
    id: str
    side: Side


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: a process and its port, or a tap (`process` is empty, and `port` the name of the tap)."""

    process: str
    port: str
    side: Side

    @property
    def is_tap(self) -> bool:
        """True when this end is a tap of the kernel, not a port of a process."""
        return not self.process


@dataclass(frozen=True, slots=True)
class Link:
    """Which end sends to which, and over what."""

    name: str
    source: End
    target: End
    scheme: Literal["tap", "ipc", "tcp"]
    bound: Literal["source", "target", "-"] = "-"
    """The end that binds; the other one connects. A tap has no such end."""
    reliable: bool = False
    split: bool = False
    """The source distributes its frames over several such links, by flow."""
    leased: bool = False
    """Frames go to the client LAN here, and only while the COLO frame permits it."""
    optional: bool = False
    """Left out on a side that has no such tap."""


@dataclass(frozen=True, slots=True)
class Site:
    """What differs from one installation to the next, for one side.

    `directory` holds the Unix sockets. `bind` is the address on which links between hosts are bound here, `peer` the
    address of the other host. `taps` are the values for netdev's `--tap` by the name of the tap (`lan`, `guest`); the
    part of a value before the first comma is the name of the tap on this host. `extra` adds options by role or id.
    `users` is the user that each process runs as, by id or role, and for `@NAME` the user that offers the namespace
    NAME; netdev then gives each user only its own taps. Without `users` all processes have one user, and netdev cannot
    tell them apart.
    """

    directory: str
    bind: str
    peer: str
    taps: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=lambda: dict(TCP_PORTS))
    extra: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    users: Mapping[str, int] = field(default_factory=dict)
    vote: str = ""
    """The store of the third vote (`etcd://HOST:PORT,...`); empty: there is none, and no `vote` process."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process and its command line. The value of an option that is given several times (`--tap`) is a tuple."""

    role: str
    id: str
    side: Side
    options: dict[str, str | tuple[str, ...]]

    @property
    def argv(self) -> list[str]:
        """The arguments of `colo`: the subcommand and its options."""
        out = [self.role]
        for name, value in self.options.items():
            for one in (value,) if isinstance(value, str) else value:
                out += [f"--{name}", one]
        return out


def processes(wiring: Wiring, workers: int = 1, *, vote: bool = False) -> tuple[Process, ...]:
    """All processes of both sides. A lean primary has a redirector only for several workers, to split for them. `vote`:
    there is a third vote.
    """
    if wiring not in WIRINGS:
        raise ConfigError(f"wiring {wiring!r}: one of {', '.join(WIRINGS)}")
    if workers < 1:
        raise ConfigError(f"compare workers: at least 1, not {workers}")
    if wiring == "symmetric":
        return tuple(one for side in SIDES for one in _host(side, workers, vote=vote))
    faithful = wiring == "faithful"
    primary = [("netdev", "netdev-p"), ("frame", "frame-p")]
    secondary = [("netdev", "netdev-s"), ("frame", "frame-s")]
    if vote:
        primary.append(("vote", "vote-p"))
        secondary.append(("vote", "vote-s"))
    primary.append(("mirror", "m0"))
    if faithful or workers > 1:
        primary.append(("redirector", "redire1"))
    primary += [("compare", f"comp{i}") for i in range(workers)]
    if faithful:
        primary.append(("redirector", "redire0"))
        secondary += [("redirector", "f1"), ("redirector", "f2")]
    secondary.append(("rewriter", "rew0"))
    return (
        *(Process(role, name, "primary") for role, name in primary),
        *(Process(role, name, "secondary") for role, name in secondary),
    )


def _host(side: Side, workers: int, *, vote: bool) -> list[Process]:
    """The processes of a host in the symmetric wiring. Their ids are unique in the pair."""
    own = "" if side == "primary" else "-s"
    return [
        Process("netdev", f"netdev-{side[0]}", side),
        Process("frame", f"frame-{side[0]}", side),
        *([Process("vote", f"vote-{side[0]}", side)] if vote else []),
        Process("mirror", f"m0{own}", side),
        Process("rewriter", f"rew0{own}", side),
        *(Process("compare", f"comp{i}{own}", side) for i in range(workers)),
    ]


def links(wiring: Wiring, workers: int = 1, *, vote: bool = False) -> tuple[Link, ...]:
    """All links for frames and control, in the order in which a client's frame and its answer travel."""
    everybody = processes(wiring, workers, vote=vote)
    if wiring == "symmetric":
        out = _lead("primary", "secondary", everybody) + _lead("secondary", "primary", everybody)
    else:
        out = _one_way(everybody, faithful=wiring == "faithful")
    for one in everybody:
        # QEMU's `notify_dev` where QEMU has that property.
        port = "notify-dev" if one.role == "compare" else "frame"
        source, target = End(one.id, port, one.side), End(f"frame-{one.side[0]}", "listen", one.side)
        if one.role != "frame":
            out.append(Link("control", source, target, "ipc", "target"))
    out.append(Link("peer", End("frame-s", "peer", "secondary"), End("frame-p", "peer", "primary"), "tcp", "target"))
    return tuple(out)


def _one_way(everybody: tuple[Process, ...], *, faithful: bool) -> list[Link]:
    """The links for frames where the primary is one host for good, and a failover swaps ports of the secondary."""
    comps = [one.id for one in everybody if one.role == "compare"]

    def p(process: str, port: str) -> End:
        return End(process, port, "primary")

    def s(process: str, port: str) -> End:
        return End(process, port, "secondary")

    def split(name: str, source: End, port: str, scheme: Literal["ipc", "tcp"]) -> list[Link]:
        return [Link(name, source, p(comp, port), scheme, "source", split=True) for comp in comps]

    lan, lan_s, guest, guest_s = p("", TAP_LAN), s("", TAP_LAN), p("", TAP_GUEST), s("", TAP_GUEST)
    # The secondary's process that receives the mirrored frames, and the one that sends the answers of its guest.
    receiver, sender = ("f1", "f2") if faithful else ("rew0", "rew0")
    out = [Link("client tap", lan, p("m0", "netdev"), "tap"), Link("guest tap", p("m0", "next"), guest, "tap")]
    # To the secondary guest.
    out.append(Link("mirror0", p("m0", "outdev"), s(receiver, "indev"), "tcp", "source", reliable=True))
    if faithful:
        out.append(Link("red0", s("f1", "netdev"), s("rew0", "indev"), "ipc", "source", reliable=True))
    out.append(Link("secondary guest tap", s("rew0", "netdev"), guest_s, "tap"))
    out.append(Link("secondary guest tap", guest_s, s("rew0", "netdev"), "tap"))
    # Back to compare.
    if faithful:
        out.append(Link("red1", s("rew0", "outdev"), s("f2", "netdev"), "ipc", "target"))
    out += split("compare1", s(sender, "outdev"), "secondary-in", "tcp")
    if any(one.id == "redire1" for one in everybody):
        out.append(Link("primary guest tap", guest, p("redire1", "netdev"), "tap"))
        out += split("compare0", p("redire1", "outdev"), "primary-in", "ipc")
    else:
        out += [Link("primary guest tap", guest, p(comp, "primary-in"), "tap") for comp in comps]
    # To the client.
    if faithful:
        outputs, target = [p(comp, "outdev") for comp in comps], p("redire0", "indev")
        out += [Link("compare_out", source, target, "ipc", "target") for source in outputs]
        out.append(Link("client tap", p("redire0", "netdev"), lan, "tap", leased=True))
    else:
        out += [Link("client tap", p(comp, "outdev"), lan, "tap", leased=True) for comp in comps]
    # From the secondary to the client after a failover; and the claims that the COLO frames send there until then.
    out += [
        Link("standby tap", lan_s, s(receiver, "standby"), "tap", leased=not faithful, optional=True),
        Link("standby tap", s(sender, "standby"), lan_s, "tap", leased=True, optional=True),
        Link("claims", p("m0", "claims"), lan, "tap"),
        Link("claims", s(receiver, "claims"), lan_s, "tap", optional=True),
    ]
    return out


def _lead(here: Side, there: Side, everybody: tuple[Process, ...]) -> list[Link]:
    """The links for frames that are in use while the host `here` leads, in the symmetric wiring.

    The mirror and the rewriter of either host are told which host leads. The rewriter uses its ports `lead-in` and
    `lead-out` while its own does, and `indev` and `outdev` while the other one does.
    """

    def end(role: str, port: str, side: Side) -> End:
        return End(next(one.id for one in everybody if (one.role, one.side) == (role, side)), port, side)

    def split(name: str, source: End, port: str, scheme: Literal["ipc", "tcp"]) -> list[Link]:
        return [Link(name, source, End(comp, port, here), scheme, "source", split=True) for comp in comps]

    comps = [one.id for one in everybody if one.role == "compare" and one.side == here]
    lan, guest = End("", TAP_LAN, here), End("", TAP_GUEST, here)
    return [
        Link("client tap", lan, end("mirror", "netdev", here), "tap"),
        Link("lead0", end("mirror", "next", here), end("rewriter", "lead-in", here), "ipc", "source"),
        Link("mirror0", end("mirror", "outdev", here), end("rewriter", "indev", there), "tcp", "source", reliable=True),
        Link("guest tap", end("rewriter", "netdev", here), guest, "tap"),
        Link("guest tap", guest, end("rewriter", "netdev", here), "tap"),
        *split("compare0", end("rewriter", "lead-out", here), "primary-in", "ipc"),
        *split("compare1", end("rewriter", "outdev", there), "secondary-in", "tcp"),
        *(Link("client tap", End(comp, "outdev", here), lan, "tap", leased=True) for comp in comps),
        Link("claims", end("mirror", "claims", here), lan, "tap"),
    ]


def plan(side: Side, wiring: Wiring, workers: int, site: Site) -> list[ProcessSpec]:
    """The processes of one side with their options, netdev and the COLO frame first.

    They may be started in any order; in this order the taps exist before a process asks for them.
    """
    ports: dict[str, dict[str, str]] = {}
    vote = bool(site.vote)
    for link in links(wiring, workers, vote=vote):
        for end, other in ((link.source, link.target), (link.target, link.source)):
            if end.is_tap or end.side != side or (link.optional and TAP_LAN not in site.taps):
                continue
            name = other.port if other.is_tap else link.name
            endpoint = _endpoint(link, end, name, site)
            had = ports.setdefault(end.process, {}).setdefault(end.port, endpoint)
            if had != endpoint:
                raise AssertionError(f"{end.process}.{end.port} would be both {had} and {endpoint}")
    out = []
    for process in processes(wiring, workers, vote=vote):
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
            if wiring == "symmetric":
                options["roles"] = "change"
            comps = [p.id for p in processes(wiring, workers) if (p.role, p.side) == ("compare", side)]
            if comps:
                # So that the worker table is complete before the first frame arrives.
                options["workers"] = ",".join(comps)
            if vote:
                options["vote"] = "on"
        elif process.role == "vote":
            options["store"] = site.vote
        elif process.role == "mirror" and wiring == "symmetric":
            options["roles"] = "change"
        options.update(ports.get(process.id, {}))
        options.update(site.extra.get(process.role, {}))
        options.update(site.extra.get(process.id, {}))
        out.append(ProcessSpec(process.role, process.id, side, options))
    return out


def taps_of(side: Side, wiring: Wiring, workers: int = 1) -> dict[str, dict[str, bool]]:
    """By process, the taps that netdev gives it; True for a tap that the process only writes to, with a lease."""
    found: dict[str, dict[str, bool]] = {}
    for link in links(wiring, workers):
        for tap, end in ((link.source, link.target), (link.target, link.source)):
            if tap.is_tap and tap.side == side:
                taps = found.setdefault(end.process, {})
                taps[tap.port] = link.leased and taps.get(tap.port, True)
    return found


def allow(side: Side, wiring: Wiring, workers: int, site: Site) -> tuple[str, ...]:
    """The values of netdev's `--allow`: each user has the taps of its processes, and offers its namespaces."""
    users: dict[int, dict[str, bool]] = {}
    for process, taps in taps_of(side, wiring, workers).items():
        role = next(one.role for one in processes(wiring, workers) if one.id == process)
        user = site.users.get(process, site.users.get(role))
        if user is None:
            raise ConfigError(f"process {process}: there is no user for it")
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
    """The path of the Unix socket on which the netdev of a side passes descriptors."""
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
