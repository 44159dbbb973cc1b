"""Who causes checkpoints again and again, and how long the next one of each has to wait.

A request for a checkpoint has two causes: the *service* of the guest that differs (its protocol and the guest's port),
and the *client* (its address). It waits as long as the cause with the longer delay. Each checkpoint that answers a
cause doubles its delay::

    checkpoint   1     2         3                 4                                   5
                 |-----|---------|-----------------|-----------------------------------|---
    delay         FIRST  twice     four times        eight times, and so on up to `longest`

and each time `longest` seconds have passed, the delay is halved. So a cause may get a few checkpoints in a row, but in
the long run only one in `longest` seconds. Services and clients are remembered separately, because a client can make up
any number of addresses: the service stays known all the same.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from colo_proto.messages import CheckpointWanted, Reason

FIRST: Final = 1.0
"""Seconds from a cause's first checkpoint to its second."""

REMEMBERED: Final = 256
"""This many services are remembered, and as many clients. The one that was answered longest ago is forgotten."""

COUNTED: Final = 64
"""This many services have a counter of their own. Later ones share one, because counters are never removed."""

SHOWN: Final = 16
"""At most this many causes are shown in `colo status`."""

REPEATED: Final = 3
"""A cause counts as repeated from this many checkpoints in a row on."""

MAX_CAUSE: Final = 60
MAX_FLOW: Final = 200
"""Longest name of a cause, and longest flow that is shown with it: both are what another process says."""

INTERNAL: Final = frozenset({Reason.MIRROR_GAP, Reason.WORKER_LOST, Reason.RESCALE, Reason.RESYNC, Reason.REQUEST})
"""Reasons that lie in the pair itself, so that no flow has caused them."""


class CauseNames(NamedTuple):
    """The causes of one request. A name is empty where the request has no cause of that kind."""

    service: str
    client: str


@dataclass(slots=True)
class Cause:
    """A service or a client whose flows were answered by checkpoints."""

    at: float
    """When it was answered last."""
    level: int = 0
    """Checkpoints in a row, less what time has taken away since."""
    checkpoints: int = 0
    noted: bool = False
    """It was already counted and logged that the next checkpoint of this cause is put off."""
    reason: str = ""
    flow: str = ""
    """Reason and flow of the last request that had this cause and was put off."""


def causes_of(request: CheckpointWanted) -> CauseNames:
    """What a request is caused by."""
    if request.reason in INTERNAL:
        return CauseNames("", "")
    words = request.flow[:MAX_FLOW].partition(" about ")[0].split(" ")
    while len(words) > 2 and words[0] == "vlan":
        del words[:2]
    if len(words) != 4 or words[2] != ">":
        return CauseNames(f"unknown ({request.reason})"[:MAX_CAUSE], "")
    _, port = _address_and_port(words[1])
    client, _ = _address_and_port(words[3])
    return CauseNames((f"{words[0]} port {port}" if port else words[0])[:MAX_CAUSE], client[:MAX_CAUSE])


def _address_and_port(text: str) -> tuple[str, str]:
    """Address and port of `10.0.0.2:80`, `[fd00::2]:80`, `10.0.0.2` or `fd00::2`."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, ""
    return address, port


class Causes:
    """The causes that are remembered. `longest` is the longest delay in seconds; with 0 nobody waits."""

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self._tables: tuple[OrderedDict[str, Cause], ...] = (OrderedDict(), OrderedDict())
        """Services and clients, as in `CauseNames`."""
        self._counted: set[str] = set()
        self._top = next(level for level in range(1, 64) if FIRST * 2.0 ** (level - 1) >= longest)
        """The level at which the delay is `longest`. Levels do not rise above it, or it would take long to come down
        again.
        """

    def due(self, names: CauseNames) -> float:
        """When the next checkpoint of these causes may begin; 0 when they have had none."""
        return max((due for due, _, _ in self._known(names)), default=0.0)

    def _known(self, names: CauseNames) -> list[tuple[float, str, Cause]]:
        """When the next checkpoint of each may begin, for those of these causes that are remembered."""
        found = [(name, table[name]) for table, name in zip(self._tables, names, strict=True) if name in table]
        return [(cause.at + self._delay(cause), name, cause) for name, cause in found]

    def put_off(self, names: CauseNames, request: CheckpointWanted, now: float) -> tuple[str, float] | None:
        """A request with these causes has to wait. Returns the cause that makes it wait and for how long, or None if
        that was said before.
        """
        known = self._known(names)
        for _, _, cause in known:
            cause.reason, cause.flow = request.reason[:MAX_CAUSE], request.flow[:MAX_FLOW]
        due, name, cause = max(known, key=lambda one: one[0])
        if due <= now or cause.noted:
            return None
        cause.noted = True
        return name, due - cause.at

    def counter(self, name: str) -> str:
        """The name under which a cause that is put off is counted: never a client's address."""
        if name not in self._tables[0]:
            return "client"
        if name not in self._counted and len(self._counted) >= COUNTED:
            return "other"
        self._counted.add(name)
        return name

    def answered(self, many: Iterable[CauseNames], now: float) -> None:
        """A checkpoint has answered all these. It counts once for each cause, however many requests had that cause."""
        for table, names in zip(self._tables, zip(*many, strict=True), strict=False):
            for name in sorted({*names} - {""}):
                self._raise(table, name, now)

    def _raise(self, table: OrderedDict[str, Cause], name: str, now: float) -> None:
        cause = table.get(name)
        if cause is None:
            if len(table) >= REMEMBERED:
                table.popitem(last=False)
            cause = table[name] = Cause(now)
        table.move_to_end(name)
        cause.level = min(self._level(cause, now) + 1, self._top)
        cause.at = now
        cause.checkpoints += 1
        cause.noted = False

    def _all(self) -> list[tuple[str, Cause]]:
        return [one for table in self._tables for one in table.items()]

    def repeated(self, now: float) -> int:
        """How many causes are repeated ones now."""
        return sum(self._level(cause, now) >= REPEATED for _, cause in self._all())

    def status(self, now: float) -> list[dict[str, Any]]:
        """The causes with the longest delays, for `colo status`."""
        worst = sorted(self._all(), key=lambda one: (-self._level(one[1], now), -one[1].at))[:SHOWN]
        return [
            {
                "cause": name,
                "checkpoints": cause.checkpoints,
                "delay_ms": int(self._delay(cause) * 1000),
                "wait_ms": max(int((cause.at + self._delay(cause) - now) * 1000), 0),
                "reason": cause.reason,
                "flow": cause.flow,
            }
            for name, cause in worst
            if self._level(cause, now)
        ]

    def _level(self, cause: Cause, now: float) -> int:
        return max(cause.level - int((now - cause.at) / self.longest), 0) if self.longest else 0

    def _delay(self, cause: Cause) -> float:
        """Seconds from its last checkpoint to its next. The level falls only after at least as long, so a wait that
        has begun does not get shorter.
        """
        return min(FIRST * 2.0 ** (cause.level - 1), self.longest) if cause.level else 0.0
