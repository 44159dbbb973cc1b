"""The transition tables of the leadership: in which state a side may write to the client LAN, and what changes that.

A row is read from left to right: in this state, when this is heard or due, the side comes into that state, and does
what stands last besides. What has no row changes nothing. `colo_frame.leadership` decides which event has happened, and
follows the table; the README shows the same rows, and a test compares the two.

What is said when a state is entered follows from the two states alone (`said`).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from colo_proto.claim import State

TOKEN: Final = "takes a new token"  # noqa: S105 - a fencing token is no secret
"""Take the next fencing token above all that were seen: an even one on the primary, an odd one on the secondary."""
ASKS: Final = "asks"
"""From now on only answers to later claims count. A secondary that asks has had the LAN before."""

WRITING: Final = frozenset({State.HOLDING, State.LEAVING, State.ALONE, State.PROMOTED})
"""The states in which the filters of this host may write to the client LAN."""
PRIMARY_WRITES: Final = WRITING - {State.PROMOTED}
SECONDARY_OWNS: Final = frozenset({State.TAKING, State.PROMOTED})
"""The states in which the secondary has the LAN, or wants it: the primary yields."""
IDLE: Final = frozenset({State.STANDBY, State.FENCED})
"""The states in which a side neither writes nor wants to."""
ANSWER_WANTED: Final = frozenset({State.ASKING, State.LEAVING, State.TAKING})
"""The states in which a side waits for what the other one says."""
FOLLOWING: Final = frozenset({State.STANDBY, State.TAKING})
"""Where roles change: the states of the host that does not lead. In all others it leads, or does not know better."""


class On:
    """What is heard or due: the events of the tables."""

    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    UNSURE = "unsure"
    UNVOTED = "unvoted"
    LINK_LOST = "link lost"
    LINK_BACK = "link back"
    ANNOUNCED = "announced"
    SUPERSEDED = "superseded"
    STOPPED = "stopped"
    SUCCEEDED = "succeeded"
    VACANT = "vacant"
    ORDERED = "ordered"
    SILENT = "silent"
    YIELDED = "yielded"
    OUTRANKED = "outranked"
    DEPOSED = "deposed"
    LED = "led"
    REMEMBERED = "remembered"
    REMEMBERED_LATE = "remembered late"


MEANING: Final[Mapping[str, str]] = {
    On.ANSWERED: "the other side has heard what was asked, and does not have the LAN",
    On.UNANSWERED: "nobody has answered for the timeout, although the question was sent to the LAN "
    "(with a third vote: and the store has noted that this side goes on alone)",
    On.UNSURE: "leases have ended, because this side stalled or nobody could hear it: what happened is unknown",
    On.UNVOTED: "the lease of the third vote has ended, and the other side does not agree (only with a third vote)",
    On.LINK_LOST: "the link between the hosts was silent for the timeout",
    On.LINK_BACK: "the other side speaks on the link between the hosts again",
    On.ANNOUNCED: "the other side has heard that this one goes on alone, or could not hear it for two intervals "
    "(with a third vote: and the store has noted it)",
    On.SUPERSEDED: "the other side has the LAN, or wants it, with a higher token; while this side asks: with any token",
    On.SUCCEEDED: "the other side writes, with a higher token than this one's",
    On.STOPPED: "every writer has confirmed that it stopped, or its lease has ended",
    On.VACANT: "the other side has said for longer than a lease lasts that it does not have the LAN either",
    On.ORDERED: "the operator orders a failover",
    On.SILENT: "the other side was silent on both ways for longer than its leases last; in `standby` only with "
    "automatic failover, and if this guest is a replica",
    On.YIELDED: "the other side is `fenced`, with this side's token",
    On.OUTRANKED: "the other side writes with a higher token, and this side had not had the LAN",
    On.DEPOSED: "the primary writes with a higher token, and this side has had the LAN",
    On.LED: "a process remembers that an earlier start of this frame led, and nobody took a higher token since then",
    On.REMEMBERED: "a process has a valid lease from an earlier start of this frame, which had promoted this side",
    On.REMEMBERED_LATE: "as before, but the lease has ended",
}


class Row(NamedTuple):
    """One row: `state` and what happens `on` it, the `next` state, and what the side does `besides`."""

    state: str
    on: str
    next: str
    besides: tuple[str, ...] = ()


Table = Mapping[tuple[str, str], Row]

_LEADING: Final = (
    Row(State.ASKING, On.ANSWERED, State.HOLDING),
    Row(State.ASKING, On.UNANSWERED, State.ALONE, (TOKEN,)),
    Row(State.ASKING, On.SUPERSEDED, State.YIELDING),
    Row(State.HOLDING, On.LINK_LOST, State.LEAVING, (TOKEN, ASKS)),
    Row(State.HOLDING, On.UNSURE, State.ASKING, (ASKS,)),
    Row(State.HOLDING, On.UNVOTED, State.ASKING, (ASKS,)),
    Row(State.HOLDING, On.SUPERSEDED, State.YIELDING),
    Row(State.LEAVING, On.ANNOUNCED, State.ALONE),
    Row(State.LEAVING, On.LINK_BACK, State.HOLDING),
    Row(State.LEAVING, On.UNSURE, State.ASKING, (ASKS,)),
    Row(State.LEAVING, On.UNVOTED, State.ASKING, (ASKS,)),
    Row(State.LEAVING, On.SUPERSEDED, State.YIELDING),
    Row(State.ALONE, On.LINK_BACK, State.HOLDING),
    Row(State.ALONE, On.UNSURE, State.ASKING, (ASKS,)),
    Row(State.ALONE, On.UNVOTED, State.ASKING, (ASKS,)),
    Row(State.ALONE, On.SUPERSEDED, State.YIELDING),
    Row(State.YIELDING, On.STOPPED, State.FENCED),
    Row(State.FENCED, On.VACANT, State.ASKING, (TOKEN, ASKS)),
)
"""What a side does that leads, has led, or asks whether it may."""

_SECONDARY: Final = (
    Row(State.STANDBY, On.ORDERED, State.TAKING, (TOKEN,)),
    Row(State.STANDBY, On.SILENT, State.TAKING, (TOKEN,)),
    Row(State.STANDBY, On.REMEMBERED, State.PROMOTED),
    Row(State.STANDBY, On.REMEMBERED_LATE, State.TAKING, (ASKS,)),
    Row(State.TAKING, On.SILENT, State.PROMOTED),
    Row(State.TAKING, On.YIELDED, State.PROMOTED),
    Row(State.TAKING, On.REMEMBERED, State.PROMOTED),
    Row(State.TAKING, On.OUTRANKED, State.STANDBY),
    Row(State.TAKING, On.DEPOSED, State.FENCED),
    Row(State.PROMOTED, On.UNSURE, State.TAKING, (ASKS,)),
    Row(State.PROMOTED, On.UNVOTED, State.TAKING, (ASKS,)),
    Row(State.PROMOTED, On.DEPOSED, State.FENCED),
    Row(State.FENCED, On.ORDERED, State.TAKING, (TOKEN,)),
)

_EITHER: Final = (
    *_LEADING,
    Row(State.ASKING, On.VACANT, State.HOLDING),
    Row(State.FENCED, On.SUCCEEDED, State.STANDBY),
    Row(State.FENCED, On.ORDERED, State.TAKING, (TOKEN,)),
    Row(State.STANDBY, On.ORDERED, State.TAKING, (TOKEN,)),
    Row(State.STANDBY, On.SILENT, State.TAKING, (TOKEN,)),
    Row(State.STANDBY, On.VACANT, State.ASKING, (TOKEN, ASKS)),
    Row(State.STANDBY, On.LED, State.ASKING, (ASKS,)),
    Row(State.TAKING, On.SILENT, State.ALONE),
    Row(State.TAKING, On.YIELDED, State.HOLDING),
    Row(State.TAKING, On.VACANT, State.ALONE),
    Row(State.TAKING, On.OUTRANKED, State.STANDBY),
)

EITHER: Final = "either"
"""The table of both hosts where roles change: which of them leads is a state."""
TABLES: Final[Mapping[str, Table]] = {
    "primary": {(row.state, row.on): row for row in _LEADING},
    "secondary": {(row.state, row.on): row for row in _SECONDARY},
    EITHER: {(row.state, row.on): row for row in _EITHER},
}
FIRST: Final[Mapping[str, str]] = {"primary": State.ASKING, "secondary": State.STANDBY}
"""The state of a side that has just started. A primary that has no other side is `alone` at once."""


class Said:
    """What the processes of the host are told when a state is entered."""

    LEASE = "lease"
    """Every process that can write gets a lease."""
    STOP = "stop"
    """Leases end now, and every process that can write confirms it."""
    PROMOTE = "promote"
    DEMOTE = "demote"


def said(side: str, before: str, after: str) -> tuple[str, ...]:
    """What the processes of this host are told when the state changes. The other side gets a claim in any case. `side`
    is the name of a table.
    """
    words = [Said.LEASE] if after in WRITING else []
    if side == EITHER:
        if after in WRITING and before not in WRITING:
            words.append(Said.PROMOTE)
        elif after == State.STANDBY:
            words.append(Said.DEMOTE)
    elif after == State.PROMOTED:
        words.append(Said.PROMOTE)
    elif after == State.FENCED and side == "secondary":
        words.append(Said.DEMOTE)
    if after not in WRITING and (before in WRITING or after == State.YIELDING):
        words.append(Said.STOP)
    return tuple(words)


def role_of(state: object) -> str:
    """Where roles change: the role of a host in this state, for people."""
    return "leader" if state in WRITING else "standby" if state in FOLLOWING else "none"


def as_lines(side: str) -> list[str]:
    """The table of a side as Markdown, for the README."""
    lines = ["| state | what is heard or due | next state | besides | processes are told |", "|---|---|---|---|---|"]
    for row in TABLES[side].values():
        told = ", ".join(said(side, row.state, row.next))
        lines.append(f"| `{row.state}` | {row.on} | `{row.next}` | {' and '.join(row.besides)} | {told} |")
    return lines


def meanings() -> list[str]:
    """What each event is, as Markdown, for the README."""
    return ["| heard or due | meaning |", "|---|---|", *(f"| {event} | {text} |" for event, text in MEANING.items())]
