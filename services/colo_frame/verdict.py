"""The verdict: would this pair survive the loss of its primary now? One judgement, made here and nowhere else. Pure.

::

    this frame     which state its side is in (`leadership`), mode, resync, unprotected flows   --+
    this host      its processes, their links and taps, its guest (`chain`, `guests`)           --+--> judge --> Verdict
    the other one  what its heartbeat says: its state, what is broken there, its verdict        --+

=============  ======  ==============================================================================
level          number  means
=============  ======  ==============================================================================
`protected`    0       the secondary could continue every connection
`degraded`     3       it would continue most of them, or the next fault would be one too many
`unprotected`  4       there is no secondary that could continue
=============  ======  ==============================================================================

The number is the exit status of `colo status` and the value of the gauge `verdict`. The primary's frame judges the
pair, and tells the secondary in each heartbeat, so both hosts show the same. A side that writes to the client LAN
because it was promoted, or that does not hear the other one, judges by itself from what it knows.

The same judgement decides who may take over: the primary says `protected` in its claims only while no cause makes the
pair unprotected (`Verdict.replica`), and a secondary that knows of something broken in its own chain does not take over
by itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from colo_frame.transitions import WRITING
from colo_proto.claim import State
from colo_proto.messages import Mode

PROTECTED: Final = "protected"
DEGRADED: Final = "degraded"
UNPROTECTED: Final = "unprotected"
NUMBERS: Final = {PROTECTED: 0, DEGRADED: 3, UNPROTECTED: 4}
"""See the table in the module's text."""

HERE: Final = {True: "primary", False: "secondary"}
NOBODY: Final = "nobody"
UNKNOWN: Final = "unknown"
LANS: Final = ("primary", "secondary", NOBODY, UNKNOWN)
"""On which side the client LAN is: the side that writes to it."""

MAX_CAUSES: Final = 8
MAX_TEXT: Final = 200
MAX_REASON: Final = 64


class Why:
    """The words that say why a pair is not protected: `Cause.reason`, and labels of the gauge `verdict_causes`."""

    NO_SECONDARY = "no_secondary"
    NO_PRIMARY = "no_primary"
    CONFLICT = "conflict"
    UNPROVEN = "unproven"
    ASKING = "asking"
    TAKING = "taking"
    FENCED = "fenced"
    JOINING = "joining"
    RESYNC_RUNNING = "resync_running"
    RESYNC_NEEDED = "resync_needed"
    MODE = "mode"
    PROCESS = "process_lost"
    LINK = "link_cut"
    TAP = "no_tap"
    NO_FILTERS = "no_filters"
    NETDEV = "netdev_lost"
    LAN = "lan_heartbeat"
    GUEST = "guest_deaf"
    FLOWS = "flows"


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why the pair is not protected."""

    reason: str
    """One of `Why`; a newer frame on the other host may have others."""
    level: str
    """What the pair is because of it: `degraded` or `unprotected`."""
    text: str
    """For people, without the time."""
    since: float | None = None
    """Since when, in monotonic seconds of this host."""
    detail: str = ""
    """What stands behind the time."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of the pair."""

    level: str
    causes: tuple[Cause, ...] = ()
    """The gravest ones first."""
    lan: str = UNKNOWN
    """One of `LANS`."""

    @property
    def number(self) -> int:
        """The exit status of `colo status`."""
        return NUMBERS[self.level]

    @property
    def replica(self) -> bool:
        """Could the secondary continue, as far as the primary's side knows? It may not have heard of that yet."""
        return all(one.level != UNPROTECTED or one.reason == Why.JOINING for one in self.causes)

    @property
    def text(self) -> str:
        """For people, without times: `degraded (3 of 40 connections unprotected, payload)`."""
        causes = "; ".join(", ".join(filter(None, (one.text, one.detail))) for one in self.causes)
        return f"{self.level} ({causes})" if causes else self.level

    def status(self, now: float) -> dict[str, Any]:
        """The same for a heartbeat and for `colo status`. Ages are milliseconds."""
        return {"level": self.level, "lan": self.lan, "causes": [cause_status(one, now) for one in self.causes]}


@dataclass(frozen=True, slots=True)
class Flows:
    """The connections and other flows of the compares."""

    open: int = 0
    unprotected: int = 0
    since: float | None = None
    """Since when some have been unprotected."""
    reason: str = ""
    """Why the last checkpoint was made that left some of them unprotected."""


@dataclass(frozen=True, slots=True)
class Other:
    """What is known of the other side."""

    alive: bool = False
    """Its heartbeats come."""
    heard: float | None = None
    """When the last one came; None: never."""
    present: bool = False
    """It is heard on one way at least, so its state is known."""
    conflict: bool = False
    """It says that it is on our side."""
    state: str = ""
    promotable: bool | None = None
    """The secondary's own word; None: it does not say."""
    broken: tuple[Cause, ...] = ()
    told: Verdict | None = None
    """Its verdict on the pair."""


@dataclass(frozen=True, slots=True)
class View:
    """All that a side knows when it judges the pair."""

    primary: bool
    """This side leads."""
    state: str
    host: str = ""
    """The name of this host where roles change; empty: it is that of the role."""
    other: Other = field(default_factory=Other)
    mode: str = Mode.ENFORCE
    left_alone: bool = False
    """The mode is `bypass` because there was no secondary."""
    resyncing: bool = False
    flows: Flows = field(default_factory=Flows)
    broken: tuple[Cause, ...] = ()
    """What is broken on this host."""
    crossing: tuple[Cause, ...] = ()
    """Primary: links to the other host that nobody is at."""
    deaf: tuple[Cause, ...] = ()
    """Primary: guests that answer nothing."""


def judge(view: View) -> Verdict:
    """The verdict of one side, from all that it knows."""
    found = _judge(view)
    return Verdict(found.level, tuple(by_role(found.causes)), found.lan) if view.host else found


def by_role(causes: Iterable[Cause]) -> list[Cause]:
    """The same causes where roles change: `primary` is the name of a host there."""
    return [
        replace(one, text=one.text.replace("primary", "leader").replace("secondary", "standby")[:MAX_TEXT])
        for one in causes
    ]


def _judge(view: View) -> Verdict:
    other = view.other
    if view.primary:
        return verdict([*_lead(view), *_replica(view), *view.broken], _lan(view))
    if view.state in (State.STANDBY, State.FENCED) and other.alive and not other.conflict and other.told is not None:
        # What we know to be broken here counts at once, before the primary has heard of it.
        known = {(one.reason, one.text) for one in other.told.causes}
        own = [one for one in view.broken if (one.reason, one.text) not in known]
        return verdict([*own, *other.told.causes], _lan(view))
    return verdict([*_follow(view), *_weakened(view.broken)], _lan(view))


def verdict(causes: Iterable[Cause], lan: str) -> Verdict:
    """The verdict that follows from these causes: the gravest one decides."""
    found = sorted(causes, key=lambda one: -NUMBERS[one.level])[:MAX_CAUSES]
    return Verdict(found[0].level if found else PROTECTED, tuple(found), lan)


def _lan(view: View) -> str:
    """On which side the client LAN is."""
    here = view.host == HERE[True] if view.host else view.primary
    if view.state in WRITING:
        return HERE[here]
    if not view.other.present:
        return UNKNOWN
    return HERE[not here] if view.other.state in WRITING else NOBODY


def _lead(view: View) -> list[Cause]:
    """Primary: why it does not lead a pair of two; empty when it does."""
    state, other = view.state, view.other
    if state in (State.YIELDING, State.FENCED):
        return [Cause(Why.FENCED, UNPROTECTED, "the primary is fenced: the secondary has the client LAN")]
    if other.conflict:
        return [Cause(Why.CONFLICT, UNPROTECTED, "no secondary: the other frame is a primary, too")]
    if not other.alive:
        return [Cause(Why.NO_SECONDARY, UNPROTECTED, "no secondary", other.heard)]
    if state == State.ASKING:
        return [Cause(Why.ASKING, UNPROTECTED, "the primary asks whether it may write to the client LAN")]
    if state in (State.ALONE, State.LEAVING):
        return [Cause(Why.UNPROVEN, UNPROTECTED, "no secondary: what its frame claims is not believed")]
    if other.state == State.FENCED:
        return [Cause(Why.FENCED, UNPROTECTED, "the secondary is fenced: its guest is no replica")]
    if other.state in (State.TAKING, State.PROMOTED):
        return [Cause(Why.TAKING, UNPROTECTED, "a failover is under way")]
    if view.host and other.state != State.STANDBY:
        return [Cause(Why.JOINING, UNPROTECTED, "the secondary does not follow yet")]
    return []


def _replica(view: View) -> list[Cause]:
    """Primary with a secondary: why that could not continue, or not every connection."""
    if _lead(view):
        return []
    causes = list(view.other.broken)
    if not _broken(causes):
        causes += view.crossing
    if not _broken(causes):
        causes += view.deaf
    grave = _broken(causes)
    causes += _compared(view, whole=not grave)
    if not _broken(causes) and view.other.promotable is False:
        causes.append(Cause(Why.JOINING, UNPROTECTED, "the secondary has not heard yet that it is a replica"))
    return causes


def _broken(causes: Sequence[Cause]) -> bool:
    return any(one.level == UNPROTECTED for one in causes)


def _compared(view: View, *, whole: bool) -> list[Cause]:
    """Is everything compared that leaves? `whole`: nothing of the secondary is broken."""
    flows = view.flows
    if view.resyncing or (view.left_alone and view.mode == Mode.ENFORCE):
        return [Cause(Why.RESYNC_RUNNING, UNPROTECTED, "resync running")]
    if view.mode != Mode.ENFORCE:
        if view.left_alone and whole:
            return [
                Cause(Why.RESYNC_NEEDED, UNPROTECTED, f"mode {view.mode}: the secondary is back, colo resync is needed")
            ]
        return [Cause(Why.MODE, UNPROTECTED, f"mode {view.mode}")]
    if not flows.unprotected:
        return []
    level = UNPROTECTED if flows.unprotected >= flows.open else DEGRADED
    text = f"{flows.unprotected} of {flows.open} connections unprotected"
    return [Cause(Why.FLOWS, level, text, flows.since, flows.reason)]


def _weakened(causes: Iterable[Cause]) -> list[Cause]:
    """Of a secondary that does not follow: what is broken there is not why nobody could take over from it."""
    return [Cause(one.reason, DEGRADED, one.text, one.since, one.detail) for one in causes]


def _follow(view: View) -> list[Cause]:
    """Secondary: what it knows without the primary's verdict."""
    state, other = view.state, view.other
    if state == State.FENCED:
        return [Cause(Why.FENCED, UNPROTECTED, "the secondary is fenced: its guest is no replica")]
    if state == State.TAKING:
        return [Cause(Why.TAKING, UNPROTECTED, "a failover is under way")]
    if state == State.PROMOTED:
        if other.present and other.state in (State.YIELDING, State.FENCED):
            return [Cause(Why.FENCED, UNPROTECTED, "the primary is fenced: the secondary has the client LAN")]
        return [Cause(Why.NO_SECONDARY, UNPROTECTED, "no secondary")]
    if other.conflict:
        return [Cause(Why.CONFLICT, UNPROTECTED, "no primary: the other frame is a secondary, too")]
    if not other.alive:
        return [Cause(Why.NO_PRIMARY, UNPROTECTED, "the primary's frame is silent", other.heard)]
    return [Cause(Why.NO_PRIMARY, UNPROTECTED, "the primary's frame gives no verdict")]


# -- what frames tell each other ------------------------------------------------------------------


def cause_status(cause: Cause, now: float) -> dict[str, Any]:
    """A cause for a heartbeat and for `colo status`; `age_ms` is None when it is not known since when."""
    age = None if cause.since is None else max(int((now - cause.since) * 1000), 0)
    return {"reason": cause.reason, "level": cause.level, "text": cause.text, "age_ms": age, "detail": cause.detail}


def read_causes(said: object, now: float) -> tuple[Cause, ...]:
    """The causes that another frame has sent. What no frame can have sent is left out."""
    found = [_read_cause(one, now) for one in said[:MAX_CAUSES]] if isinstance(said, list) else []
    return tuple(one for one in found if one is not None)


def _read_cause(said: object, now: float) -> Cause | None:
    if not isinstance(said, dict):
        return None
    reason, level, text, age = (said.get(name) for name in ("reason", "level", "text", "age_ms"))
    detail = said.get("detail", "")
    if not (isinstance(reason, str) and isinstance(text, str) and isinstance(detail, str)):
        return None
    if level not in (DEGRADED, UNPROTECTED) or not 0 < len(reason) <= MAX_REASON:
        return None
    if max(len(text), len(detail)) > MAX_TEXT or not reason.isidentifier() or not reason.isascii():
        return None
    since = now - age / 1000 if type(age) is int and 0 <= age < 1 << 53 else None
    return Cause(reason, level, text, since, detail)


def read_verdict(said: object, now: float) -> Verdict | None:
    """The verdict of another frame; None when it has none, or when no frame can have sent it."""
    if not isinstance(said, dict) or said.get("level") not in tuple(NUMBERS) or said.get("lan") not in LANS:
        return None
    causes = read_causes(said.get("causes"), now)
    # The level follows from the causes, so the two cannot contradict each other.
    found = verdict(causes, str(said["lan"]))
    return found if found.level == said["level"] else None
