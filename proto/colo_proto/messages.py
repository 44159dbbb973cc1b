"""Control messages: what filters and the COLO frame send to each other.

They travel on the control link between a process and the COLO frame of its host, and between the two frames, never
directly between filters. Each is a frozen dataclass; `codec` encodes it, with the names that the class and its fields
have here, so nothing is renamed. The wire format only grows: a new field has a default, the name of a removed field is
never used again, and an unknown message is ignored.

======================  ==================  ===============================================================
message                 direction           meaning
======================  ==================  ===============================================================
`Hello`                 process -> frame    I am here (repeated until welcomed, and after a restart of the frame)
`Report`                process -> frame    counters and status, about once a second and when asked
`CheckpointWanted`      compare -> frame    the replicas differ, or may differ: a checkpoint is needed
`Flushed`               compare -> frame    the queues of the checkpoint were released or dropped
`Welcome`               frame -> process    current epoch, mode, worker table version
`CheckpointDone`        frame -> process    the checkpoint is complete; was guest state copied?
`SetMode`               frame -> process    enforce, shadow or bypass
`Unprotected`           compare -> rewriter through both frames: which connections a failover cannot continue
`SetRules`              frame -> compare    rules for chosen flows; compare -> a restarted frame: its previous rules
`WorkerTable`           frame -> process    which compare worker has which slots of flows
`Leaving`               compare -> frame    it was asked to stop: its slots must move first
`Handover`              compare -> compare  through the frame: a part of the flows whose slots moved
`HandoverTaken`         compare -> compare  through the frame: the part has arrived, send the next one
`Settled`               compare -> frame    it has sent and received all flows that a new table moved
`Drain`                 frame -> process    stop reading frames, and end
`Query`, `Answer`       anyone <-> frame    `colo status` and the lab ask for all that is known
`Heartbeat`             frame <-> frame     alive, in this role, at this epoch; the worker table for the peer
`Promote`               frame -> process    take the client LAN over, with this fencing token
`Demote`                frame -> process    return to standby: the other side has the client LAN
`Lease`                 frame -> process    permission to write to the client LAN, and until when
`Yielded`               process -> frame    it has heard that the permission ended, and does not write any more
`LanAsk`                rewriter -> mirror  through both frames: ask the LAN for a neighbour of the secondary guest
`LanSay`                frame -> process    send this claim on the client LAN (for a process with a `claims` port)
`LanSaid`               process -> frame    the claim was sent
`LanHeard`              process -> frame    a frame of our EtherType has arrived from the client LAN
======================  ==================  ===============================================================
"""

import re
from dataclasses import dataclass, field, fields
from typing import Any, Final, get_args

MAX_KEYS: Final = 4096
"""Keys of flows in one message."""
MAX_KEY: Final = 64
"""Bytes of the key of a flow: a protocol, two IPv6 addresses, two ports and two VLAN tags take 41."""
MAX_ASK: Final = 256
"""Bytes of the largest `LanAsk.frame`."""
JOINING: Final = 30.0
"""Seconds after a resync in which a new connection may be an old one that the mirror link replays. In this time a
rewriter takes it for unprotected until compare says that it has seen it begin (`Unprotected.kept`)."""


class Mode:
    """Values of `SetMode.mode` (`docs/design.md`, "Modes")."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    BYPASS = "bypass"
    ALL = (ENFORCE, SHADOW, BYPASS)


class Reason:
    """Why a checkpoint is demanded: the values of `CheckpointWanted.reason`, and labels of counters."""

    PAYLOAD = "payload"
    """Bytes differ at the same place of a TCP stream."""
    FIN = "fin"
    """One side has ended its stream at a place where the other has data."""
    OPTIONS = "options"
    """Options of the two SYNs differ that must be equal."""
    DATAGRAM = "datagram"
    """No datagram of the secondary equals one of the primary, although other datagrams came."""
    TIMEOUT = "timeout"
    """A frame of the primary has waited longer than compare_timeout."""
    QUEUE_FULL = "queue_full"
    """A bound on held frames or bytes was reached."""
    MIRROR_GAP = "mirror_gap"
    """The secondary has missed client frames that cannot be replayed any more."""
    REPEATED = "repeated"
    """A request is repeated because nobody has answered it."""
    WORKER_LOST = "worker_lost"
    RESCALE = "rescale"
    """A compare worker has joined or left: its slots move at a checkpoint, when no frame is held."""
    RESYNC = "resync"
    REQUEST = "request"
    """An operator has asked for it."""


@dataclass(frozen=True, slots=True)
class Hello:
    role: str
    id: str
    incarnation: int
    """A random 63-bit number that identifies this start of the process."""
    pid: int = 0
    http: str = ""
    """HOST:PORT of its /metrics; empty when it serves none."""
    mode: str = ""
    """Of compare: its present mode."""
    fence: int = 0
    """The highest fencing token that it was told; a restarted frame learns the token from here."""
    promoted: bool = False
    leased: bool = False
    """True while it has a permission to write to the client LAN."""
    frame: int = 0
    """Incarnation of the frame that welcomed it last, 0 when none has: by this a frame knows that it was restarted."""


@dataclass(frozen=True, slots=True)
class Welcome:
    epoch: int
    mode: str = Mode.ENFORCE
    incarnation: int = 0
    """Of the frame: a change means that it was restarted and needs a `Hello` again."""


@dataclass(frozen=True, slots=True)
class Report:
    role: str
    id: str
    incarnation: int
    counters: dict[str, int]
    gauges: dict[str, int]
    status: dict[str, Any] = field(default_factory=dict)
    pid: int = 0


@dataclass(frozen=True, slots=True)
class CheckpointWanted:
    reason: str
    flow: str = ""
    """`colo_proto.net.flow.describe` of the flow; empty when the reason is not a single flow."""
    offset: int | None = None
    """TCP: offset of the first byte that differs in the stream of the guest (0 is the first byte after the SYN); other
    protocols: index of the packet in its flow."""
    detail: dict[str, Any] = field(default_factory=dict)
    """For people: `primary` and `secondary` (the bytes around the place, in hexadecimal), `context` (how many of these
    bytes stand before it), `age_ms`, `held`, …"""
    epoch: int = 0
    source: str = ""
    """Id of the process that demands it."""


@dataclass(frozen=True, slots=True)
class CheckpointDone:
    epoch: int
    state_copied: bool


@dataclass(frozen=True, slots=True)
class Flushed:
    epoch: int
    id: str
    released: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class SetMode:
    mode: str
    """A rewriter gets `shadow` also when a rule releases some flows at once."""
    resync: bool = False
    """The secondary is a new one, or has missed frames, and received no state: connections that are already open stay
    unprotected until they close."""


@dataclass(frozen=True, slots=True)
class Unprotected:
    """Which TCP connections a failover cannot continue, because their state in the secondary guest is not what their
    clients have seen.

    Keys are those of compare's flows (`colo_proto.net.flow`), at most `MAX_KEYS` in each message. Messages of a source
    are numbered, so a rewriter notices when one is missing; then compare tells everything `again`. What was said stays
    true until a connection ends, `kept` revokes it, or a checkpoint copies state.
    """

    source: str
    """The id of the compare, or that of the COLO frame for `everything`."""
    version: int
    again: bool = False
    """The first message of everything that the source knows."""
    lost: list[bytes] = field(default_factory=list)
    """Connections that are unprotected."""
    doubtful: list[bytes] = field(default_factory=list)
    """Connections that wait for a checkpoint: they are lost when one is done that copies no state."""
    kept: list[bytes] = field(default_factory=list)
    """Connections that are compared from their beginning: they are not lost, whatever was said before."""
    everything: bool = False
    """All connections that are open now are lost, because the secondary is another one (resync)."""


@dataclass(frozen=True, slots=True)
class SetRules:
    rules: str
    """The text of a file (`colo_proto.rules`)."""


@dataclass(frozen=True, slots=True)
class WorkerTable:
    version: int
    workers: list[str]
    """Ids of the compare workers (their ZeroMQ routing ids)."""
    slots: list[int] = field(default_factory=list)
    """For each of the 1,024 slots the index of its worker in `workers`."""
    sources: list[str] = field(default_factory=list)
    """The workers whose flows move with this table."""
    moved: list[int] = field(default_factory=list)
    """For each slot 1 + the index in `sources` of the worker that hands its flows over, or 0; empty: no slot moves."""


@dataclass(frozen=True, slots=True)
class Leaving:
    id: str


@dataclass(frozen=True, slots=True)
class Handover:
    version: int
    """Version of the table that moved the slots."""
    source: str
    target: str
    part: int
    last: bool
    data: bytes
    """A part of what `colo_compare.handover.state` packs; all parts are joined in order."""


@dataclass(frozen=True, slots=True)
class HandoverTaken:
    version: int
    source: str
    target: str
    part: int


@dataclass(frozen=True, slots=True)
class Settled:
    id: str
    version: int


@dataclass(frozen=True, slots=True)
class Drain:
    pass


@dataclass(frozen=True, slots=True)
class Query:
    what: str = "status"
    """`status`, `checkpoint`, `mode`, `rules`, `failover` or `resync`; the frame answers each with an `Answer`."""
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    ok: bool
    body: dict[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    role: str
    """`primary` or `secondary`: the side that sends it."""
    incarnation: int
    count: int
    epoch: int
    fence: int = 0
    """The highest fencing token that this side has seen."""
    mode: str = Mode.ENFORCE
    table: dict[str, Any] | None = None
    """The worker table of the primary (the fields of `WorkerTable`), for the splitters of the secondary."""
    body: dict[str, Any] = field(default_factory=dict)
    """A summary of this side for `colo status`."""
    state: str = ""
    """The state of this side on the client LAN, for people; only `claim` is used for decisions."""
    ask: bool = False
    lease_ms: int = 0
    echo_of: int = 0
    echo: int = 0
    """These four were used before there was `claim`, and are ignored now."""
    claim: bytes = b""
    """The claim that is also sent on the client LAN (`colo_proto.claim`): sealed, with a proof that it is new."""


@dataclass(frozen=True, slots=True)
class Promote:
    fence: int
    side: str = "secondary"
    replica: bool = True
    """False: this side was ordered to take over although its guest is no replica, so no connection can go on."""


@dataclass(frozen=True, slots=True)
class Demote:
    fence: int


@dataclass(frozen=True, slots=True)
class Lease:
    until: float
    """Monotonic seconds of this host (all its processes share that clock); 0: stop now. A permission that a stopped
    process finds in its queue later has ended by then."""
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Yielded:
    fence: int = 0


@dataclass(frozen=True, slots=True)
class LanSay:
    frame: bytes
    count: int = 0
    """The number of the claim in the frame."""
    gates: list[bytes] = field(default_factory=list)
    """Keys that tell claims of the pair from other frames (`colo_proto.claim.Keys.gate`)."""


@dataclass(frozen=True, slots=True)
class LanSaid:
    count: int = 0


@dataclass(frozen=True, slots=True)
class LanAsk:
    frame: bytes
    """A request of the secondary guest (ARP, neighbour solicitation) that its rewriter cannot answer. The primary guest
    has the same addresses, so the mirror may send it as it is, and the answer reaches both guests."""
    until: float = 0.0
    """Monotonic seconds of the mirror's host: the primary's COLO frame lets it write to the client LAN until then."""


@dataclass(frozen=True, slots=True)
class LanHeard:
    frame: bytes


Message = (
    Hello | Welcome | Report | CheckpointWanted | CheckpointDone | Flushed | SetMode | Unprotected | SetRules
    | WorkerTable | Leaving | Handover | HandoverTaken | Settled | Drain | Query | Answer | Heartbeat | Promote
    | Demote | Lease | Yielded | LanSay | LanSaid | LanAsk | LanHeard
)  # fmt: skip

NAMES: dict[type[Any], str] = {cls: re.sub("(?<!^)(?=[A-Z])", "_", cls.__name__).lower() for cls in get_args(Message)}
"""The name of each message on the wire, which is that of its class: `set_mode` for `SetMode`."""
TYPES: dict[str, type[Any]] = {name: cls for cls, name in NAMES.items()}


def to_dict(message: Message) -> dict[str, Any]:
    """The fields of a message by name. The values are not copied: msgpack can pack them as they are."""
    return {f.name: getattr(message, f.name) for f in fields(message)}
