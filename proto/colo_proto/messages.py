"""Control messages: what filters and the COLO frame say to each other.

They travel on the control link between a process and its host's `frame` (and between the two
frames), never between filters. Each is a frozen dataclass; `codec` gives it bytes. The wire form is
append-only: a new field gets a default, a field is never reused, an unknown message is ignored.

======================  ==================  ===============================================================
message                 direction           meaning
======================  ==================  ===============================================================
`Hello`                 process -> frame    I am here (repeated until welcomed, and after a frame restart)
`Report`                process -> frame    counters and status, about once a second and when asked
`CheckpointWanted`      compare -> frame    the replicas differ, or may differ: bring them together
`Flushed`               compare -> frame    the checkpoint's queues are dealt with
`Welcome`               frame -> process    current epoch, mode, worker table version
`CheckpointDone`        frame -> process    the checkpoint is over; was guest state copied?
`SetMode`               frame -> process    enforce, shadow or bypass
`SetRules`              frame -> compare    rules for chosen flows; compare -> a restarted frame: what was said before
`WorkerTable`           frame -> process    which compare worker has which slots
`Leaving`               compare -> frame    it is to stop: its slots shall move first
`Handover`              compare -> compare  through the frame: a piece of the flows whose slots moved
`HandoverTaken`         compare -> compare  through the frame: the piece has arrived, the next one please
`Settled`               compare -> frame    it has given and taken what a new table moved
`Drain`                 frame -> process    stop taking frames and leave
`Query`, `Answer`       anyone <-> frame    `colo status` and the lab ask for everything known
`Heartbeat`             frame <-> frame     alive, in this role, at this epoch; worker table for the peer
`Promote`               frame -> process    take the client LAN over, with this fencing token
`Demote`                frame -> process    back to standby: the other side has the client LAN
`Lease`                 frame -> process    permission to write to the client LAN, until when
`Yielded`               process -> frame    heard that the permission is over, and writes no more
`LanSay`                frame -> process    put this claim on the client LAN (whoever has a `claims` port)
`LanSaid`               process -> frame    it is out
`LanHeard`              process -> frame    a frame of our EtherType came from the client LAN
======================  ==================  ===============================================================
"""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


class Mode:
    """Values of `SetMode.mode` (`docs/design.md`, "Modes")."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    BYPASS = "bypass"
    ALL = (ENFORCE, SHADOW, BYPASS)


class Reason:
    """Why a checkpoint is wanted: values of `CheckpointWanted.reason` and counter labels."""

    PAYLOAD = "payload"
    """Bytes differ at the same place of a TCP stream."""
    FIN = "fin"
    """One side ended its stream where the other has data."""
    OPTIONS = "options"
    """SYN options that must agree do not."""
    DATAGRAM = "datagram"
    """A datagram of the primary has no equal on the secondary, though others came."""
    TIMEOUT = "timeout"
    """A primary frame waited longer than compare_timeout."""
    QUEUE_FULL = "queue_full"
    """A bound on held frames or bytes was reached."""
    MIRROR_GAP = "mirror_gap"
    """The secondary missed client frames that can no longer be replayed."""
    REPEATED = "repeated"
    """A request that nobody has answered, again."""
    WORKER_LOST = "worker_lost"
    RESCALE = "rescale"
    """A compare worker joined or left: its slots move where a checkpoint leaves nothing held."""
    RESYNC = "resync"
    REQUEST = "request"
    """An operator asked."""


@dataclass(frozen=True, slots=True)
class Hello:
    TYPE: ClassVar[str] = "hello"
    role: str
    id: str
    incarnation: int
    """Random 63-bit number of this start of the process."""
    pid: int = 0
    http: str = ""
    """HOST:PORT of its /metrics, or empty."""
    mode: str = ""
    """Of compare: the mode that it is in."""
    fence: int = 0
    """Highest fencing token that it was told: a frame that was restarted learns it so."""
    promoted: bool = False
    leased: bool = False
    """A permission to write to the client LAN still runs."""
    frame: int = 0
    """Incarnation of the frame that welcomed it last, 0 when none has: so a frame learns that it was restarted."""


@dataclass(frozen=True, slots=True)
class Welcome:
    TYPE: ClassVar[str] = "welcome"
    epoch: int
    mode: str = Mode.ENFORCE
    incarnation: int = 0
    """Of the frame: a change means it was restarted and wants `Hello` again."""


@dataclass(frozen=True, slots=True)
class Report:
    TYPE: ClassVar[str] = "report"
    role: str
    id: str
    incarnation: int
    counters: dict[str, int]
    gauges: dict[str, int]
    status: dict[str, Any] = field(default_factory=dict)
    pid: int = 0


@dataclass(frozen=True, slots=True)
class CheckpointWanted:
    TYPE: ClassVar[str] = "checkpoint_wanted"
    reason: str
    flow: str = ""
    """`colo_proto.net.flow.describe` of the flow; empty when no single flow is to blame."""
    offset: int | None = None
    """TCP: offset of the first differing byte in the guest's stream (0 is the first byte after the
    SYN); other protocols: index of the packet in its flow."""
    detail: dict[str, Any] = field(default_factory=dict)
    """For people: `primary`/`secondary` (hex of the bytes around the place), `context` (how many bytes
    stand before it), `age_ms`, `held`, …"""
    epoch: int = 0
    source: str = ""
    """Id of the process that asks."""


@dataclass(frozen=True, slots=True)
class CheckpointDone:
    TYPE: ClassVar[str] = "checkpoint_done"
    epoch: int
    state_copied: bool


@dataclass(frozen=True, slots=True)
class Flushed:
    TYPE: ClassVar[str] = "flushed"
    epoch: int
    id: str
    released: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class SetMode:
    TYPE: ClassVar[str] = "set_mode"
    mode: str
    """A rewriter is told `shadow` also where a rule lets some flows out at once."""
    resync: bool = False
    """The secondary is another one, or has missed something, and got no state: connections that are already
    open are unprotected until they close."""


@dataclass(frozen=True, slots=True)
class SetRules:
    TYPE: ClassVar[str] = "set_rules"
    rules: str
    """The text of a file (`colo_proto.rules`)."""


@dataclass(frozen=True, slots=True)
class WorkerTable:
    TYPE: ClassVar[str] = "worker_table"
    version: int
    workers: list[str]
    """Ids of the compare workers (their ZeroMQ routing ids)."""
    slots: list[int] = field(default_factory=list)
    """For each of the 1,024 slots the index of its worker in `workers`."""
    givers: list[str] = field(default_factory=list)
    """Workers whose flows move with this table."""
    moved: list[int] = field(default_factory=list)
    """For each slot 1 + the index in `givers` of the worker that hands its flows over, or 0; empty: none moves."""


@dataclass(frozen=True, slots=True)
class Leaving:
    TYPE: ClassVar[str] = "leaving"
    id: str


@dataclass(frozen=True, slots=True)
class Handover:
    TYPE: ClassVar[str] = "handover"
    version: int
    """Of the table that moved the slots."""
    giver: str
    taker: str
    part: int
    last: bool
    data: bytes
    """All parts together are what `colo_compare.handover.state` packs."""


@dataclass(frozen=True, slots=True)
class HandoverTaken:
    TYPE: ClassVar[str] = "handover_taken"
    version: int
    giver: str
    taker: str
    part: int


@dataclass(frozen=True, slots=True)
class Settled:
    TYPE: ClassVar[str] = "settled"
    id: str
    version: int


@dataclass(frozen=True, slots=True)
class Drain:
    TYPE: ClassVar[str] = "drain"


@dataclass(frozen=True, slots=True)
class Query:
    TYPE: ClassVar[str] = "query"
    what: str = "status"
    """`status`, `checkpoint`, `mode`, `rules`, `failover`, `resync`; the frame answers each with an `Answer`."""
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    TYPE: ClassVar[str] = "answer"
    ok: bool
    body: dict[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    TYPE: ClassVar[str] = "heartbeat"
    role: str
    """`primary` or `secondary`: the side that speaks."""
    incarnation: int
    count: int
    epoch: int
    fence: int = 0
    """Highest fencing token this side has seen."""
    mode: str = Mode.ENFORCE
    table: dict[str, Any] | None = None
    """The primary's worker table (fields of `WorkerTable`), for the splitters of the secondary."""
    body: dict[str, Any] = field(default_factory=dict)
    """Summary for `colo status` of the pair."""
    state: str = ""
    """Where this side stands on the client LAN, for people: what counts is in `claim`."""
    ask: bool = False
    lease_ms: int = 0
    echo_of: int = 0
    echo: int = 0
    """These four were said here before there was `claim`, and are not looked at any more."""
    claim: bytes = b""
    """The same as on the client LAN (`colo_proto.claim`): sealed, and with the proof of when it was said."""


@dataclass(frozen=True, slots=True)
class Promote:
    TYPE: ClassVar[str] = "promote"
    fence: int
    side: str = "secondary"


@dataclass(frozen=True, slots=True)
class Demote:
    TYPE: ClassVar[str] = "demote"
    fence: int


@dataclass(frozen=True, slots=True)
class Lease:
    TYPE: ClassVar[str] = "lease"
    until: float
    """Monotonic seconds of this host (all its processes share that clock); 0: stop now. What a process that was
    stopped finds in its queue later is over by then."""
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Yielded:
    TYPE: ClassVar[str] = "yielded"
    fence: int = 0


@dataclass(frozen=True, slots=True)
class LanSay:
    TYPE: ClassVar[str] = "lan_say"
    frame: bytes
    count: int = 0
    """Number of the claim in it."""
    gates: list[bytes] = field(default_factory=list)
    """Keys by which claims of the pair are told from junk (`colo_proto.claim.Keys.gate`)."""


@dataclass(frozen=True, slots=True)
class LanSaid:
    TYPE: ClassVar[str] = "lan_said"
    count: int = 0


@dataclass(frozen=True, slots=True)
class LanHeard:
    TYPE: ClassVar[str] = "lan_heard"
    frame: bytes


Message = (
    Hello | Welcome | Report | CheckpointWanted | CheckpointDone | Flushed | SetMode | SetRules | WorkerTable
    | Leaving | Handover | HandoverTaken | Settled | Drain | Query | Answer | Heartbeat | Promote | Demote | Lease
    | Yielded | LanSay | LanSaid | LanHeard
)  # fmt: skip

TYPES: dict[str, type[Any]] = {
    cls.TYPE: cls
    for cls in (
        Hello, Welcome, Report, CheckpointWanted, CheckpointDone, Flushed, SetMode, SetRules, WorkerTable,
        Leaving, Handover, HandoverTaken, Settled, Drain, Query, Answer, Heartbeat, Promote, Demote, Lease, Yielded,
        LanSay, LanSaid, LanHeard,
    )
}  # fmt: skip


def to_dict(message: Message) -> dict[str, Any]:
    """The fields of a message, shallow: values are msgpack-able as they are."""
    return {f.name: getattr(message, f.name) for f in fields(message)}
